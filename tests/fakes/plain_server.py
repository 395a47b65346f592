"""A web server on loopback that answers each request with nothing but its headers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nobody reads it."""


class _ClosingHandler(_Handler):
    protocol_version = "HTTP/1.0"


@contextmanager
def plain_server(*, closes: bool = False) -> Iterator[str]:
    """Its URL. ``closes``: each connection after one answer."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _ClosingHandler if closes else _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
