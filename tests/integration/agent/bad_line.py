"""A line with the faults of a long or broken one, in this process: bytes between a local port and a server come late,
in a bounded window, no faster than a rate, or stand still now and then as behind a lost packet."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Faults:
    """``delay_seconds`` is one way. ``window_bytes`` may be under way one way at a time."""

    delay_seconds: float = 0.0
    window_bytes: int = 1 << 20
    bytes_per_second: float | None = None
    stall_chance: float = 0.0
    stall_seconds: float = 0.3


class BadLine:
    """Listens on ``port`` between entering and leaving."""

    def __init__(self, target_port: int, faults: Faults, *, seed: int = 1) -> None:
        self._target_port = target_port
        self._faults = faults
        self._random = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(HOST, self._target_port)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """A window's bytes, then the time that their acknowledgement needs."""
        try:
            while data := await source.read(self._faults.window_bytes):
                wait = self._faults.delay_seconds
                if self._faults.bytes_per_second is not None:
                    wait += len(data) / self._faults.bytes_per_second
                if self._random.random() < self._faults.stall_chance:
                    wait += self._faults.stall_seconds
                await asyncio.sleep(wait)
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # either end broke the connection: the other hears of it by the close below
        finally:
            with contextlib.suppress(OSError):
                sink.close()
