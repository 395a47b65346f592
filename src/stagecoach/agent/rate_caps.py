"""Caps of copies that may change while these run.

rclone fixes the cap of a job when the job begins, so a copy that is capped otherwise is ended and begun again. What is
at the other end already is not sent again; the files that were under way begin anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from stagecoach.agent.rclone_copy import Copy, Outcome
from stagecoach.agent.rclone_progress import Progress


class RateCap:
    """Of one command. ``bytes_per_second`` None: as fast as it goes."""

    def __init__(self, bytes_per_second: int | None) -> None:
        self.bytes_per_second = bytes_per_second
        self.changed = asyncio.Event()

    def change(self, bytes_per_second: int | None) -> None:
        """For what runs, and all that is begun from now on."""
        if bytes_per_second != self.bytes_per_second:
            self.bytes_per_second = bytes_per_second
            self.changed.set()


class RateCaps:
    """Of the commands that send, by their ids."""

    def __init__(self) -> None:
        self._caps: dict[str, RateCap] = {}

    def of(self, command_id: str, asked: int | None) -> RateCap:
        """``asked`` with the command, as long as nothing else was said."""
        return self._caps.setdefault(command_id, RateCap(asked))

    def change(self, command_id: str, bytes_per_second: int | None) -> None:
        """Nothing where it does not send (any more, or yet): then it is told again."""
        if (cap := self._caps.get(command_id)) is not None:
            cap.change(bytes_per_second)

    def forget(self, command_id: str) -> None:
        """It has ended."""
        self._caps.pop(command_id, None)


class CappedCopy:
    """As a :class:`Copy`, which ``begin`` makes for a cap; another one for each change of it.

    ``keeps_files``: what has arrived of a copy that was ended counts on; of one file it does not.
    """

    def __init__(self, begin: Callable[[int | None], Copy], cap: RateCap, *, keeps_files: bool) -> None:
        self._begin = begin
        self._cap = cap
        self._keeps_files = keeps_files
        self._stop_asked = False
        self._copy: Copy | None = None

    def stop(self) -> None:
        """Of the whole; as that of a copy."""
        self._stop_asked = True
        if self._copy is not None:
            self._copy.stop()

    async def run(self, told: Callable[[Progress], None] = lambda progress: None) -> Outcome:
        """Until it ends in any other way than by a change of its cap. Raises as a copy does."""
        before: Progress | None = None
        while True:
            self._cap.changed.clear()
            copy = self._copy = self._begin(self._cap.bytes_per_second)
            if self._stop_asked:
                copy.stop()
            watching = asyncio.create_task(self._end_when_changed(copy))
            try:
                outcome = await copy.run(lambda progress, before=before: told(_after(before, progress)))  # type: ignore[misc]
            finally:
                watching.cancel()
            is_ended_by_us = outcome.trouble is not None and outcome.trouble.code == "stopped" and not self._stop_asked
            if not is_ended_by_us:
                return outcome
            before = _after(before, outcome.progress) if self._keeps_files else None

    async def _end_when_changed(self, copy: Copy) -> None:
        await self._cap.changed.wait()
        copy.stop()


def _after(before: Progress | None, now: Progress) -> Progress:
    """With what came before: each copy counts what it sends itself."""
    if before is None or now.state == "done":
        return now
    return replace(
        now,
        bytes_done=min(now.bytes_total, before.bytes_done + now.bytes_done),
        # What is there already is counted again as it is looked at.
        files_done=max(before.files_done, now.files_done),
        errors=before.errors + now.errors,
    )
