"""The agent's rclone, started when it is wanted for the first time, and again when it has given up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from stagecoach.agent.rclone_jobs import RcloneJobs
from stagecoach.agent.rclone_process import RcloneProcess


class RcloneAtHand:
    """To be used on the agent's main thread, whose end is rclone's."""

    def __init__(self, directory: Path, *, roots: Sequence[Path]) -> None:
        self._directory = directory
        self._roots = tuple(roots)
        self._process: RcloneProcess | None = None
        self._one_at_a_time = asyncio.Lock()

    async def jobs(self) -> RcloneJobs:
        """Raises SettingsError without a usable rclone, RcloneUnavailable when it does not start."""
        async with self._one_at_a_time:
            if self._process is not None and self._process.has_given_up:
                await self._process.stop()
                self._process = None
            if self._process is None:
                process = RcloneProcess(self._directory, roots=self._roots)
                await process.start()
                self._process = process
            return RcloneJobs(self._process)

    @property
    def pid(self) -> int | None:
        """Of rclone, while it runs."""
        return self._process.pid if self._process is not None else None

    async def stop(self) -> None:
        """Ends it with its jobs. May be called twice."""
        if self._process is not None:
            await self._process.stop()
