"""Child processes that a killed agent finds again, and how they are ended. Linux: what runs is read in ``/proc``."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from stagecoach.agent.journal import ProcessMark

GRACE_SECONDS = 20.0
KILLED_SECONDS = 5.0
LOOK_SECONDS = 0.05
_PROC = Path("/proc")


def mark_of(pid: int) -> ProcessMark | None:
    """None for a process that is gone, or that waits to be buried."""
    try:
        # The name in parentheses may hold anything, spaces and parentheses as well.
        fields = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {"Z", "X"} else ProcessMark(pid, f"{boot}/{fields[19]}")


def is_alive(mark: ProcessMark) -> bool:
    """Whether it is still that process."""
    return mark_of(mark.pid) == mark


def signal_group(pid: int, number: signal.Signals) -> None:
    """To the process and all that it started; nothing where it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


async def end_orphan(mark: ProcessMark, sleep: Callable[[float], Awaitable[None]]) -> bool:
    """Ends what an earlier agent started, if it still runs; False when it does not go."""
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, KILLED_SECONDS)):
        if not is_alive(mark):
            return True
        signal_group(mark.pid, number)
        for _ in range(int(seconds / LOOK_SECONDS)):
            if not is_alive(mark):
                return True
            await sleep(LOOK_SECONDS)
    return not is_alive(mark)
