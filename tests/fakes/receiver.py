"""A receiver of webhooks on loopback: it keeps what comes and answers as it is told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SECRET_BYTES = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(SECRET_BYTES).decode()


@dataclass
class Message:
    """As it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def state(self) -> str:
        """The state that it tells of."""
        return str(self.document["data"]["state"])

    @property
    def is_signed(self) -> bool:
        """As docs/events.md tells receivers to look."""
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = "v1," + base64.b64encode(hmac.new(SECRET_BYTES, signed, hashlib.sha256).digest()).decode()
        return any(hmac.compare_digest(expected, given) for given in self.headers["webhook-signature"].split(" "))


@dataclass
class Receiver:
    """``answers`` are given first, in order; then 204. ``messages`` is all that came, whatever was answered."""

    port: int = 0
    answers: list[int] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    more: dict[str, str] = field(default_factory=dict)
    """Headers of every answer."""
    body: bytes = b""
    """Of every answer but a 204."""
    certificate: tuple[Path, Path] | None = None
    """With its key: speaks TLS."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=s3cret"

    @property
    def states(self) -> list[str]:
        return [message.state for message in self.messages]

    @contextmanager
    def listening(self) -> Iterator[Receiver]:
        """On its port, which stays its own when it listens again later."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.messages.append(Message(self.path, headers, body))
                status = receiver.answers.pop(0) if receiver.answers else 204
                self.send_response(status)
                for name, value in receiver.more.items():
                    self.send_header(name, value)
                content = b"" if status == 204 else receiver.body
                if status != 204:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                """Nothing."""

        with ThreadingHTTPServer(("127.0.0.1", self.port), Handler) as server:
            self.port = server.server_port
            if self.certificate is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*self.certificate)
                server.socket = context.wrap_socket(server.socket, server_side=True)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()
