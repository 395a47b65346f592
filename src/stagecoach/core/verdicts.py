"""What a job's report and the mover's receipt together say of a transfer. Pure: nothing is asked here.

Neither is believed alone: a job can end 0 without its work, accounting lags and forgets, a node that failed may finish
its script all the same. See ``docs/decisions/0004-truth-of-a-job.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum


class JobOutcome(Enum):
    """What the scheduler says, reduced to what matters here."""

    UNKNOWN = "unknown"
    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    NODE_FAILED = "node_failed"
    OUT_OF_MEMORY = "out_of_memory"
    PREEMPTED = "preempted"


class Verdict(Enum):
    """What to do with the transfer."""

    WAITING = "waiting"
    MOVING = "moving"
    LOOK_AGAIN = "look_again"
    ARRIVED = "arrived"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The mover's last word, checked for shape. ``ok`` is only true when the transfer id and size were right too."""

    ok: bool
    code: str | None
    message: str
    size_bytes: int
    bytes_moved: int
    etag: str | None
    proved: tuple[dict[str, str], ...] = ()
    files: int = 0
    """Files, directories and links that an operation has worked on."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with the code and the sentence that go into the transfer when it failed."""

    verdict: Verdict
    code: str | None = None
    reason: str | None = None


_ENDED_BADLY = {
    JobOutcome.FAILED: (
        "job_failed",
        "The staging job ended with an error before it could say why; read its log (jobLog), then try again.",
    ),
    JobOutcome.CANCELLED: (
        "job_cancelled",
        "The staging job was cancelled on the cluster, by you or an administrator; ask the site's support if it was not you.",
    ),
    JobOutcome.TIMED_OUT: (
        "job_timed_out",
        "The staging job reached its time limit; ask the administrators for a longer one or a faster partition.",
    ),
    JobOutcome.NODE_FAILED: ("node_failed", "The compute node of the staging job failed."),
    JobOutcome.OUT_OF_MEMORY: (
        "out_of_memory",
        "The staging job ran out of memory; the administrators can give it more (the system's directives).",
    ),
    JobOutcome.PREEMPTED: ("job_preempted", "The staging job was pushed aside by a job of higher priority."),
}


def judge(
    outcome: JobOutcome,
    receipt: Receipt | None,
    *,
    now: datetime,
    unclear_since: datetime | None,
    receipt_grace_seconds: float,
    lost_after_seconds: float,
) -> Judgement:
    """Decide.

    ``unclear_since`` is when report and receipt first stopped agreeing (job unknown, or ended without a receipt); the
    two grace times are counted from it, because a receipt and an accounting row may both come late.
    """
    unclear = (now - unclear_since) if unclear_since else timedelta(0)
    if receipt is not None and receipt.ok:
        # A receipt follows fsync and rename, so the bytes are there whatever the scheduler says of the job.
        return Judgement(Verdict.ARRIVED)
    if outcome is JobOutcome.WAITING:
        return Judgement(Verdict.WAITING)
    if outcome is JobOutcome.RUNNING:
        return Judgement(Verdict.MOVING)
    if outcome is JobOutcome.UNKNOWN:
        if receipt is not None and unclear.total_seconds() >= receipt_grace_seconds:
            return Judgement(Verdict.FAILED, receipt.code or "job_failed", receipt.message)
        if unclear.total_seconds() >= lost_after_seconds:
            return Judgement(
                Verdict.FAILED,
                "job_lost",
                "The staging job is known neither to the queue nor to accounting and left no receipt.",
            )
        return Judgement(Verdict.LOOK_AGAIN)
    if receipt is not None and receipt.code != "interrupted":
        return Judgement(Verdict.FAILED, receipt.code or "job_failed", receipt.message)
    if unclear.total_seconds() < receipt_grace_seconds:
        return Judgement(Verdict.LOOK_AGAIN)
    if outcome is JobOutcome.SUCCEEDED:
        return Judgement(
            Verdict.FAILED,
            "receipt_missing",
            "The staging job ended, but left no receipt of its work, so the file is not known to be whole.",
        )
    if outcome is JobOutcome.FAILED and receipt is not None:
        # Its own process was asked to end, by somebody else than the scheduler.
        return Judgement(Verdict.FAILED, "interrupted", receipt.message)
    code, reason = _ENDED_BADLY[outcome]
    return Judgement(Verdict.FAILED, code, reason)
