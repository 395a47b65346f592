"""Has rclone send the parts of large files that are missing at the receiver, and compares each there.

What is sent again after a stop, a crash or a bad line is what has not arrived whole and right, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stagecoach.agent.parts_check import CHANGED, PartsCheck
from stagecoach.agent.parts_source import PartsSource
from stagecoach.agent.rclone_calls import RECEIVER_BELIEVES_SECONDS, Destination, Limits, parts_copy
from stagecoach.agent.rclone_copy import STOPPED, Copy
from stagecoach.agent.rclone_job import Rclone
from stagecoach.agent.rclone_progress import Progress, progress_of
from stagecoach.agent.rclone_words import Trouble
from stagecoach.agent.source_survey import Survey

log = logging.getLogger(__name__)

# What was written just now the receiver would not read again for its digest.
_SETTLING_SECONDS = RECEIVER_BELIEVES_SECONDS * 1.1
# So long after its last byte was read here a part is looked for: it has still to cross the way and to be stored.
_CROSSING_SECONDS = 3.0


class PartsCopy(Copy):
    """As any copy; its files are those of ``check``, which knows afterwards that nothing is missing."""

    def __init__(
        self,
        rclone: Rclone,
        served: PartsSource,
        check: PartsCheck,
        destination: Destination,
        *,
        limits: Limits,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        super().__init__(rclone, Path("parts"), destination, name=None, limits=limits, clock=clock, jitter=jitter)
        self._served = served
        self._check = check
        self._part_size_bytes = max((file.part_size_bytes for file in check.files), default=1)
        self._already_bytes = 0

    async def _surveyed(self) -> Survey:
        return Survey(len(self._check.files), self._check.size_bytes, self._part_size_bytes, (), one_file=False)

    def _kept(self) -> int:
        return self._check.arrived_bytes

    def _question(self, survey: Survey) -> tuple[str, dict[str, Any]]:
        return parts_copy(self._served.url, self._destination, self._limits, part_size_bytes=self._part_size_bytes)

    def _progress(self, stats: Mapping[str, Any], attempt: int) -> Progress:
        progress = progress_of(stats, self.progress, attempt=attempt, already_bytes=self._already_bytes)
        number = (progress.current_file or "").partition("-")[0]
        current = self._check.files[int(number) - 1].path if number.isdecimal() else None
        # rclone counts parts, not files.
        return replace(progress, files_done=self.progress.files_done, current_file=current)

    async def _attempt(self, attempt: int, survey: Survey, told: Callable[[Progress], None]) -> Trouble | None:
        trouble = await self._check.recall() or (await self._look() if self._check.has_begun else await self._check.say())
        if trouble is not None or not self._check.missing:
            return trouble
        self._already_bytes = self._check.arrived_bytes
        self.progress = replace(self.progress, bytes_done=max(self.progress.bytes_done, self._already_bytes))
        self._served.want(frozenset(self._check.missing))
        self._rclone.admit(self._served.url)
        meanwhile = asyncio.create_task(self._look_meanwhile())
        try:
            trouble = await super()._attempt(attempt, survey, told)
        finally:
            self._rclone.refuse(self._served.url)
            meanwhile.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await meanwhile
        if self._stop_asked.is_set():
            return STOPPED
        if self._served.trouble is not None:
            return replace(CHANGED, code=self._served.trouble)
        if trouble is not None:
            return trouble
        if await self._stopped_within(_SETTLING_SECONDS):
            return STOPPED
        trouble = await self._look()
        if trouble is None and self._check.missing:
            words = f"{len(self._check.missing)} parts at the receiver are not what was sent; they are sent again."
            return Trouble("verification_failed", words, retryable=True)
        return trouble

    async def _look(self) -> Trouble | None:
        trouble = await self._check.look(self._check.missing, self._stop_asked)
        return STOPPED if self._stop_asked.is_set() else trouble or await self._check.say()

    async def _look_meanwhile(self) -> None:
        """Compares what has arrived while the rest is under way."""
        looked_at: dict[object, float] = {}
        while not await self._stopped_within(1.0):
            now = self._clock()
            served = self._served.served_whole()
            due = [
                name
                for name in self._check.missing
                if name in served and now - max(served[name], looked_at.get(name, 0.0)) > _CROSSING_SECONDS
            ]
            looked_at.update(dict.fromkeys(due, now))
            trouble = await self._check.look(due, self._stop_asked) or await self._check.say() if due else None
            if trouble is not None:
                # The copy meets it too, or the look at its end does.
                log.info("parts cannot be compared now: %s", trouble.message)
                return
