"""Holds a sender to what he may bring: looks at a transfer's folder and its disk while the folder is open.

The sender runs on a stranger's machine, so nothing that he says of his bytes is believed here: they are measured.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from stagecoach.agent.arrived_bytes import Arrived, arrived_in, lack_of_room
from stagecoach.agent.journal import Ending
from stagecoach.agent.stopping import Work
from stagecoach.agent.threads import in_thread

_log = logging.getLogger(__name__)

TOO_MUCH, FULL = "size_mismatch", "receiver_full"
LOOK_SECONDS = 2.0
# A folder of millions of files takes long to look at: no more of the time than one part in so many.
_REST_FACTOR = 20.0
_SLACK_BYTES = 256 * 2**20
_SLACK_PART = 64

T = TypeVar("T")


def allowed_bytes(max_bytes: int) -> int:
    """With the slack: for the probe of the way, and for what is begun anew before the old beginning is gone."""
    return max_bytes + _SLACK_BYTES + max_bytes // _SLACK_PART


class ArrivalWatch:
    """Of one open ``folder``. ``tell`` hears how much is in it; ``drop_unfinished`` has all beginnings removed.

    ``least_free_bytes`` as in ``lack_of_room``.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int | None,
        least_free_bytes: int | None,
        *,
        tell: Callable[[Arrived], None],
        drop_unfinished: Callable[[], Awaitable[None]],
        allowed: Callable[[int], int] = allowed_bytes,
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_bytes = max_bytes
        self._folder = folder
        self._least_free_bytes = least_free_bytes
        self._tell = tell
        self._drop_unfinished = drop_unfinished
        self._allowed = allowed
        self._look_seconds = look_seconds
        self._clock = clock
        self._has_dropped = False

    async def until_stopped(self, work: Work) -> Ending | None:
        """None when it was stopped; else why nothing more may come. Raises OSError for a disk that fails."""
        told: Arrived | None = None
        while True:
            began = self._clock()
            found = await _unless_stopped(work, self._look)
            if found is None:
                return None
            arrived, lack = found
            if lack is not None:
                return Ending(1, FULL, lack)
            if arrived != told:
                told = arrived
                self._tell(arrived)
            ending = await self._excess(arrived)
            if ending is not None:
                return ending
            if await work.stopped_within(max(self._look_seconds, (self._clock() - began) * _REST_FACTOR)):
                return None

    def _look(self) -> tuple[Arrived, str | None]:
        return arrived_in(self._folder), lack_of_room(self._folder.parent, self._least_free_bytes)

    async def _excess(self, arrived: Arrived) -> Ending | None:
        if self.max_bytes is None or arrived.size_bytes <= self._allowed(self.max_bytes):
            return None
        finished = arrived.size_bytes - arrived.unfinished_bytes
        if not self._has_dropped and finished <= self._allowed(self.max_bytes):
            # A sender that was killed leaves beginnings that nobody ends. Once: one that goes on making them means it.
            self._has_dropped = True
            _log.info("There is more in %s than may come, with what was begun and not ended: that is removed.", self._folder)
            await self._drop_unfinished()
            return None
        words = f"More has arrived than the {self.max_bytes} bytes that this transfer may bring; its key was closed."
        return Ending(1, TOO_MUCH, words)


async def _unless_stopped(work: Work, look: Callable[[], T]) -> T | None:
    """What it gives or raises; None when the command is stopped before."""
    looking = asyncio.ensure_future(in_thread(look, "stagecoach-arrivals"))
    stopped = asyncio.create_task(work.stop.wait())
    try:
        await asyncio.wait({looking, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return None if work.stop.is_set() else await looking
    finally:
        stopped.cancel()
        looking.cancel()
