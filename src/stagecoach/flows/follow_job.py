"""Follows a staging job to its end: the scheduler's report and the mover's receipt decide together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from stagecoach.core import names
from stagecoach.core.job_scripts import OUR_WORDS
from stagecoach.core.roads import may_fall_back
from stagecoach.core.state_machine import Event, advance
from stagecoach.core.transfer import Direction, State, Transfer
from stagecoach.core.trying_again import HELD_JOB_ENDED
from stagecoach.core.verdicts import JobOutcome, Judgement, Receipt, Verdict, judge
from stagecoach.flows.clean_up import ON_ITS_WAY_OUT_SECONDS, end_job, keep_job_log
from stagecoach.flows.direct_words import notice_trouble
from stagecoach.flows.fail_transfer import direct_end, end_line, fail
from stagecoach.flows.job_words import job_progress, job_receipt
from stagecoach.flows.receive_direct import CLOSED, Waited, closed_by_receiver, fall_back, look_at_receiver
from stagecoach.flows.renew_ticket import renew_ticket
from stagecoach.flows.resubmit_job import (
    Resubmission,
    had_ended_before_release,
    noted_progress,
    resubmit_job,
    with_progress,
)
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
_OPEN = frozenset({JobOutcome.WAITING, JobOutcome.RUNNING})


@dataclass(frozen=True, slots=True)
class Followed:
    """The transfer after a look; ``message`` goes into the story when there is something to tell.

    ``next_seconds`` says when to look again, where that is not as usual.
    """

    transfer: Transfer
    message: str | None
    next_seconds: float | None = None


async def follow_job(tools: Toolbox, transfer: Transfer, report: JobReport | None) -> Followed:
    """One look at a ``queued`` or ``moving`` transfer. ``report`` None: the scheduler does not know the job. Saves nothing."""
    now = tools.now()
    outcome = _OUTCOMES[report.phase] if report else JobOutcome.UNKNOWN
    is_first_look = transfer.job_state is None
    before, transfer = transfer, _with_report(transfer, report)
    if transfer.is_direct and transfer.road_reason is not None:
        return _waited(tools, await fall_back(tools, transfer, transfer.road_reason))
    if report is not None and report.phase is JobPhase.HELD and transfer.is_direct:
        return await _receiver(tools, transfer, report)
    if report is not None and report.phase is JobPhase.HELD and "Admin" not in report.reason:
        # Slurm holds a job that it could not launch ("launch failed requeued held"), and nobody else would let it go.
        await tools.system(transfer.system).scheduler.release(transfer.owner, report.job_id)
    if is_first_look and report is not None and had_ended_before_release(transfer, report):
        judgement = Judgement(Verdict.FAILED, HELD_JOB_ENDED, f"The held staging job had ended ({report.state}).")
        return await _ended(tools, transfer, report, None, judgement)
    receipt = await job_receipt(tools, transfer, ended=outcome not in _OPEN)
    if transfer.is_direct and transfer.relay_of is not None and (receipt is None or not receipt.ok):
        closed = await closed_by_receiver(tools, transfer)
        if closed is not None:
            return await _ended(tools, transfer, report, receipt, closed)
    # An end without a receipt is unclear, and timed from its first sight.
    since = None if outcome in _OPEN else (transfer.job_missing_since or now)
    if outcome not in _OPEN and receipt is None:
        transfer = await with_progress(tools, transfer)
        if transfer.bytes_moved != before.bytes_moved:
            # A script may run on after NODE_FAIL, or under a controller that lost its memory: bytes that move are alive.
            since = now
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
        found = await _found_after_all(tools, transfer) if judgement.code == "job_lost" else None
        if found is not None:
            return await follow_job(tools, replace(transfer, job_id=found.job_id), found)
        return await _ended(tools, transfer, report, receipt, judgement)
    if judgement.verdict is Verdict.MOVING:
        return await _moving(tools, before, transfer, report)
    if judgement.verdict is Verdict.WAITING and (transfer.state is State.MOVING or transfer.restarts > before.restarts):
        return await _requeued(tools, before, transfer)
    return Followed(transfer, _unclear(before, report, judgement))


async def follow_by_words(tools: Toolbox, transfer: Transfer) -> Followed:
    """One look between two questions to the scheduler, at what the job itself has told the store. Saves nothing."""
    receipt = await job_receipt(tools, transfer, ended=False)
    if receipt is not None and receipt.ok:
        return await _arrived(tools, transfer, receipt)
    # Of a job that waits again, the store still has what it told before.
    may_have_started = transfer.state is State.QUEUED and transfer.restarts == 0
    if transfer.state is not State.MOVING and not may_have_started:
        return Followed(transfer, None)
    progress = await job_progress(tools, transfer)
    if progress is None:
        return Followed(transfer, None)
    message = None
    if may_have_started:
        transfer = advance(transfer, Event.STARTED, tools.now())
        message = "The staging job moves the data."
    after = noted_progress(tools, transfer, progress)
    if after.bytes_moved != transfer.bytes_moved and after.job_missing_since is not None:
        # Bytes that move are alive, whatever the scheduler says of their job.
        after = replace(after, job_missing_since=tools.now())
    return Followed(after, message)


async def see_job_out(tools: Toolbox, transfer: Transfer, report: JobReport | None) -> Transfer:
    """One look at a job whose work is done and proved, until the scheduler has told its end. Saves nothing.

    With ``job_ended``, its report and its log are in the row. A job that does not end within a minute is cancelled.
    """
    after = _with_report(transfer, report)
    if not after.job_ended:
        waited = (tools.now() - transfer.changed_at).total_seconds()
        if report is not None and waited < ON_ITS_WAY_OUT_SECONDS:
            return after
        after = replace(after, job_ended=await end_job(tools, after))
    return await keep_job_log(tools, after) if after.job_ended else after


async def _receiver(tools: Toolbox, leg: Transfer, report: JobReport) -> Followed:
    """The job is held until the other node receives."""
    waited = await look_at_receiver(tools, leg)
    if waited.judgement is not None:
        return await _ended(tools, waited.leg, report, None, waited.judgement)
    return _waited(tools, waited)


def _waited(tools: Toolbox, waited: Waited) -> Followed:
    seconds = waited.next_seconds
    return Followed(waited.leg, waited.message, tools.settings.worker.poll_min_seconds if seconds is None else seconds)


async def _found_after_all(tools: Toolbox, transfer: Transfer) -> JobReport | None:
    """Asked before a job is called lost: the controller itself, which may be away and say "no such job" all the same, and
    then by the job's name and as its owner, from whom no privacy setting hides it."""
    scheduler = tools.system(transfer.system).scheduler
    await scheduler.ping(transfer.owner)
    return next(iter(reversed(await scheduler.find(transfer.owner, transfer.job_name))), None)


