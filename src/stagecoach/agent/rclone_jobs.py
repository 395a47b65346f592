"""Begins copies on a running rclone, and compares: what was sent with what has arrived."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stagecoach.agent.parts_check import PartsCheck
from stagecoach.agent.parts_copy import PartsCopy
from stagecoach.agent.parts_source import PartsSource
from stagecoach.agent.rclone_calls import RECEIVER_BELIEVES_SECONDS, Destination, Limits, comparison, settings_for
from stagecoach.agent.rclone_copy import Copy
from stagecoach.agent.rclone_job import JobId, Rclone, abandon, begin, status_of
from stagecoach.agent.rclone_words import meaning_of
from stagecoach.agent.source_survey import survey_source
from stagecoach.core.errors import CommandFailed


@dataclass(frozen=True, slots=True)
class Comparison:
    """Paths below the source. ``equal`` also needs that as many files were compared as the source has."""

    equal: bool
    compared_files: int
    differing: tuple[str, ...]
    missing: tuple[str, ...]
    unread: tuple[str, ...]


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

    def copy_directory(
        self, source: Path, destination: Destination, *, limits: Limits | None = None, least_large_bytes: int | None = None
    ) -> Copy:
        """What is below ``source``, into the destination's folder; nothing there is removed. Files of ``least_large_bytes``
        and more are left out."""
        return self._copy(source, destination, None, limits, least_large_bytes)

    def copy_parts(
        self, served: PartsSource, check: PartsCheck, destination: Destination, *, limits: Limits | None = None
    ) -> PartsCopy:
        """What ``served`` serves, into the folder of the parts; it is compared by ``check``."""
        limits = limits or Limits()
        return PartsCopy(self._rclone, served, check, destination, limits=limits, clock=self._clock, jitter=self._jitter)

    async def compare(
        self, source: Path, destination: Destination, *, limits: Limits | None = None, least_large_bytes: int | None = None
    ) -> Comparison:
        """Reads both ends again and compares digests: of a directory, or of one file with that of the same name. Files of
        ``least_large_bytes`` and more are left out.

        Raises RcloneUnavailable, and CommandFailed when either end cannot be read.
        """
        survey = (await asyncio.to_thread(survey_source, source, least_large_bytes)).without_large()
        config = settings_for(destination, limits or Limits(), largest_bytes=survey.largest_bytes, one_file=survey.one_file)
        place, name = (source.parent, source.name) if survey.one_file else (source, None)
        # What was written or changed just now it would not look at again.
        await asyncio.sleep(RECEIVER_BELIEVES_SECONDS * 1.1)
        method, parameters = comparison(place, destination, config, name=name, least_large_bytes=least_large_bytes)
        job = await begin(self._rclone, method, parameters)
        try:
            status = await self._end_of(job, (limits or Limits()).look_seconds)
            stats = await self._rclone.call("core/stats", {"group": job.group})
        except asyncio.CancelledError:
            await abandon(self._rclone, job, self._clock)
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
            status = await status_of(self._rclone, job)
            if status.get("finished"):
                return status
            await asyncio.sleep(look_seconds)

    def _copy(
        self,
        source: Path,
        destination: Destination,
        name: str | None,
        limits: Limits | None,
        least_large_bytes: int | None = None,
    ) -> Copy:
        return Copy(
            self._rclone,
            source,
            destination,
            name=name,
            limits=limits or Limits(),
            clock=self._clock,
            jitter=self._jitter,
            least_large_bytes=least_large_bytes,
        )
