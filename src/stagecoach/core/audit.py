"""What an audit may call an orphan: pure judgements over what was seen outside and what the rows say.

A row always stands before anything is made for its transfer, and ``cleaned`` is set only when all of it is gone. So
a thing is an orphan when its transfer ended and was cleaned before the audit began, or when no row ever comes for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from stagecoach.core import names
from stagecoach.core.transfer import Direction, State, Transfer

# A request, or a look of the worker, may be under way for so long with a row that does not yet say what it has made.
UNDER_WAY_SECONDS = 300.0
OVERDUE_SECONDS = 900.0
UNCLEAN_SECONDS = 3600.0
CHECK_SECONDS = 3600.0


class Kind(StrEnum):
    """What was found. The first five are things outside that are removed; the others are about rows."""

    OBJECT = "object"
    MULTIPART = "multipart"
    JOB = "job"
    JOB_DIRECTORY = "job_directory"
    TEMPORARY_FILE = "temporary_file"
    BROKEN_TRANSFER = "broken_transfer"
    STUCK_TRANSFER = "stuck_transfer"
    NO_HISTORY = "no_history"
    MISSING_BUCKET = "missing_bucket"


@dataclass(frozen=True, slots=True)
class Thing:
    """Something outside that was made for a transfer, by its name."""

    kind: Kind
    place: str
    """The bucket, or the name of the system."""
    name: str
    """The object's key, the job's id, or the path."""
    transfer_id: str
    user: str | None = None
    made_at: datetime | None = None
    """None: not told; as old as the id, then."""
    upload_id: str = ""
    attempt: int = 1
    is_of_check: bool = False

    def age_seconds(self, now: datetime) -> float:
        """Since it was made or last changed."""
        if self.made_at is not None:
            return (now - self.made_at).total_seconds()
        return now.timestamp() - names.epoch_seconds_of(self.transfer_id)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of an audit. ``thing`` is what a repair removes; a finding about a row has none."""

    kind: Kind
    place: str
    name: str
    why: str
    fixable: bool
    transfer_id: str | None = None
    user: str | None = None
    age_seconds: float | None = None
    thing: Thing | None = None

    @property
    def identity(self) -> tuple[str, str | None, str, str]:
        """The same thing seen twice, through two systems that share a file system, is one finding."""
        upload = self.thing.upload_id if self.thing else ""
        return (self.kind.value, self.transfer_id, self.name, upload)


def is_over(row: Transfer) -> bool:
    """Whether nothing of it should be left outside."""
    return row.state.is_end and row.cleaned


def why_orphan(thing: Thing, row: Transfer | None, now: datetime, began_at: datetime, grace_seconds: float) -> str | None:
    """Why nothing needs ``thing`` any more; None while something may.

    ``row`` is read after the thing was seen, ``began_at`` is before it. ``row`` None: whether the thing is ours at
    all must have been proved by the caller.
    """
    age = thing.age_seconds(now)
    if age < grace_seconds:
        return None
    if thing.is_of_check:
        return "an interrupted 'stagecoach check' left it" if age >= CHECK_SECONDS else None
    if row is None:
        return "the database knows no such transfer"
    if row.created_at >= began_at:
        return None
    if not is_over(row):
        return _why_extra_job(thing, row, age)
    if (now - row.updated_at).total_seconds() < grace_seconds:
        return None
    if thing.kind in {Kind.OBJECT, Kind.MULTIPART} and row.next_check_at is not None:
        return None  # The worker will look at the store for it once more.
    return f"its transfer has ended ({row.state}) and was cleaned"


def _why_extra_job(thing: Thing, row: Transfer, age_seconds: float) -> str | None:
    if thing.kind is not Kind.JOB or row.job_id in {None, thing.name} or age_seconds < UNDER_WAY_SECONDS:
        return None
    if thing.attempt > row.attempt:
        return None  # Its submission may be under way still; a worker finds it by its name.
    return f"another job ({row.job_id}) carries the transfer"


def why_broken(row: Transfer, *, has_object: bool, has_multipart: bool) -> str | None:
    """What the store should hold for a transfer in its state, and does not."""
    if row.direction is Direction.WITHIN or (row.is_relay and row.state is State.RECEIVING):
        return None  # It has nothing there; of a relay its source leg is looked at.
    if row.state not in {State.RECEIVING, State.STAGED, State.QUEUED, State.MOVING} or has_object:
        return None
    grows = row.state is State.RECEIVING if row.direction is Direction.UPLOAD else row.state is not State.STAGED
    if not grows:
        return f"it is {row.state}, but its object is not in the store"
    if has_multipart:
        return None
    return f"it is {row.state}, but neither its multipart upload nor its object is in the store"


def why_stuck(row: Transfer, now: datetime, lease_seconds: float, job_lost_seconds: float) -> tuple[str, bool] | None:
    """Why the worker does not move a row that it should, and whether waking the row helps."""

    def passed(since: datetime | None) -> float:
        return (now - since).total_seconds() if since is not None else 0.0

    if row.lease_until is not None and row.lease_until > now + timedelta(seconds=10 * lease_seconds):
        return "a worker holds it until a time far ahead (was a clock wrong?)", True
    if row.next_check_at is None:
        if is_over(row) or passed(row.updated_at) < UNDER_WAY_SECONDS:
            return None
        return "no worker will ever look at it again", True
    if passed(row.next_check_at) > OVERDUE_SECONDS and (row.lease_until is None or passed(row.lease_until) > OVERDUE_SECONDS):
        return "it is long due and no worker takes it (does one run?)", False
    if row.state.is_end and not row.cleaned and passed(row.retry_until or row.changed_at) > UNCLEAN_SECONDS:
        return f"it ended long ago and cannot be cleaned up ({row.failed_looks} looks failed; see the worker's log)", False
    lost = 2 * job_lost_seconds + UNDER_WAY_SECONDS
    if row.state in {State.QUEUED, State.MOVING} and passed(row.job_missing_since) > lost:
        return f"its job {row.job_id or '(none)'} is long unknown to the scheduler", False
    return None