async def _requeued(tools: Toolbox, before: Transfer, transfer: Transfer) -> Followed:
    # It may wait for days, and reads the ticket when it starts again.
    transfer = await renew_ticket(tools, transfer)
    # Counted also where the scheduler does not count it (it never ran, and its owner wrote its progress): what the store
    # has of it is from before, and does not make it run again.
    transfer = replace(transfer, restarts=max(transfer.restarts, before.restarts + 1))
    if transfer.state is State.MOVING:
        transfer = advance(transfer, Event.REQUEUED, tools.now())
    message = "The scheduler put the job back into its queue; when it starts again it continues where it was."
    return Followed(transfer, message)


def _unclear(before: Transfer, report: JobReport | None, judgement: Judgement) -> str | None:
    """What is told once, when scheduler and receipt stop agreeing."""
    if judgement.verdict is not Verdict.LOOK_AGAIN or before.job_missing_since is not None:
        return None
    if report is None:
        return f"The scheduler does not know job {before.job_id} at the moment; it is looked for, and so is its receipt."
    if report.phase.is_final:
        where = f" on {report.nodes}" if report.nodes else ""
        return f"The scheduler says that the job ended{where} ({report.state}); the receipt of its work is looked for."
    return None


async def _ended(
    tools: Toolbox, transfer: Transfer, report: JobReport | None, receipt: Receipt | None, judgement: Judgement
) -> Followed:
    """Another job goes on, or the transfer has failed."""
    if transfer.is_direct and judgement.code in CLOSED and may_fall_back(transfer := await with_progress(tools, transfer)):
        return _waited(tools, await fall_back(tools, transfer, judgement.reason or ""))
    decided = await resubmit_job(tools, transfer, report, judgement)
    if isinstance(decided, Resubmission):
        return Followed(decided.transfer, decided.message, decided.pause_seconds)
    kept = await keep_job_log(tools, await with_progress(tools, transfer))
    reason = None
    if transfer.is_on_node and receipt is None:
        reason = _nodes_words(decided.code, report)
    elif decided.code == "job_failed" and receipt is None:
        reason = _own_words(kept.job_log)
    failed = fail(tools, replace(kept, rate_bytes_per_second=0.0), decided.code, reason or decided.reason)
    return Followed(failed, end_line(failed))


