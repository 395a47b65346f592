"""How long to wait before the next look at a transfer: short while something happens, longer while nothing does."""

from __future__ import annotations

from datetime import datetime

from stagecoach.core.transfer import Transfer

# A look after a tenth of the quiet time sees a change at most 10 % late.
QUIET_FRACTION = 0.1
MAX_ERROR_WAIT_SECONDS = 300.0


def next_look_seconds(transfer: Transfer, now: datetime, min_seconds: float, max_seconds: float) -> float:
    """Seconds until the next look when this one went well."""
    quiet = (now - transfer.changed_at).total_seconds()
    return min(max(quiet * QUIET_FRACTION, min_seconds), max_seconds)


def retry_seconds(failed_looks: int, min_seconds: float, jitter: float) -> float:
    """Seconds until the next look after ``failed_looks`` errors in a row; ``jitter`` is a random number in [0, 1)."""
    ceiling = min(MAX_ERROR_WAIT_SECONDS, min_seconds * 2.0 ** min(failed_looks, 20))
    return ceiling * (0.5 + jitter / 2)
