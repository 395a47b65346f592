"""Follows a staging job to its end: the scheduler's report and the mover's receipt decide together."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stagecoach.core import names
from stagecoach.core.errors import StagecoachError
from stagecoach.core.tickets import MAX_RECEIPT_BYTES, read_progress, read_receipt
from stagecoach.core.transfer import Direction, State, Transfer, advance
from stagecoach.core.verdicts import JobOutcome, Receipt, Verdict, judge
from stagecoach.flows.clean_up import keep_job_log
from stagecoach.flows.toolbox import Toolbox
from stagecoach.ports.scheduler import JobPhase, JobReport

RECEIPT_GRACE_SECONDS = 15.0

_OUTCOMES = {
    JobPhase.HELD: JobOutcome.WAITING,
    JobPhase.PENDING: JobOutcome.WAITING,
    JobPhase.RUNNING: JobOutcome.RUNNING,
    JobPhase.COMPLETED: JobOutcome.SUCCEEDED,
    JobPhase.FAILED: JobOutcome.FAILED,
    JobPhase.CANCELLED: JobOutcome.CANCELLED,
    JobPhase.TIMEOUT: JobOutcome.TIMED_OUT,
    JobPhase.NODE_FAIL: JobOutcome.NODE_FAILED,
    JobPhase.OUT_OF_MEMORY: JobOutcome.OUT_OF_MEMORY,
    JobPhase.PREEMPTED: JobOutcome.PREEMPTED,
}


@dataclass(frozen=True, slots=True)
class Followed:
    """The transfer after a look; ``message`` goes into the story when there is something to tell."""

    transfer: Transfer
    message: str | None


async def follow_job(tools: Toolbox, transfer: Transfer, report: JobReport | None) -> Followed:
    """One look at a ``queued`` or ``moving`` transfer. ``report`` None: the scheduler does not know the job. Saves nothing."""
    now = tools.now()
    outcome = _OUTCOMES[report.phase] if report else JobOutcome.UNKNOWN
    transfer = _with_report(transfer, report)
    if report is not None and report.phase is JobPhase.HELD and "Admin" not in report.reason:
        # Slurm holds a job that it could not launch ("launch failed requeued held"), and nobody else would let it go.
        await tools.system(transfer.system).scheduler.release(transfer.owner, report.job_id)
    receipt = await _find_receipt(tools, transfer, ended=outcome not in {JobOutcome.WAITING, JobOutcome.RUNNING})
    # Only a receipt and a report that agree are clear; what is unclear is timed from its first sight.
    clear = outcome in {JobOutcome.WAITING, JobOutcome.RUNNING} and not (receipt and receipt.ok)
    since = None if clear else (transfer.job_missing_since or now)
    transfer = replace(transfer, job_missing_since=since)
    judgement = judge(
        outcome,
        receipt,
        now=now,
        unclear_since=since,
        receipt_grace_seconds=RECEIPT_GRACE_SECONDS,
        lost_after_seconds=tools.settings.worker.job_lost_seconds,
    )
    if judgement.verdict is Verdict.ARRIVED and receipt is not None:
        return await _arrived(tools, transfer, receipt)
    if judgement.verdict is Verdict.FAILED:
        kept = await keep_job_log(tools, transfer)
        failed = advance(kept, State.FAILED, now, code=judgement.code, reason=judgement.reason)
        return Followed(failed, judgement.reason)
    if judgement.verdict is Verdict.MOVING:
        return await _moving(tools, transfer, report)
    if judgement.verdict is Verdict.WAITING and transfer.state is State.MOVING:
        return Followed(advance(transfer, State.QUEUED, now), "The job was put back into the queue; it will continue.")
    return Followed(transfer, None)


def _with_report(transfer: Transfer, report: JobReport | None) -> Transfer:
    if report is None:
        return transfer
    # The scheduler's words may hold bytes that are no text, which the database would refuse.
    reason = report.reason.encode("utf-8", "replace").decode().replace("\0", "")
    return replace(transfer, job_state=report.state[:64], job_reason=reason or None, job_exit_code=report.exit_code)


async def _moving(tools: Toolbox, transfer: Transfer, report: JobReport | None) -> Followed:
    now, message = tools.now(), None
    if transfer.state is State.QUEUED:
        where = f" on {report.nodes}" if report and report.nodes else ""
        transfer, message = advance(transfer, State.MOVING, now), f"The staging job runs{where}."
    content = await tools.store.read_object(transfer.bucket, names.progress_key(transfer.id), MAX_RECEIPT_BYTES)
    progress = read_progress(content, transfer)
    if progress is not None and progress.bytes_done != transfer.bytes_moved:
        transfer = replace(
            transfer,
            bytes_moved=progress.bytes_done,
            rate_bytes_per_second=progress.rate_bytes_per_second,
            changed_at=now,
            updated_at=now,
        )
    return Followed(transfer, message)


async def _find_receipt(tools: Toolbox, transfer: Transfer, *, ended: bool) -> Receipt | None:
    """From the store; from the job's directory when the job ended and the store has none (a store that was away)."""
    content = await tools.store.read_object(transfer.bucket, names.receipt_key(transfer.id), MAX_RECEIPT_BYTES)
    receipt = read_receipt(content, transfer)
    if receipt is None and ended and transfer.job_directory:
        files = tools.system(transfer.system).files
        path = f"{transfer.job_directory}/receipt.json"
        try:
            receipt = read_receipt(await files.read_file(transfer.owner, path, MAX_RECEIPT_BYTES), transfer)
        except StagecoachError as error:
            # What the owner put there is no receipt; what cannot be asked for now may be one.
            if error.retryable:
                raise
    return receipt


async def _arrived(tools: Toolbox, transfer: Transfer, receipt: Receipt) -> Followed:
    now = tools.now()
    transfer = await keep_job_log(tools, transfer)
    transfer = replace(transfer, bytes_moved=transfer.size_bytes, proved=receipt.proved, rate_bytes_per_second=0.0)
    if transfer.direction is Direction.UPLOAD:
        done = advance(transfer, State.DONE, now)
        return Followed(done, f"The file is at its place, {transfer.size_bytes} bytes, verified.")
    found = await tools.store.head_object(transfer.bucket, names.object_key(transfer.id))
    if found is None or found.size_bytes != transfer.size_bytes:
        reason = "The job reports success, but the store does not hold the whole object; begin the download again."
        return Followed(advance(transfer, State.FAILED, now, code="object_missing", reason=reason), reason)
    staged = advance(transfer, State.STAGED, now)
    life = tools.settings.s3.object_life_seconds
    staged = replace(staged, object_etag=found.etag, bytes_staged=found.size_bytes, expires_at=tools.soon(life))
    return Followed(staged, "The object is ready; its download URL works now.")