def _own_words(job_log: str | None) -> str | None:
    """What the job's script said before it could start the mover, which leaves receipts."""
    lines = [line for line in (job_log or "").splitlines() if line.startswith(OUR_WORDS)]
    return f"The staging job could not begin: {lines[-1].removeprefix(OUR_WORDS)[:300]}." if lines else None


def _nodes_words(code: str | None, report: JobReport | None) -> str | None:
    """What a node's agent, or its queue, said of a command whose mover left no receipt."""
    if report is None or not report.reason or code not in {"job_failed", "job_cancelled"}:
        return None
    return f"The node did not do it: {report.reason[:300]}"


def _with_report(transfer: Transfer, report: JobReport | None) -> Transfer:
    if report is None:
        return transfer
    # The scheduler's words may hold bytes that are no text, which the database would refuse.
    reason = report.reason.encode("utf-8", "replace").decode().replace("\0", "")
    # Accounting does not count restarts; a job that is on its way out may count the next one already.
    restarts = transfer.restarts if "COMPLETING" in report.state else max(report.restarts, transfer.restarts)
    return replace(
        transfer,
        job_state=report.state[:64],
        job_reason=reason or None,
        job_exit_code=report.exit_code,
        job_ended=report.phase.is_final,
        restarts=restarts,
    )


async def _moving(tools: Toolbox, before: Transfer, transfer: Transfer, report: JobReport | None) -> Followed:
    message = None
    where = f" on {report.nodes}" if report and report.nodes else ""
    if transfer.restarts > before.restarts and before.state is State.MOVING:
        # Between two looks: it may have waited for long, and has read the ticket perhaps not yet.
        transfer = await renew_ticket(tools, transfer)
        message = f"The job was put back into the queue and started again{where} ({ordinal(transfer.restarts + 1)} time)."
    if transfer.state is State.QUEUED:
        transfer = advance(transfer, Event.STARTED, tools.now())
        again = f" again ({ordinal(transfer.restarts + 1)} time)" if transfer.restarts else ""
        message = f"The staging job moves the data{where}{again}."
    transfer = await with_progress(tools, transfer)
    if transfer.is_direct:
        if transfer.relay_of is not None and transfer.expires_at is not None:
            end = direct_end(tools)
            # Seldom, so that not every look is a change.
            is_near = end - transfer.expires_at > timedelta(hours=1)
            transfer = replace(transfer, expires_at=end) if is_near else transfer
        transfer, noticed = await notice_trouble(tools, transfer)
        message = noticed or message
    return Followed(transfer, message)


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, …"""
    teens = number % 100 in {11, 12, 13}
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


async def _arrived(tools: Toolbox, transfer: Transfer, receipt: Receipt) -> Followed:
    now = tools.now()
    if transfer.job_ended:
        transfer = await keep_job_log(tools, transfer)
    if transfer.is_direct:
        # What its agent noticed at the end, too.
        transfer = await with_progress(tools, transfer)
    # The receipt's size is the announced one, or what the job has measured.
    size = receipt.size_bytes
    transfer = replace(transfer, size_bytes=size, bytes_moved=size, proved=receipt.proved, rate_bytes_per_second=0.0)
    if transfer.operation is not None:
        done = advance(replace(transfer, file_count=receipt.files, files_moved=receipt.files), Event.ARRIVED, now)
        things = "1 file or directory" if receipt.files == 1 else f"{receipt.files} files and directories"
        return Followed(done, f"{things}, {size} bytes: {transfer.operation.participle}.")
    if transfer.direction is Direction.UPLOAD:
        done = advance(transfer, Event.ARRIVED, now)
        return Followed(done, f"The {transfer.what} is at its place, {size} bytes, verified.")
    life = tools.settings.s3.object_life_seconds
    if transfer.is_direct:
        transfer = replace(transfer, file_count=receipt.files, files_moved=receipt.files, current_file=None, slow_since=None)
        arrived = replace(advance(transfer, Event.ARRIVED, now), bytes_staged=size, expires_at=tools.soon(life))
        return Followed(arrived, f"All {size} bytes are on the receiving node and were compared; they take their place next.")
    found = await tools.store.head_object(transfer.bucket, names.object_key(transfer.id))
    if found is None or found.size_bytes != size:
        reason = "The staging job reports success, but the staging area does not hold the whole object; begin the download again."
        return Followed(advance(transfer, Event.FAILED, now, code="object_missing", reason=reason), reason)
    staged = advance(transfer, Event.ARRIVED, now)
    staged = replace(staged, object_etag=found.etag, bytes_staged=found.size_bytes, expires_at=tools.soon(life))
    return Followed(staged, "The data is in the staging area, whole; the download URL works now.")
