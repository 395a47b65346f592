"""A proxy between the mover and a real store that spoils what a test tells it to, and carries the rest unchanged.

It may be used as a forward proxy (``http_proxy``) or as the store's address itself. Either way the Host header passes
as it came, so the store finds every signature right. It can also let only so many bytes a second through, which makes
a job last as long as a test needs.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import re
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit, urlunsplit

PIECE_BYTES = 64 * 1024
LONGEST_SILENCE_SECONDS = 20.0


class Answer(NamedTuple):
    """What the store said, or what the proxy says in its stead."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Fault:
    """What happens to which requests: ``part`` None means any, ``times`` None for ever."""

    name: str
    method: str
    part: int | None
    times: int | None


@dataclass
class FaultProxy:
    """``store`` is host:port of the real one. ``part_size_bytes`` tells it which part a range belongs to."""

    store: str
    faults: Mapping[str, Callable[[ProxyHandler], None]] = field(default_factory=dict)
    part_size_bytes: int = 1
    bytes_per_second: float | None = None
    port: int = 0
    bytes_passed: int = 0
    """Of bodies, both ways."""
    injected: int = 0
    spoiled: threading.Event = field(default_factory=threading.Event)
    """Set when a fault has run its course."""
    requests: list[tuple[str, int]] = field(default_factory=list)
    lookups_to_fail: float = 0
    """How many look-ups of names shall fail from now on; tests that replace the resolver ask for it."""
    _faults: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _carried: threading.Condition = field(default_factory=threading.Condition)
    _late: int = 0
    _free_at: float = 0.0

    def spoil(self, name: str, method: str, part: int | None = None, times: int | None = 1) -> None:
        """From now on, ``times`` times: the fault ``name`` (a key of ``faults``)."""
        assert name in self.faults, name
        self._faults.append(Fault(name, method, part, times))

    def heal(self) -> None:
        """No more faults."""
        with self._lock:
            self._faults.clear()
            self.lookups_to_fail = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for_late_requests(self) -> None:
        """Until what was held back has reached the store."""
        with self._carried:
            assert self._carried.wait_for(lambda: self._late == 0, LONGEST_SILENCE_SECONDS)

    def fault_for(self, method: str, part: int) -> str | None:
        with self._lock:
            self.requests.append((method, part))
            for fault in self._faults:
                if fault.method == method and fault.part in (None, part) and fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    self.injected += 1
                    return fault.name
        return None

    def pace(self, count: int) -> None:
        """Waits until so many bytes may pass; all connections share the rate."""
        with self._lock:
            self.bytes_passed += count
            if self.bytes_per_second is None:
                return
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + count / self.bytes_per_second
            wait_seconds = self._free_at - now
        time.sleep(wait_seconds)

    @contextlib.contextmanager
    def serving(self, port: int = 0) -> Iterator[FaultProxy]:
        proxy = self

        class Handler(ProxyHandler):
            pass

        Handler.proxy = proxy
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        server.handle_error = lambda request, address: None  # type: ignore[method-assign]
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    @contextlib.contextmanager
    def holding_back(self) -> Iterator[Callable[[], None]]:
        """Gives a wait until the store has answered another request than the one held back."""
        with self._carried:
            self._late += 1
            carried_then = self._carried_count

        def wait() -> None:
            with self._carried:
                self._carried.wait_for(lambda: self._carried_count > carried_then, LONGEST_SILENCE_SECONDS)

        try:
            yield wait
        finally:
            with self._carried:
                self._late -= 1
                self._carried.notify_all()

    _carried_count: int = 0

    def carried(self) -> None:
        with self._carried:
            self._carried_count += 1
            self._carried.notify_all()


class ProxyHandler(BaseHTTPRequestHandler):
    """One connection of the mover."""

    proxy: FaultProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _serve(self) -> None:
        where = urlsplit(self.path)
        self.path = urlunsplit(("", "", where.path, where.query, ""))
        self.length = int(self.headers.get("Content-Length") or 0)
        found = re.match(r"bytes=([0-9]+)-", self.headers.get("Range") or "")
        number = (parse_qs(where.query).get("partNumber") or ["0"])[0]
        part = int(found.group(1)) // self.proxy.part_size_bytes + 1 if found else int(number)
        fault = self.proxy.fault_for(self.command, part)
        if fault is not None:
            self.proxy.faults[fault](self)
            self.proxy.spoiled.set()
            return
        self.give(self.ask_store(self.read_body()))
        self.proxy.carried()

    # --- what faults are made of

    @property
    def is_put(self) -> bool:
        return self.command in ("PUT", "POST")

    def read_body(self, count: int | None = None) -> bytes:
        """The request's body, or its beginning."""
        left, pieces = self.length if count is None else count, []
        while left:
            piece = self.rfile.read(min(left, PIECE_BYTES))
            if not piece:
                raise ConnectionError("the mover hung up")
            self.proxy.pace(len(piece))
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def ask_store(self, body: bytes, without_range: bool = False) -> Answer:
        skipped = {"content-length", "connection", "proxy-connection", "proxy-authorization", *(["range"] * without_range)}
        headers = {name: value for name, value in self.headers.items() if name.lower() not in skipped}
        connection = http.client.HTTPConnection(self.proxy.store, timeout=60)
        try:
            connection.request(self.command, self.path, body if self.is_put else None, headers)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def give(self, answer: Answer, body_bytes: int | None = None, length: int | str | None = None) -> None:
        """The answer, with ``body_bytes`` of its body, under a Content-Length of ``length``."""
        self.send_response_only(answer.status)
        lengths = [value for name, value in answer.headers.items() if name.lower() == "content-length"]
        for name, value in answer.headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        if length is None:
            length = lengths[0] if self.command == "HEAD" and lengths else len(answer.body)
        if length != "chunked":
            self.send_header("Content-Length", str(length))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        body = memoryview(answer.body)[:body_bytes]
        for start in range(0, len(body), PIECE_BYTES):
            piece = body[start : start + PIECE_BYTES]
            self.proxy.pace(len(piece))
            if length == "chunked":
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            else:
                self.wfile.write(piece)
        if length == "chunked" and body_bytes is None:
            self.wfile.write(b"0\r\n\r\n")

    def reset(self) -> None:
        """RST, after all that was given has arrived."""
        self.drain()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def drain(self) -> None:
        waiting = bytearray(4)
        deadline = time.monotonic() + 5
        while fcntl.ioctl(self.connection, termios.TIOCOUTQ, waiting) == 0 and struct.unpack("i", waiting)[0]:
            assert time.monotonic() < deadline, "the mover does not read"
            time.sleep(0.001)

    def hang_up(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def stay_silent(self) -> None:
        """Neither reads nor writes until the mover gives up."""
        self.has_lost_its_client(LONGEST_SILENCE_SECONDS)
        self.close_connection = True

    def has_lost_its_client(self, within_seconds: float = 0) -> bool:
        poll = select.poll()
        poll.register(self.connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        return bool(poll.poll(within_seconds * 1000))
