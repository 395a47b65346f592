"""How long to wait before the next look at a transfer, and before a scheduler is asked again: short while something happens."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from stagecoach.core.transfer import State

# A look after a tenth of the quiet time sees a change at most 10 % late.
QUIET_FRACTION = 0.1
MAX_ERROR_WAIT_SECONDS = 300.0
# A job that waited for hours may run for seconds, and one question is for all jobs: nobody gains by asking less often.
MAX_JOB_WAIT_SECONDS = 30.0
ASK_WINDOW_SECONDS = 60.0
FIRST_ASK_GAP_SECONDS = 0.5
# Where one ask a minute is allowed.
LONGEST_GAP_SECONDS = 2.5 * ASK_WINDOW_SECONDS
QUESTIONS_AN_ASK = 3
"""The most that one ask may put to the scheduler: the queue, accounting, and once more where something is missing."""


class Changing(Protocol):
    """A transfer, as far as polling looks at it."""

    @property
    def state(self) -> State: ...
    @property
    def changed_at(self) -> datetime: ...


def next_look_seconds(transfer: Changing, now: datetime, min_seconds: float, max_seconds: float) -> float:
    """Seconds until the next look when this one went well."""
    quiet = (now - transfer.changed_at).total_seconds()
    longest = min(max_seconds, MAX_JOB_WAIT_SECONDS) if transfer.state in {State.QUEUED, State.MOVING} else max_seconds
    return min(max(quiet * QUIET_FRACTION, min_seconds), longest)


def retry_seconds(failed_looks: int, min_seconds: float, jitter: float) -> float:
    """Seconds until the next look after ``failed_looks`` errors in a row; ``jitter`` is a random number in [0, 1)."""
    ceiling = min(MAX_ERROR_WAIT_SECONDS, min_seconds * 2.0 ** min(failed_looks, 20))
    return ceiling * (0.5 + jitter / 2)


def recent_questions(asked: Sequence[float], now: float) -> list[float]:
    """Those of the epoch seconds ``asked`` that still count at ``now``, in order."""
    return sorted(moment for moment in asked if now - ASK_WINDOW_SECONDS < moment <= now + ASK_WINDOW_SECONDS)


def next_ask_at(asked: Sequence[float], now: float, questions_per_minute: int) -> float:
    """The epoch second from which a system's scheduler may be asked again.

    ``asked``: when each question of the last minute was put. At first half a second lies between two asks, so that the end
    of a single small transfer is seen at once; with each question the gap grows, and there is always room for a whole
    ask: no 60 seconds ever see more than ``questions_per_minute`` (at least ``QUESTIONS_AN_ASK``).
    """
    recent = recent_questions(asked, now)
    room = questions_per_minute - QUESTIONS_AN_ASK + 1
    # Two fifths of the room are for quick asks; over two more the gap grows to one that makes the rest last a minute.
    used = min(max(len(recent) / room - 0.4, 0.0) / 0.4, 1.0)
    by_pace = now + max(LONGEST_GAP_SECONDS / room * used * used, FIRST_ASK_GAP_SECONDS)
    by_room = recent[-room] + ASK_WINDOW_SECONDS if len(recent) >= room else now
    return max(by_pace, by_room)
