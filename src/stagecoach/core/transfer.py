"""A transfer and the states it may be in; ``state_machine`` says what may follow what.

``cancelling`` is a promise: whatever stops this service in the middle, the worker carries the cancellation out. The
four ends have ``cleaned`` beside them: true once nothing of the transfer is left outside.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from stagecoach.core import names
from stagecoach.core.nodes import node_id_of
from stagecoach.core.operations import Operation, OperationOptions
from stagecoach.core.parts import PartPlan, fit_parts


class Direction(StrEnum):
    """Which way the bytes go."""

    UPLOAD = "upload"
    DOWNLOAD = "download"
    WITHIN = "within"
    """Nowhere: a job works on files that stay on the system. Nothing is staged, so there is no bucket and there are no parts."""


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


class Road(StrEnum):
    """How the bytes of a transfer go."""

    STAGED = "staged"
    """Through the staging area."""
    DIRECT = "direct"
    """From one node to another, with nothing in between."""


class Archive(StrEnum):
    """As what a whole directory travels."""

    TAR = "tar"


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
    size_bytes: int | None
    """Of the staged object. None until the job has measured the directory that it sends."""
    part_size_bytes: int
    part_count: int
    """Both say how the object is cut, or, where the job measures, the smallest parts and the most of them that it may
    choose; ``plan`` says what became of that."""
    bucket: str
    job_name: str
    created_at: datetime
    updated_at: datetime
    changed_at: datetime
    """When state or byte counts last changed: what polling adapts to."""
    state: State = State.PREPARING
    version: int = 1
    wait: WaitPolicy = WaitPolicy.HELD
    archive: Archive | None = None
    """Set: the path names a directory, and the object is its archive."""
    account: str | None = None
    upload_id: str | None = None
    job_directory: str | None = None
    submission_tried: bool = False
    """A submission was begun, so a job of this name may exist even where ``job_id`` is None."""
    job_id: str | None = None
    first_job_id: str | None = None
    """Of the job that the answer to the request named, once another has taken over."""
    job_state: str | None = None
    job_reason: str | None = None
    job_exit_code: int | None = None
    job_ended: bool = False
    """Whether the scheduler's last report of this job was of its end."""
    job_log: str | None = None
    job_missing_since: datetime | None = None
    object_etag: str | None = None
    bytes_staged: int = 0
    bytes_moved: int = 0
    rate_bytes_per_second: float = 0.0
    digests: Mapping[str, str] = field(default_factory=dict)
    """What the client said of the whole file: ``sha256``, ``crc32``, ``md5``."""
    part_digests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What the client said of each part, in order, by algorithm: ``md5``, ``crc32``, ``sha256``."""
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
    attempt: int = 1
    """Which staging job this is; each has a name of its own."""
    resubmissions: int = 0
    """How often the worker itself has submitted another job since the last attempt that its owner asked for."""
    bytes_at_submission: int = 0
    """``bytes_moved`` when this job was submitted: whether it got any further."""
    restarts: int = 0
    """How often the scheduler has put this job back into its queue."""
    signed_at: datetime | None = None
    """When the ticket was signed: its URLs live from then."""
    retry_until: datetime | None = None
    """``failed``: what is staged, and the job's journal, are kept until then."""
    idempotency_key: str | None = None
    request_digest: str | None = None
    """Of the request that made it: the same key with another request is a mistake."""
    webhook_url: str | None = None
    operation: Operation | None = None
    """What is done ``within`` the system; ``path`` is then its target, or what is removed."""
    source_path: str | None = None
    real_source_path: str | None = None
    """Of an operation that has one, as ``path`` and ``real_path``. Of a relay the former alone: the latter is its leg's."""
    operation_options: OperationOptions | None = None
    file_count: int | None = None
    """Files, directories and links that the operation's job has found to work on; None until it has."""
    files_moved: int = 0
    source_transfer_id: str | None = None
    """Of a relay: its source leg, the download whose staged object this upload brings to its place."""
    source_system: str | None = None
    """Of a relay: the system of its source leg; ``source_path`` is then the path there."""
    relay_of: str | None = None
    """Of a source leg: the relay that it belongs to, which is what people see."""
    road: Road = Road.STAGED
    """Of a relay and its leg alike; either has its own job on it (``flows/direct_road.py``)."""
    wanted_road: Road | None = None
    """What its owner insists on; None: whichever is open. Of a relay between nodes and its leg."""
    road_reason: str | None = None
    """Why it is not direct, in a sentence, where both ends are nodes."""
    rate_limit_bytes_per_second: int | None = None
    """Of the direct road."""
    current_file: str | None = None
    """What is being sent on it."""
    notices: tuple[str, ...] = ()
    """What its owner should know of what was sent on it, and of how that went."""
    stall_noticed_at: datetime | None = None
    slow_since: datetime | None = None

    @property
    def is_direct(self) -> bool:
        """Whether nothing of it is in the staging area."""
        return self.road is Road.DIRECT

    @property
    def is_relay(self) -> bool:
        """Whether a source leg, and no client, puts what this upload brings to its place."""
        return self.source_transfer_id is not None

    @property
    def object_key(self) -> str:
        """Of the staging object, which a relay shares with its source leg."""
        return names.object_key(self.source_transfer_id or self.id)

    @property
    def is_measured_by_job(self) -> bool:
        """Whether only the staging job can tell how large it is."""
        is_seen_by_job_alone = self.archive is not None or self.is_on_node
        return self.operation is not None or (is_seen_by_job_alone and self.direction is Direction.DOWNLOAD)

    @property
    def is_on_node(self) -> bool:
        """Whether its end is a data transfer node, where its job is a command and this service sees no file."""
        return node_id_of(self.system) is not None

    @property
    def hidden_path(self) -> str | None:
        """What the job makes until it is whole and takes its place; None where it makes nothing on the system."""
        if self.direction is Direction.DOWNLOAD or self.operation is Operation.REMOVE:
            return None
        return hidden_path(self.id, self.real_path, self.operation_options)

    @property
    def plan(self) -> PartPlan:
        """How the object is cut. Raises ValueError while its size is not known."""
        if self.size_bytes is None or self.operation is not None or self.is_direct:
            raise ValueError(f"transfer {self.id} has not been measured yet, or has no parts")
        if self.is_measured_by_job:
            return fit_parts(self.size_bytes, self.part_size_bytes, self.part_count)
        return PartPlan(self.size_bytes, self.part_size_bytes, self.part_count)

    @property
    def job_is_on_its_way_out(self) -> bool:
        """Whether the job's work is done and proved, and the scheduler has not told its end yet."""
        has_arrived = self.state is State.DONE or (self.state is State.STAGED and self.direction is Direction.DOWNLOAD)
        return has_arrived and self.job_id is not None and not self.job_ended and not self.cleaned

    @property
    def what(self) -> str:
        """What is moved, in a word for people."""
        return "file" if self.archive is None else "directory"


def hidden_path(transfer_id: str, real_path: str, options: OperationOptions | None) -> str:
    """Beside its target, or in it where it is to be added to what stands there."""
    merges = options is not None and options.merges
    return posixpath.join(real_path if merges else posixpath.dirname(real_path), names.temporary_name(transfer_id))


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One line of a transfer's story."""

    at: datetime
    state: State
    message: str
    number: int = 0
    """Grows from line to line; 0 where it has not been written yet."""


@dataclass(frozen=True, slots=True)
class TransferFilter:
    """Which transfers to list; None does not filter. ``before_id`` continues a listing (newest first).

    A relay is of both its systems. Its source leg is no transfer of its own, and comes only ``with_legs``.
    """

    owner: str | None = None
    system: str | None = None
    direction: Direction | None = None
    states: tuple[State, ...] = ()
    before_id: str | None = None
    limit: int = 50
    with_legs: bool = False
