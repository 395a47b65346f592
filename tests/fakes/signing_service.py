"""A small real SSH signing service over HTTPS, as docs/ssh.md defines it, that misbehaves on request."""

from __future__ import annotations

import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import asyncssh
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TOKEN = "a-token-of-the-signing-service"


class SigningService:
    """``questions`` holds what was asked. ``answer`` replaces (status, body) when it is set; ``release`` lets go who waits."""

    def __init__(self, authority: asyncssh.SSHKey, url: str, ca_file: Path) -> None:
        self.authority = authority
        self.url = url
        self.ca_file = ca_file
        self.questions: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], tuple[int, bytes]] | None = None
        self.release = threading.Event()
        self.release.set()

    def settings(self, **more: Any) -> dict[str, Any]:
        """The ``certificate_authority`` of a system that asks it."""
        return {
            "signing_service_url": self.url,
            "signing_service_token": TOKEN,
            "signing_service_ca_file": str(self.ca_file),
            "signing_service_timeout_seconds": 5,
            **more,
        }

    def certificate(self, question: dict[str, Any], **more: Any) -> bytes:
        """What it answers when it is well; ``more`` replaces what asyncssh is told."""
        now = int(time.time())
        options = {
            "principals": [question["principal"]],
            "valid_after": now - 60,
            "valid_before": now + question["ttlSeconds"],
            **more,
        }
        key = options.pop("key", None) or asyncssh.import_public_key(question["publicKey"])
        signed = self.authority.generate_user_certificate(key, "signed", **options)
        return json.dumps({"certificate": signed.export_certificate("openssh").decode()}).encode()

    def respond(self, token: str | None, body: bytes) -> tuple[int, bytes]:
        self.release.wait(30)
        if token != f"Bearer {TOKEN}":
            return 401, b'{"message": "who are you"}'
        question = json.loads(body)
        self.questions.append(question)
        return self.answer(question) if self.answer else (200, self.certificate(question))


@contextmanager
def signing_service(directory: Path, authority: asyncssh.SSHKey) -> Iterator[SigningService]:
    """It listens on this machine, with a TLS certificate of its own in ``directory``."""
    certificate, key = _tls_certificate(directory)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = service.respond(self.headers.get("Authorization"), body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Tests read ``questions``."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that gave up, or does not trust us: what the tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    service = SigningService(authority, f"https://127.0.0.1:{server.server_port}/sign", certificate)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.release.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def _tls_certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "signing service")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "signing-service.pem", directory / "signing-service.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file
