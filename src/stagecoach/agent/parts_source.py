"""Serves the parts of large files to the agent's own rclone: a small web server on loopback behind a path nobody can guess.

rclone reads it as plain files. Each is read from the source as it is asked for, a piece at a time, and its MD5 made on the
way. Only parts that are wanted are listed, and a source that has changed since it was measured is not served any more.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from stagecoach.agent.part_digests import FileDigests, identity_of
from stagecoach.agent.parts import PartedFile, PartName, part_name
from stagecoach.mover.stagecoach_mover import Failed, Handle

_PIECE_BYTES = 512 * 1024
_LEAST_PIECE_BYTES = 4096
_LONGEST_PAUSE_SECONDS = 0.5
# Of a clock's fractions: nobody waits for less than a byte.
_ROUNDING_BYTES = 0.5
# rclone waits for the receiver while it holds a connection open; whoever stops altogether is ended with the server.
_SILENT_SECONDS = 86_400.0
_RANGE = re.compile(r"bytes=(\d{1,20})-(\d{0,20})")
_PART = re.compile(r"([1-9]\d{0,8})-([0-9a-f]+)/(\d{6})")


@dataclass(frozen=True)
class Source:
    """One file to be served. ``open`` gives a new handle for reading, and raises Failed."""

    file: PartedFile
    identity: list[int]
    digests: FileDigests
    open: Callable[[], Handle]


class SourceChanged(Exception):
    """It is not the file any more that was measured."""


class Pace:
    """So many bytes in a second, for all threads together; ``rate`` is asked each time. None: as fast as it goes."""

    def __init__(self, rate: Callable[[], int | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._ahead_bytes = 0.0
        self._kept_rate: int | None = None
        self._at = clock()

    @property
    def piece_bytes(self) -> int:
        """To be read at once: few enough that a slow rate is no jerking."""
        rate = self._rate()
        return _PIECE_BYTES if rate is None else max(_LEAST_PIECE_BYTES, min(_PIECE_BYTES, rate // 8))

    def keep(self, count: int, ended: threading.Event) -> None:
        """Blocks until so many more may go, or ``ended``."""
        while (seconds := self._seconds_before(count)) > 0.0:
            # The rate may be another one meanwhile.
            if ended.wait(min(seconds, _LONGEST_PAUSE_SECONDS)):
                return

    def _seconds_before(self, count: int) -> float:
        """0.0: they go."""
        with self._lock:
            rate, now = self._rate(), self._clock()
            if rate is None:
                self._ahead_bytes = 0.0
            else:
                # What went at a faster rate is not waited for at a slower one.
                ahead = self._ahead_bytes if rate == self._kept_rate else min(self._ahead_bytes, rate)
                self._ahead_bytes = max(0.0, ahead - (now - self._at) * rate)
            self._kept_rate, self._at = rate, now
            if rate is not None and self._ahead_bytes > _ROUNDING_BYTES:
                return self._ahead_bytes / rate
            self._ahead_bytes += count
            return 0.0


class PartsSource:
    """Serves between ``start`` and ``stop``. Sources are numbered from 1, as their folders are."""

    def __init__(self, sources: Sequence[Source], rate_bytes_per_second: Callable[[], int | None] = lambda: None) -> None:
        self._sources = dict(enumerate(sources, 1))
        self._secret = secrets.token_urlsafe(32)
        self._pace = Pace(rate_bytes_per_second)
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._wanted: frozenset[PartName] = frozenset()
        self._served_at: dict[PartName, float] = {}
        self._connections: set[socket.socket] = set()
        self.trouble: str | None = None
        """The code of why something that was asked for was not served: a source changed, or cannot be read."""

    @property
    def url(self) -> str:
        """For rclone alone. Ends in a slash."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{self._secret}/"

    def want(self, parts: frozenset[PartName]) -> None:
        """From now on these are listed and served, and no others."""
        self._wanted = parts

    def served_whole(self) -> dict[PartName, float]:
        """When the last byte of each was read, by the clock of ``time.monotonic``."""
        with self._lock:
            return dict(self._served_at)

    def digest(self, name: PartName) -> str:
        """The MD5 of a part: the kept one, or of the source read now. Raises SourceChanged, Failed, OSError."""
        source = self._sources[name.file]
        kept = source.digests.of(name.part)
        if kept is not None:
            return kept
        for _ in self._pieces(source, name.part, 0, source.file.length_bytes(name.part), is_whole=True):
            if self._ended.is_set():
                raise Failed("interrupted", "It was stopped.")
        return source.digests.of(name.part) or ""

    def start(self) -> None:
        """Returns when it can be asked."""
        self._server = _Server(("127.0.0.1", 0), functools.partial(_Handler, self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="stagecoach-parts", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ends every answer, and writes down the digests. Blocking. Raises OSError."""
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # the other end was faster
                    connection.shutdown(socket.SHUT_RDWR)
        for each in self._sources.values():
            each.digests.save()

    # --- what the handler's threads ask

    def listing(self, path: str) -> list[str] | None:
        """The names right below ``path``; None where no folder is."""
        inside = self._inside(path)
        wanted = sorted(self._wanted)
        if inside == "":
            return [f"{self.file(number).folder(number)}/" for number in sorted({name.file for name in wanted})]
        return [part_name(name.part) for name in wanted if f"{self.file(name.file).folder(name.file)}/" == inside] or None

    def part(self, path: str) -> PartName | None:
        """What a path names; None for anything that is not wanted."""
        found = _PART.fullmatch(self._inside(path) or "")
        name = PartName(int(found[1]), int(found[3])) if found is not None else None
        return name if found is not None and name in self._wanted and self.file(int(found[1])).version == found[2] else None

    def file(self, number: int) -> PartedFile:
        """One of the files."""
        return self._sources[number].file

    def pieces(self, name: PartName, begin: int, end: int) -> Iterator[memoryview]:
        """The bytes of a part from ``begin`` to ``end``. Raises SourceChanged, Failed, OSError."""
        source = self._sources[name.file]
        is_whole = (begin, end) == (0, source.file.length_bytes(name.part))
        try:
            for piece in self._pieces(source, name.part, begin, end, is_whole=is_whole):
                while piece:
                    # The rate may have become a slower one since it was read.
                    count = min(len(piece), self._pace.piece_bytes)
                    self._pace.keep(count, self._ended)
                    if self._ended.is_set():
                        return
                    yield piece[:count]
                    piece = piece[count:]
            if is_whole:
                with self._lock:
                    self._served_at[name] = time.monotonic()
        except SourceChanged:
            self.trouble = "source_changed"
            raise
        except Failed as failed:
            self.trouble = failed.code
            raise
        except OSError:
            self.trouble = "source_unreadable"
            raise

    def is_coming(self, connection: socket.socket) -> None:
        """A connection is open."""
        with self._lock:
            self._connections.add(connection)

    def is_gone(self, connection: socket.socket) -> None:
        """It is not any more."""
        with self._lock:
            self._connections.discard(connection)

    def _inside(self, path: str) -> str | None:
        parts = path.split("/", 2)
        is_path = len(parts) == 3 and parts[0] == ""
        return parts[2] if is_path and secrets.compare_digest(parts[1].encode(), self._secret.encode()) else None

    def _pieces(self, source: Source, part: int, begin: int, end: int, *, is_whole: bool) -> Iterator[memoryview]:
        file = source.open()
        _require_same(file, source)
        place, left = source.file.start_bytes(part) + begin, end - begin
        buffer = memoryview(bytearray(_PIECE_BYTES))
        md5 = hashlib.md5(usedforsecurity=False)
        while left:
            count = os.preadv(file.descriptor, [buffer[: min(left, self._pace.piece_bytes)]], place)
            if not count:
                raise SourceChanged
            place, left = place + count, left - count
            if is_whole:
                md5.update(buffer[:count])
            if not left:
                # Before the last piece goes: who has all of it has what was measured.
                _require_same(file, source)
                if is_whole:
                    source.digests.add(part, md5.hexdigest())
            yield buffer[:count]


def _require_same(file: Handle, source: Source) -> None:
    if identity_of(os.fstat(file.descriptor)) != source.identity:
        raise SourceChanged


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """rclone has hung up, or the source is gone: its job tells."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _SILENT_SECONDS

    def __init__(self, served: PartsSource, *arguments: Any) -> None:
        self.served = served
        super().__init__(*arguments)

    def setup(self) -> None:
        super().setup()
        self.served.is_coming(self.connection)

    def finish(self) -> None:
        self.served.is_gone(self.connection)
        super().finish()

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the path is a secret, and rclone's jobs tell what goes wrong."""

    def _answer(self, *, with_body: bool) -> None:
        if (names := self.served.listing(self.path)) is not None:
            page = "".join(f'<a href="{name}">{name}</a>\n' for name in names).encode()
            self._head(HTTPStatus.OK, len(page), {"Content-Type": "text/html"})
            if with_body:
                self.wfile.write(page)
            return
        found = self.served.part(self.path)
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        file = self.served.file(found.file)
        length = file.length_bytes(found.part)
        begin, end = self._range(length)
        if not begin < end:
            self._head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, {"Content-Range": f"bytes */{length}"})
            return
        headers = {
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
            "Last-Modified": formatdate(file.mtime_ns // 10**9, usegmt=True),
        }
        if (begin, end) == (0, length):
            self._head(HTTPStatus.OK, length, headers)
        else:
            self._head(HTTPStatus.PARTIAL_CONTENT, end - begin, {**headers, "Content-Range": f"bytes {begin}-{end - 1}/{length}"})
        if with_body:
            # Until the last byte is there an answer that breaks off is no part.
            self.close_connection = True
            for piece in self.served.pieces(found, begin, end):
                self.connection.sendall(piece)
                end -= len(piece)
            self.close_connection = begin != end

    def _head(self, status: HTTPStatus, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()

    def _range(self, length: int) -> tuple[int, int]:
        """From where to where; all of it where nothing else that is understood is asked for."""
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if asked is None:
            return 0, length
        last = int(asked[2]) + 1 if asked[2] else length
        return int(asked[1]), min(length, last)
