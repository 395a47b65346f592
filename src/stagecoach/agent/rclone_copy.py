"""One copy that rclone carries out, watched to its end: a file or directory of this node, to a receiver.

rclone tries hardly anything again by itself here, so that a dead receiver fails in bounded time; trying again is this
module's, with what has arrived already not sent again. Nothing that is raised or reported holds a key.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stagecoach.agent.rclone_calls import Destination, Limits, directory_copy, file_copy, settings_for
from stagecoach.agent.rclone_job import JobId, Rclone, abandon, begin, end, status_of
from stagecoach.agent.rclone_progress import Progress, movement_of, progress_of
from stagecoach.agent.rclone_words import Trouble, meaning_of
from stagecoach.agent.source_survey import Survey, survey_source
from stagecoach.core.errors import CommandFailed, RcloneUnavailable

log = logging.getLogger(__name__)

_FIRST_REST_SECONDS = 1.0
_LONGEST_REST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a copy ended; ``trouble`` is there unless it is done. ``survey`` has the notices for people."""

    progress: Progress
    survey: Survey
    trouble: Trouble | None = None


STOPPED = Trouble("stopped", "It was stopped.", retryable=False)


class Copy:
    """One copy, to be run once. :meth:`stop` may be called at any time, from the same event loop."""

    def __init__(
        self,
        rclone: Rclone,
        source: Path,
        destination: Destination,
        *,
        name: str | None,
        limits: Limits,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        least_large_bytes: int | None = None,
    ) -> None:
        self._rclone = rclone
        self._source = source
        self._destination = destination
        self._name = name
        self._least_large_bytes = least_large_bytes
        self._limits = limits
        self._clock = clock
        self._jitter = jitter
        self._stop_asked = asyncio.Event()
        self.job: JobId | None = None
        self.progress = Progress("running", 0, 0, 0, 0)

    def stop(self) -> None:
        """Asks for its end; :meth:`run` returns when rclone has ended it, or after 10 s."""
        self._stop_asked.set()

    async def run(self, told: Callable[[Progress], None] = lambda progress: None) -> Outcome:
        """Until it is done, stopped, or has failed as often as it may. ``told`` hears of each look.

        Raises FileMissing or NotAFile for the source, PathRefused for one outside the node's directories.
        """
        survey = await self._surveyed()
        self.progress = Progress("running", 0, survey.size_bytes, 0, survey.files)
        trouble: Trouble | None = None
        most, in_vain = self._kept(), 0
        for attempt in itertools.count(1):
            trouble = await self._attempt(attempt, survey, told)
            if trouble is None:
                self.progress = replace(
                    self.progress, state="done", bytes_done=survey.size_bytes, files_done=survey.files, current_file=None
                )
                break
            log.info("copy of %s, attempt %d: %s", self._source, attempt, trouble.message)
            # One of days is interrupted more often than it may fail in a row.
            in_vain = 1 if self._kept() > most else in_vain + 1
            most = max(most, self._kept())
            if not trouble.retryable or in_vain >= self._limits.attempts:
                break
            rest = min(_LONGEST_REST_SECONDS, _FIRST_REST_SECONDS * 2 ** (in_vain - 1)) * (0.5 + self._jitter() / 2)
            if await self._stopped_within(rest):
                trouble = STOPPED
                break
        if trouble is not None:
            state = "stopped" if trouble is STOPPED else "failed"
            self.progress = replace(self.progress, state=state, current_file=None)  # type: ignore[arg-type]
        told(self.progress)
        return Outcome(self.progress, survey, trouble)

    def _kept(self) -> int:
        """Grows with what is at the other end for good."""
        return self.progress.files_done

    async def _attempt(self, attempt: int, survey: Survey, told: Callable[[Progress], None]) -> Trouble | None:
        if self._stop_asked.is_set():
            return STOPPED
        method, parameters = self._question(survey)
        try:
            self.job = await begin(self._rclone, method, parameters)
            return await self._watch(self.job, attempt, self._limits.patience_for(survey.largest_bytes), told)
        except RcloneUnavailable as failure:
            return Trouble(failure.code, failure.message, retryable=True)
        except CommandFailed as failure:
            return meaning_of(failure.message)
        except asyncio.CancelledError:
            if self.job is not None:
                await abandon(self._rclone, self.job, self._clock)
            raise

    async def _surveyed(self) -> Survey:
        survey = await asyncio.to_thread(survey_source, self._source, self._least_large_bytes)
        return survey.without_large()

    def _question(self, survey: Survey) -> tuple[str, dict[str, Any]]:
        """What rclone is asked in each attempt."""
        config = settings_for(
            self._destination, self._limits, largest_bytes=survey.largest_bytes, one_file=self._name is not None
        )
        if self._name is None:
            return directory_copy(self._source, self._destination, config, least_large_bytes=self._least_large_bytes)
        return file_copy(self._source, self._destination, self._name, config)

    def _progress(self, stats: Mapping[str, Any], attempt: int) -> Progress:
        return progress_of(stats, self.progress, attempt=attempt)

    async def _watch(self, job: JobId, attempt: int, patience: float, told: Callable[[Progress], None]) -> Trouble | None:
        """Until it ends by itself or is ended: on request, after too many errors, or when nothing moves any more."""
        moved: tuple[int, ...] = ()
        moved_at = self._clock()
        while True:
            status = await status_of(self._rclone, job)
            stats = await self._rclone.call("core/stats", {"group": job.group})
            self.progress = self._progress(stats, attempt)
            if status.get("finished"):
                await self._rclone.call("core/stats-delete", {"group": job.group})
                return self._end_of(status)
            told(self.progress)
            if movement_of(stats) != moved:
                moved, moved_at = movement_of(stats), self._clock()
            trouble = None
            if self.progress.errors >= self._limits.max_errors:
                trouble = self._too_many_errors(stats)
            elif self._clock() - moved_at > patience:
                trouble = Trouble(
                    "receiver_silent", f"Nothing moved for {patience:g} s: the receiver does not answer.", retryable=True
                )
            if self._stop_asked.is_set():
                trouble = STOPPED
            if trouble is not None:
                await end(self._rclone, job, self._clock)
                return trouble
            await self._stopped_within(self._limits.look_seconds)

    def _end_of(self, status: Mapping[str, Any]) -> Trouble | None:
        if status.get("success"):
            return None
        if self._stop_asked.is_set():
            return STOPPED
        return meaning_of(self._rclone.redacted(str(status.get("error") or "it failed without a word")))

    def _too_many_errors(self, stats: Mapping[str, Any]) -> Trouble:
        meaning = meaning_of(self._rclone.redacted(str(stats.get("lastError") or "many errors")))
        return replace(meaning, message=f"{self.progress.errors} errors. {meaning.message}")

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stop_asked.wait()
        except TimeoutError:
            return False
        return True
