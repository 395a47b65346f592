"""The way out of a node's network: it reaches ports of this host's 127.0.0.1 at the same ports of its own 127.0.0.1.

``outbound.py NAMESPACE SOCKET PORT…``. So URLs that name 127.0.0.1 are good inside as well, while services outside
listen there and nowhere else, and nothing leads in. ``Settings`` can be changed while it runs (``control.py``).
"""

from __future__ import annotations

import fcntl
import os
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from deploy.testbed.control import Controls
from deploy.testbed.namespaces import network_of

LOOPBACK = "127.0.0.1"
PIPE_BYTES = 1 << 20
CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Settings:
    """Of all connections of the node together, each direction by itself."""

    open: bool = True  # closed, what is connected is cut and what comes is refused
    rate_mbit: float = 0  # 0: no bound

    def __post_init__(self) -> None:
        if not isinstance(self.open, bool):
            raise ValueError("open is true or false")
        if isinstance(self.rate_mbit, bool) or not isinstance(self.rate_mbit, (int, float)) or not self.rate_mbit >= 0:
            raise ValueError("rate_mbit is a number from 0 on")


class Pace:
    """When the next bytes may go, so that all together keep the rate."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_at = 0.0
        self.bytes = 0

    def seconds_to_wait(self, count: int, rate_mbit: float, now: float) -> float:
        with self._lock:
            self.bytes += count
            if not rate_mbit:
                return 0.0
            self._free_at = max(now, self._free_at) + count / (rate_mbit * 125_000)
            return self._free_at - now


class Outbound:
    """The connections of one node."""

    def __init__(self, socket_path: str) -> None:
        self._paces = {"sent": Pace(), "received": Pace()}
        self.controls = Controls(socket_path, Settings(), self._counts)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._accepted = 0

    def _counts(self) -> dict[str, int]:
        return {"connections": self._accepted, **{f"bytes_{name}": pace.bytes for name, pace in self._paces.items()}}

    def serve(self, doors: dict[socket.socket, int]) -> None:
        """For ever."""
        self.controls.serve(self._cut_if_closed)
        selector = selectors.DefaultSelector()
        for door, port in doors.items():
            selector.register(door, selectors.EVENT_READ, port)
        while True:
            for key, _ in selector.select():
                visitor, _ = key.fileobj.accept()  # type: ignore[union-attr]
                self._accepted += 1
                threading.Thread(target=self._connect, args=(visitor, key.data), daemon=True).start()

    def _connect(self, visitor: socket.socket, port: int) -> None:
        with self._followed(visitor):
            try:
                if not self.controls.settings.open:
                    raise ConnectionRefusedError("closed")
                outside = socket.create_connection((LOOPBACK, port), CONNECT_SECONDS)
            except OSError as error:
                print(f"port {port}: {error}", file=sys.stderr, flush=True)
                end_with_reset(visitor)
                return
            outside.settimeout(None)
            with self._followed(outside):
                back = threading.Thread(target=self._carry, args=(outside, visitor, self._paces["received"]), daemon=True)
                back.start()
                self._carry(visitor, outside, self._paces["sent"])
                back.join()

    @contextmanager
    def _followed(self, connection: socket.socket) -> Iterator[None]:
        """So that it can be cut."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)
                connection.close()

    def _cut_if_closed(self) -> None:
        with self._lock:
            for connection in () if self.controls.settings.open else self._open:
                cut(connection)

    def _carry(self, source: socket.socket, sink: socket.socket, pace: Pace) -> None:
        """One direction to its end, through a pipe, so that no byte comes into this program."""
        reading, writing = os.pipe()
        try:
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            while count := os.splice(source.fileno(), writing, bytes_at_once(self.controls.settings.rate_mbit)):
                time.sleep(pace.seconds_to_wait(count, self.controls.settings.rate_mbit, time.monotonic()))
                while count:
                    count -= os.splice(reading, sink.fileno(), count)
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # one side is gone: the other shall see it
            cut(source)
            cut(sink)
        finally:
            os.close(reading)
            os.close(writing)


def bytes_at_once(rate_mbit: float) -> int:
    """Of a twentieth of a second, so that a change of the rate is felt soon."""
    return min(PIPE_BYTES, max(4096, int(rate_mbit * 125_000 / 20))) if rate_mbit else PIPE_BYTES


def end_with_reset(connection: socket.socket) -> None:
    """When it is closed, the other side sees a reset and no orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def cut(connection: socket.socket) -> None:
    """Whoever waits on it is woken, and will close it."""
    with suppress(OSError):  # it ended by itself
        end_with_reset(connection)
        connection.shutdown(socket.SHUT_RDWR)


def main(namespace: str, socket_path: str, *ports: str) -> None:
    doors = {}
    with network_of(namespace):
        for port in ports:
            door = socket.create_server((LOOPBACK, int(port)), backlog=128)
            doors[door] = int(port)
    Outbound(socket_path).serve(doors)


if __name__ == "__main__":
    main(*sys.argv[1:])
