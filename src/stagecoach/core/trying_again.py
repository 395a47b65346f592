"""What may be tried again after a failure, how often and when, and what is kept for it. Pure: nothing is asked here.

See ``docs/decisions/0012-trying-again.md``.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from stagecoach.core import names
from stagecoach.core.operations import Operation
from stagecoach.core.transfer import Direction, Transfer

FIRST_PAUSE_SECONDS = 10.0
PAUSE_FACTOR = 6.0
LONGEST_PAUSE_SECONDS = 3600.0

ANOTHER_MOVER = "another_mover"
STOPPED = "stopped"
HELD_JOB_ENDED = "held_job_ended"
# These pass by themselves: another job goes on where this one stopped.
_PASSES = frozenset(
    {
        "job_preempted",
        "node_failed",
        "job_lost",
        "interrupted",
        "store_unreachable",
        "ticket_expired",
        "receiver_lost",
        "receiver_failed",
        "direct_failed",
        "agent_error",
        HELD_JOB_ENDED,
        ANOTHER_MOVER,
    }
)
# The next job would end in the same way, unless this one has got further than it began.
_PASSES_WITH_PROGRESS = frozenset({"job_timed_out", "job_failed"})

# No further try can mend these: the object, or the source, is not what the transfer was begun with.
_FINAL = frozenset(
    {
        "size_mismatch",
        "size_refused",
        "upload_gone",
        "object_missing",
        "digest_mismatch",
        "archive_unsafe",
        "archive_unreadable",
        "source_changed",
        "source_missing",
        "source_special_file",
        "source_outside",
    }
)
# The job stopped in the middle, and its journal and hidden file say where.
_STOPPED_MIDWAY = (
    _PASSES
    | _PASSES_WITH_PROGRESS
    | {"out_of_memory", "job_cancelled", "receipt_missing", "store_refused", "submission_refused"}
    | {STOPPED, "cancelled", "command_unsupported", "receiver_full", "receiver_unavailable", "receiver_unreachable"}
)


class Kept(Enum):
    """What of a failed transfer stays for a while, so that it can go on."""

    NOTHING = "nothing"
    STAGED = "staged"
    """The object, or the open multipart upload with its parts. Nothing on the cluster."""
    ALL = "all"
    """Also the job's directory with the journal, and the hidden file beside the target."""


def passes(transfer: Transfer, code: str | None) -> bool:
    """Whether another job can be expected to do better than the one that ended with ``code``."""
    got_further = transfer.bytes_moved > transfer.bytes_at_submission
    if transfer.operation not in {None, Operation.REMOVE}:
        # A copy begins anew, so the next job would come as far as this one.
        got_further = False
    return code in _PASSES or (code in _PASSES_WITH_PROGRESS and got_further)


def counts(code: str | None) -> bool:
    """Whether a job that ended so counts as a try. A job that only found another at work has tried nothing."""
    return code != ANOTHER_MOVER


def pause_after(transfer: Transfer, code: str | None) -> float:
    """Seconds to wait before the job after one that ended with ``code``: each time longer; none where nothing was tried."""
    if code == HELD_JOB_ENDED:
        return 0.0
    # What is not counted as a try must not be asked for at the same pace for ever.
    tries = transfer.resubmissions if counts(code) else transfer.attempt - 1
    return min(FIRST_PAUSE_SECONDS * PAUSE_FACTOR ** min(tries, 20), LONGEST_PAUSE_SECONDS)


def kept_after(transfer: Transfer, code: str | None) -> Kept:
    """What to keep of ``transfer``, which failed with ``code`` after it had been prepared."""
    if code in _FINAL:
        return Kept.NOTHING
    # The parts of a download are worth what its job's journal knows of them; its target is the store.
    if transfer.direction is Direction.DOWNLOAD:
        return Kept.ALL
    return Kept.ALL if code in _STOPPED_MIDWAY else Kept.STAGED


def next_attempt(transfer: Transfer) -> Transfer:
    """The same, to be carried on by a job of another name, which is still to be submitted."""
    attempt = transfer.attempt + 1
    # On the direct road a job counts from zero while it looks at what is there already.
    before = transfer.bytes_at_submission if transfer.is_direct else 0
    return replace(
        transfer,
        attempt=attempt,
        job_name=names.job_name(transfer.id, attempt),
        submission_tried=False,
        job_id=None,
        first_job_id=transfer.first_job_id or transfer.job_id,
        job_state=None,
        job_reason=None,
        job_exit_code=None,
        job_ended=False,
        job_log=None,
        restarts=0,
        rate_bytes_per_second=0.0,
        bytes_at_submission=max(transfer.bytes_moved, before),
    )


def anew(transfer: Transfer) -> Transfer:
    """The same on its owner's word: what was tried before counts no more, and nothing is kept for another retry."""
    return replace(next_attempt(transfer), resubmissions=0, retry_until=None, cleaned=False)
