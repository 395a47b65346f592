"""Copies and comparisons that rclone carries out, each watched to its end: a file or directory of this node, to a receiver.

rclone tries hardly anything again by itself here, so that a dead receiver fails in bounded time; trying again is this
module's, with what has arrived already not sent again. Nothing that is raised or reported holds a key.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from stagecoach.agent.rclone_calls import (
    RECEIVER_BELIEVES_SECONDS,
    Destination,
    Limits,
    comparison,
    directory_copy,
    file_copy,
    settings_for,
)
from stagecoach.agent.rclone_progress import Progress, movement_of, progress_of
from stagecoach.agent.rclone_words import Trouble, meaning_of
from stagecoach.agent.source_survey import Survey, survey_source
from stagecoach.core.errors import CommandFailed, RcloneUnavailable

log = logging.getLogger(__name__)

_FIRST_REST_SECONDS = 1.0
_LONGEST_REST_SECONDS = 60.0
_STOP_SECONDS = 10.0
_STOP_LOOK_SECONDS = 0.1


class Rclone(Protocol):
    """The running rclone, as far as jobs ask it."""

    async def call(self, method: str, parameters: Mapping[str, object] | None = None) -> dict[str, Any]: ...
    def redacted(self, text: str) -> str: ...


@dataclass(frozen=True, slots=True)
class JobId:
    """One job of one run of rclone: another run counts from 1 again, so a number alone may be a stranger's."""

    number: int
    execute_id: str
    group: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a copy ended; ``trouble`` is there unless it is done. ``survey`` has the notices for people."""

    progress: Progress
    survey: Survey
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Paths below the source. ``equal`` also needs that as many files were compared as the source has."""

    equal: bool
    compared_files: int
    differing: tuple[str, ...]
    missing: tuple[str, ...]
    unread: tuple[str, ...]


_STOPPED = Trouble("stopped", "It was stopped.", retryable=False)


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
    ) -> None:
        self._rclone = rclone
        self._source = source
        self._destination = destination
        self._name = name
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
        survey = await asyncio.to_thread(survey_source, self._source)
        self.progress = Progress("running", 0, survey.size_bytes, 0, survey.files)
        trouble: Trouble | None = None
        for attempt in range(1, self._limits.attempts + 1):
            trouble = await self._attempt(attempt, survey, told)
            if trouble is None:
                self.progress = replace(
                    self.progress, state="done", bytes_done=survey.size_bytes, files_done=survey.files, current_file=None
                )
                break
            log.info("copy of %s, attempt %d: %s", self._source, attempt, trouble.message)
            if not trouble.retryable or attempt == self._limits.attempts:
                break
            rest = min(_LONGEST_REST_SECONDS, _FIRST_REST_SECONDS * 2 ** (attempt - 1)) * (0.5 + self._jitter() / 2)
            if await self._stopped_within(rest):
                trouble = _STOPPED
                break
        if trouble is not None:
            state = "stopped" if trouble is _STOPPED else "failed"
            self.progress = replace(self.progress, state=state, current_file=None)  # type: ignore[arg-type]
        told(self.progress)
        return Outcome(self.progress, survey, trouble)

    async def _attempt(self, attempt: int, survey: Survey, told: Callable[[Progress], None]) -> Trouble | None:
        if self._stop_asked.is_set():
            return _STOPPED
        config = settings_for(
            self._destination, self._limits, largest_bytes=survey.largest_bytes, one_file=self._name is not None
        )
        if self._name is None:
            method, parameters = directory_copy(self._source, self._destination, config)
        else:
            method, parameters = file_copy(self._source, self._destination, self._name, config)
        try:
            self.job = await _begin(self._rclone, method, parameters)
            return await self._watch(self.job, attempt, self._limits.patience_for(survey.largest_bytes), told)
        except RcloneUnavailable as failure:
            return Trouble(failure.code, failure.message, retryable=True)
        except CommandFailed as failure:
            return meaning_of(failure.message)
        except asyncio.CancelledError:
            if self.job is not None:
                await _abandon(self._rclone, self.job, self._clock)
            raise

    async def _watch(self, job: JobId, attempt: int, patience: float, told: Callable[[Progress], None]) -> Trouble | None:
        """Until it ends by itself or is ended: on request, after too many errors, or when nothing moves any more."""
        moved: tuple[int, ...] = ()
        moved_at = self._clock()
        while True:
            status = await _status(self._rclone, job)
            stats = await self._rclone.call("core/stats", {"group": job.group})
            self.progress = progress_of(stats, self.progress, attempt=attempt)
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
                trouble = _STOPPED
            if trouble is not None:
                await _end(self._rclone, job, self._clock)
                return trouble
            await self._stopped_within(self._limits.look_seconds)

    def _end_of(self, status: Mapping[str, Any]) -> Trouble | None:
        if status.get("success"):
            return None
        if self._stop_asked.is_set():
            return _STOPPED
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


