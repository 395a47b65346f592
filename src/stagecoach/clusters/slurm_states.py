"""What Slurm's words for a job's state and exit mean to us. Pure tables, for text and JSON of every version."""

from __future__ import annotations

import re
from collections.abc import Iterable

from stagecoach.ports.scheduler import JobPhase

# Flags that Slurm puts beside (JSON) or instead of (text) a state. They are asked first, in this order: a job that is
# CANCELLED *and* COMPLETING still has processes on a node, so nothing it wrote to may be touched yet.
_FLAGS: tuple[tuple[str, JobPhase], ...] = (
    ("COMPLETING", JobPhase.RUNNING),
    ("STAGE_OUT", JobPhase.RUNNING),
    ("REQUEUE_HOLD", JobPhase.HELD),
    ("SPECIAL_EXIT", JobPhase.HELD),
    ("RESV_DEL_HOLD", JobPhase.HELD),
    ("REQUEUED", JobPhase.PENDING),
    ("REQUEUE_FED", JobPhase.PENDING),
    ("REVOKED", JobPhase.CANCELLED),
    # The allocation exists but its nodes are still booting: the script has not begun.
    ("CONFIGURING", JobPhase.PENDING),
    ("POWER_UP_NODE", JobPhase.PENDING),
)
_STATES: dict[str, JobPhase] = {
    "PENDING": JobPhase.PENDING,
    "RUNNING": JobPhase.RUNNING,
    "SUSPENDED": JobPhase.RUNNING,
    "COMPLETED": JobPhase.COMPLETED,
    "CANCELLED": JobPhase.CANCELLED,
    "FAILED": JobPhase.FAILED,
    "TIMEOUT": JobPhase.TIMEOUT,
    "NODE_FAIL": JobPhase.NODE_FAIL,
    "PREEMPTED": JobPhase.PREEMPTED,
    "BOOT_FAIL": JobPhase.NODE_FAIL,
    "DEADLINE": JobPhase.TIMEOUT,
    "OUT_OF_MEMORY": JobPhase.OUT_OF_MEMORY,
    "RESIZING": JobPhase.RUNNING,
    "SIGNALING": JobPhase.RUNNING,
    "STOPPED": JobPhase.RUNNING,
    "LAUNCH_FAILED": JobPhase.FAILED,
    "RECONFIG_FAIL": JobPhase.FAILED,
}
_HELD_REASONS = frozenset({"JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue"})


def phase_of(states: Iterable[str], reason: str) -> JobPhase:
    """The phase for Slurm's state words (``["CANCELLED", "COMPLETING"]``, ``["CANCELLED by 1001"]``) and reason.

    A word that is not known is never an end: it counts as running until a known word comes.
    """
    words = {state.strip().upper().partition(" ")[0].rstrip("+") for state in states}
    for flag, phase in _FLAGS:
        if flag in words:
            return phase
    known = [_STATES[word] for word in words if word in _STATES]
    # RESIZING and the like accompany RUNNING; of several words the one that is not an end counts.
    phase = min(known, key=lambda each: each.is_final, default=JobPhase.RUNNING)
    if phase is JobPhase.PENDING and (reason in _HELD_REASONS or "requeued held" in reason.replace("_", " ").lower()):
        return JobPhase.HELD
    return phase


def exit_of_wait_status(status: int) -> tuple[int | None, int | None]:
    """(exit code, signal) of a raw wait status, as squeue prints it: 1792 is exit 7, 15 is SIGTERM."""
    signal = status & 0x7F
    return (None, signal) if signal else (status >> 8, None)


def exit_of_pair(text: str) -> tuple[int | None, int | None]:
    """(exit code, signal) of ``code:signal`` as sacct and scontrol print it; empty text is neither."""
    found = re.fullmatch(r"(\d+):(\d+)", text.strip())
    if not found:
        return None, None
    code, signal = int(found[1]), int(found[2])
    return (code or None, signal) if signal else (code, None)


def exit_that_counts(phase: JobPhase, code: int | None, signal: int | None) -> tuple[int | None, int | None]:
    """What of an exit may be believed: none before the end, and no 0 for a job that did not complete.

    A running job already shows SUCCESS, a cancelled or timed out one exit code 0.
    """
    if not phase.is_final:
        return None, None
    return (None if code == 0 and phase is not JobPhase.COMPLETED else code), signal
