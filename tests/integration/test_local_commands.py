"""A command on this machine, and whatever it starts, ends with the task that waits for it."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest

from stagecoach.clusters.local_commands import run_locally
from stagecoach.core.errors import OperationTooLong


def running(marker: str) -> list[int]:
    """Ids of processes that carry the marker among their words."""
    found = []
    for directory in Path("/proc").iterdir():
        with suppress(OSError):
            if directory.name.isdigit() and marker.encode() in (directory / "cmdline").read_bytes().split(b"\0"):
                found.append(int(directory.name))
    return found


async def nothing_runs(marker: str) -> None:
    async with asyncio.timeout(20):
        while running(marker):
            await asyncio.sleep(0.01)


def command(marker: str) -> list[str]:
    # The first process is not the one that works, and both hold the pipes.
    return ["timeout", "600", "sh", "-c", "while :; do sleep 600; done", marker]


# A task that is cancelled before its first turn starts nothing; later ones are within the start, or after it.
@pytest.mark.parametrize("turns", range(1, 12))
async def test_a_cancelled_command_leaves_no_process_at_whatever_turn(tmp_path: Path, turns: int) -> None:
    marker = f"{tmp_path}/{os.urandom(8).hex()}"
    task = asyncio.create_task(run_locally(command(marker), timeout_seconds=600))
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await nothing_runs(marker)


async def test_a_command_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    with pytest.raises(OperationTooLong, match=r"longer than 0\.2 s"):
        await run_locally(command(str(tmp_path)), timeout_seconds=0.2)
    await nothing_runs(str(tmp_path))
