"""A transfer, the states it may be in and what may follow what.

    upload    preparing → receiving → staged → queued → moving → done
    download  preparing → queued → moving → staged → done
    any of them → failed (with a code), cancelling → cancelled, or expired

``cancelling`` is a promise: whatever stops this service in the middle, the worker carries the cancellation out. The
four ends have ``cleaned`` beside them: true once nothing of the transfer is left outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from stagecoach.core.errors import Conflict
from stagecoach.core.parts import PartPlan


class Direction(StrEnum):
    """Which way the bytes go."""

    UPLOAD = "upload"
    DOWNLOAD = "download"


class State(StrEnum):
    """Where a transfer is on its road."""

    PREPARING = "preparing"
    RECEIVING = "receiving"
    STAGED = "staged"
    QUEUED = "queued"
    MOVING = "moving"
    DONE = "done"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_end(self) -> bool:
        """Nothing follows."""
        return self in ENDS


class WaitPolicy(StrEnum):
    """Who waits while a client uploads: the scheduler holds the job, or the job waits in its allocation."""

    HELD = "held"
    IN_JOB = "in_job"


ENDS = frozenset({State.DONE, State.FAILED, State.CANCELLED, State.EXPIRED})

MEANING: Mapping[State, str] = {
    State.PREPARING: "The staging area and the job are being made.",
    State.RECEIVING: "Waiting for the client to put all parts and complete the upload.",
    State.STAGED: "The whole object is in the staging area.",
    State.QUEUED: "The staging job waits for the scheduler to start it.",
    State.MOVING: "The staging job is moving the data.",
    State.DONE: "Everything arrived and was verified.",
    State.FAILED: "It ended without success; the reason says why and what to do.",
    State.CANCELLING: "It is being cancelled: the job and the staged data are going away.",
    State.CANCELLED: "It was cancelled and nothing is left of it.",
    State.EXPIRED: "It was not used in time, and its staged data has been removed.",
}

FOLLOWS: Mapping[Direction, Mapping[State, frozenset[State]]] = {
    Direction.UPLOAD: {
        State.PREPARING: frozenset({State.RECEIVING, State.FAILED, State.CANCELLING}),
        State.RECEIVING: frozenset({State.STAGED, State.FAILED, State.CANCELLING, State.EXPIRED}),
        State.STAGED: frozenset({State.QUEUED, State.FAILED, State.CANCELLING, State.EXPIRED}),
        State.QUEUED: frozenset({State.MOVING, State.DONE, State.FAILED, State.CANCELLING, State.EXPIRED}),
        State.MOVING: frozenset({State.QUEUED, State.DONE, State.FAILED, State.CANCELLING}),
        State.CANCELLING: frozenset({State.CANCELLED, State.DONE}),
    },
    Direction.DOWNLOAD: {
        State.PREPARING: frozenset({State.QUEUED, State.FAILED, State.CANCELLING}),
        State.QUEUED: frozenset({State.MOVING, State.STAGED, State.FAILED, State.CANCELLING, State.EXPIRED}),
        State.MOVING: frozenset({State.QUEUED, State.STAGED, State.FAILED, State.CANCELLING}),
        State.STAGED: frozenset({State.DONE, State.FAILED, State.CANCELLING, State.EXPIRED}),
        State.CANCELLING: frozenset({State.CANCELLED}),
    },
}


@dataclass(frozen=True, slots=True)
class Transfer:
    """One row of the memory. Sizes in bytes, times UTC; ``version`` grows by one with each save."""

    id: str
    owner: str
    system: str
    direction: Direction
    path: str
    """The path as asked for, plain and absolute."""
    real_path: str
    """The same after symlinks were resolved on the system: what the mover opens."""
    size_bytes: int
    part_size_bytes: int
    part_count: int
    bucket: str
    job_name: str
    created_at: datetime
    updated_at: datetime
    changed_at: datetime
    """When state or byte counts last changed: what polling adapts to."""
    state: State = State.PREPARING
    version: int = 1
    wait: WaitPolicy = WaitPolicy.HELD
    account: str | None = None
    upload_id: str | None = None
    job_directory: str | None = None
    submission_tried: bool = False
    """A submission was begun, so a job of this name may exist even where ``job_id`` is None."""
    job_id: str | None = None
    job_state: str | None = None
    job_reason: str | None = None
    job_exit_code: int | None = None
    job_log: str | None = None
    job_missing_since: datetime | None = None
    object_etag: str | None = None
    bytes_staged: int = 0
    bytes_moved: int = 0
    rate_bytes_per_second: float = 0.0
    digests: Mapping[str, str] = field(default_factory=dict)
    """What the client said of the whole file: ``sha256``, ``md5``."""
    proved: tuple[Mapping[str, str], ...] = ()
    code: str | None = None
    reason: str | None = None
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    cleaned: bool = False
    failed_looks: int = 0
    """Looks in a row that ended in an error outside; the next one waits longer."""
    next_check_at: datetime | None = None
    lease_owner: str | None = None
    lease_until: datetime | None = None

    @property
    def plan(self) -> PartPlan:
        """How the file is cut."""
        return PartPlan(self.size_bytes, self.part_size_bytes, self.part_count)


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One line of a transfer's story."""

    at: datetime
    state: State
    message: str


@dataclass(frozen=True, slots=True)
class TransferFilter:
    """Which transfers to list; None does not filter. ``before_id`` continues a listing (newest first)."""

    owner: str | None = None
    system: str | None = None
    direction: Direction | None = None
    states: tuple[State, ...] = ()
    before_id: str | None = None
    limit: int = 50


def advance(transfer: Transfer, to: State, now: datetime, *, code: str | None = None, reason: str | None = None) -> Transfer:
    """``transfer`` in its next state.

    Raises:
        Conflict: the state table has no such step.
    """
    if to not in FOLLOWS[transfer.direction].get(transfer.state, frozenset()):
        raise Conflict(f"The transfer is {transfer.state}; it cannot become {to}.", data={"state": transfer.state.value})
    return replace(
        transfer,
        state=to,
        code=code,
        reason=reason,
        changed_at=now,
        updated_at=now,
        ended_at=now if to.is_end else None,
        failed_looks=0,
        job_missing_since=None,
    )
