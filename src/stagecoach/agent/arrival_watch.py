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
# What the sender measures comes by way of the service, so the bound may grow just after more was found than it was.
CERTAIN_SECONDS = 6.0
# A service that says nothing for so long has said its last word.
UNHEARD_SECONDS = 60.0
_SHORT_SCAN_SECONDS = 0.2
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
        certain_seconds: float = CERTAIN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_bytes = max_bytes
        self._folder = folder
        self._least_free_bytes = least_free_bytes
        self._tell = tell
        self._drop_unfinished = drop_unfinished
        self._allowed = allowed
        self._look_seconds = look_seconds
        self._certain_seconds = certain_seconds
        self._clock = clock
        self._has_dropped = False
        self._answers = 0
        self._found_more: tuple[float, int] | None = None
        self._told: Arrived | None = None

    def allow(self, max_bytes: int | None) -> None:
        """What the service says now of how much may arrive; None: it is not bounded."""
        self._max_bytes = max_bytes
        self._answers += 1

    async def until_stopped(self, work: Work) -> Ending | None:
        """None when it was stopped; else why nothing more may come. Raises OSError for a disk that fails."""
        scanning: asyncio.Future[Arrived] | None = None
        began = due = self._clock()
        try:
            while True:
                found = await _unless_stopped(work, lambda: (lack_of_room(self._folder.parent, self._least_free_bytes),))
                if found is None:
                    return None
                if found[0] is not None:
                    return Ending(1, FULL, found[0])
                if scanning is None and self._clock() >= due:
                    began = self._clock()
                    scanning = asyncio.ensure_future(in_thread(lambda: arrived_in(self._folder), "stagecoach-arrivals"))
                    await asyncio.wait({scanning}, timeout=_SHORT_SCAN_SECONDS)
                if scanning is not None and scanning.done():
                    arrived, scanning = scanning.result(), None
                    due = self._clock() + max(self._look_seconds, (self._clock() - began) * _REST_FACTOR)
                    ending = await self._judged(arrived)
                    if ending is not None:
                        return ending
                if await work.stopped_within(self._look_seconds):
                    return None
        finally:
            if scanning is not None:
                scanning.cancel()

    async def _judged(self, arrived: Arrived) -> Ending | None:
        most = self._max_bytes
        is_more = most is not None and arrived.size_bytes > self._allowed(most)
        if arrived != self._told or is_more:
            self._told = arrived
            self._tell(arrived)
        if most is None or not is_more:
            self._found_more = None
            return None
        now = self._clock()
        since, answers = self._found_more = self._found_more or (now, self._answers)
        is_certain = now - since >= (self._certain_seconds if self._answers > answers else UNHEARD_SECONDS)
        if not is_certain:
            return None
        if not self._has_dropped and arrived.size_bytes - arrived.unfinished_bytes <= self._allowed(most):
            # A sender that was killed leaves beginnings that nobody ends. Once: one that goes on making them means it.
            self._has_dropped = True
            self._found_more = None
            _log.info("There is more in %s than may come, with what was begun and not ended: that is removed.", self._folder)
            await self._drop_unfinished()
            return None
        words = f"More has arrived than the {most} bytes that this transfer may bring; its key was closed."
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