class RcloneJobs:
    """Begins copies and comparisons on a running rclone."""

    def __init__(
        self, rclone: Rclone, *, clock: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = random.random
    ) -> None:
        self._rclone = rclone
        self._clock = clock
        self._jitter = jitter

    def copy_file(self, source: Path, destination: Destination, *, name: str | None = None, limits: Limits | None = None) -> Copy:
        """One file, to ``name`` (its own, if None) in the destination's folder."""
        return self._copy(source, destination, name or source.name, limits)

    def copy_directory(self, source: Path, destination: Destination, *, limits: Limits | None = None) -> Copy:
        """What is below ``source``, into the destination's folder; nothing there is removed."""
        return self._copy(source, destination, None, limits)

    async def compare(self, source: Path, destination: Destination, *, limits: Limits | None = None) -> Comparison:
        """Reads both ends again and compares digests: of a directory, or of one file with that of the same name.

        Raises RcloneUnavailable, and CommandFailed when either end cannot be read.
        """
        survey = await asyncio.to_thread(survey_source, source)
        config = settings_for(destination, limits or Limits(), largest_bytes=survey.largest_bytes, one_file=survey.one_file)
        place, name = (source.parent, source.name) if survey.one_file else (source, None)
        # What was written or changed just now it would not look at again.
        await asyncio.sleep(RECEIVER_BELIEVES_SECONDS * 1.1)
        method, parameters = comparison(place, destination, config, name=name)
        job = await _begin(self._rclone, method, parameters)
        try:
            status = await self._end_of(job, (limits or Limits()).look_seconds)
            stats = await self._rclone.call("core/stats", {"group": job.group})
        except asyncio.CancelledError:
            await _abandon(self._rclone, job, self._clock)
            raise
        await self._rclone.call("core/stats-delete", {"group": job.group})
        found = status.get("output") or {}
        if "hashType" not in found:
            raise CommandFailed(meaning_of(self._rclone.redacted(str(status.get("error")))).message)
        if found.get("hashType") in {None, "", "none"}:
            raise CommandFailed("The two ends know no common digest, so nothing was compared but sizes.")
        differing, missing, unread = (tuple(map(str, found.get(kind) or ())) for kind in ("differ", "missingOnDst", "error"))
        compared = int(stats.get("checks") or 0)
        return Comparison(not (differing or missing or unread) and compared == survey.files, compared, differing, missing, unread)

    async def set_total_rate(self, bytes_per_second: int | None) -> None:
        """Of all copies together, at once, also of those under way."""
        await self._rclone.call("core/bwlimit", {"rate": "off" if bytes_per_second is None else f"{bytes_per_second}B"})

    async def _end_of(self, job: JobId, look_seconds: float) -> dict[str, Any]:
        while True:
            status = await _status(self._rclone, job)
            if status.get("finished"):
                return status
            await asyncio.sleep(look_seconds)

    def _copy(self, source: Path, destination: Destination, name: str | None, limits: Limits | None) -> Copy:
        return Copy(
            self._rclone, source, destination, name=name, limits=limits or Limits(), clock=self._clock, jitter=self._jitter
        )


async def _begin(rclone: Rclone, method: str, parameters: Mapping[str, object]) -> JobId:
    # rclone keeps each remote with the settings of its first use, and those are no part of what it finds it by.
    await rclone.call("fscache/clear")
    group = f"stagecoach-{secrets.token_hex(8)}"
    answer = await rclone.call(method, {**parameters, "_async": True, "_group": group})
    return JobId(int(answer["jobid"]), str(answer["executeId"]), group)


async def _status(rclone: Rclone, job: JobId) -> dict[str, Any]:
    """Raises RcloneUnavailable when rclone was started again since and has forgotten it."""
    try:
        status = await rclone.call("job/status", {"jobid": job.number})
    except CommandFailed as failure:
        raise RcloneUnavailable(f"rclone has forgotten the job: {failure.message}") from failure
    if status.get("executeId") != job.execute_id:
        raise RcloneUnavailable("rclone was started again, and has forgotten the job.")
    return status


async def _end(rclone: Rclone, job: JobId, clock: Callable[[], float]) -> None:
    """Stops it and waits, but not for ever: one that waits for a dead receiver ends at its own timeouts."""
    await rclone.call("job/stop", {"jobid": job.number})
    deadline = clock() + _STOP_SECONDS
    while clock() < deadline:
        if (await _status(rclone, job)).get("finished"):
            await rclone.call("core/stats-delete", {"group": job.group})
            return
        await asyncio.sleep(_STOP_LOOK_SECONDS)
    log.warning("job %s of rclone does not end at once; it ends at its own timeouts", job.number)


async def _abandon(rclone: Rclone, job: JobId, clock: Callable[[], float]) -> None:
    """Stops it for somebody who was cancelled himself; an rclone that is gone has no jobs."""
    try:
        await asyncio.shield(_end(rclone, job, clock))
    except (RcloneUnavailable, CommandFailed) as failure:
        log.info("a cancelled job of rclone: %s", failure.message)
