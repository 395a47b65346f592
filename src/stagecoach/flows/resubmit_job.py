"""Has another job go on where one ended before its work, within bounds; the worker submits it after a pause."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stagecoach.core.state_machine import Event, advance
from stagecoach.core.tickets import Progress
from stagecoach.core.transfer import State, Transfer
from stagecoach.core.trying_again import HELD_JOB_ENDED, counts, next_attempt, passes, pause_after
from stagecoach.core.verdicts import Judgement
from stagecoach.flows.direct_words import with_direct_progress
from stagecoach.flows.job_words import job_progress
from stagecoach.flows.toolbox import Toolbox
from stagecoach.ports.scheduler import JobPhase, JobReport

_WHY = {
    "job_preempted": "The staging job was pushed aside by one of higher priority",
    "node_failed": "The compute node failed",
    "job_lost": "The scheduler has lost the staging job",
    "job_timed_out": "The staging job reached its time limit",
    "interrupted": "The staging job was interrupted",
    "store_unreachable": "The staging job could not reach the store",
    "ticket_expired": "The staging job's addresses of the store had expired",
    "another_mover": "An earlier job of this transfer is still at work",
    "job_failed": "The staging job ended without a word",
    "receiver_lost": "The receiving node was lost on the way",
    "receiver_failed": "The receiving node failed",
    "direct_failed": "The copy to the receiving node failed",
    "agent_error": "The node's agent failed",
    HELD_JOB_ENDED: "The held staging job had ended before it could be released",
}
# A held job's end and its release are noted by two clocks.
CLOCKS_DIFFER_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Resubmission:
    """The transfer, ``queued`` and without a job, with the line for its story; the next look, after the pause, submits.

    Without a line nothing is decided yet: the old job is still on its way out.
    """

    transfer: Transfer
    message: str | None
    pause_seconds: float


async def resubmit_job(
    tools: Toolbox, transfer: Transfer, report: JobReport | None, judgement: Judgement
) -> Resubmission | Judgement:
    """What follows from a job that ``judgement`` calls failed: another job, or the failure. Saves nothing."""
    transfer = await with_progress(tools, transfer)
    if not passes(transfer, judgement.code):
        return judgement
    if counts(judgement.code) and transfer.resubmissions >= tools.settings.worker.max_resubmissions:
        tried = transfer.resubmissions + 1
        return replace(judgement, reason=f"{judgement.reason} {tried} jobs were tried." if tried > 1 else judgement.reason)
    why = _WHY.get(judgement.code or "", "The staging job ended")
    if judgement.code == "node_failed" and report is not None and report.nodes:
        why = f"The compute node {report.nodes} failed"
    if not await _old_job_is_gone(tools, transfer, report):
        return Resubmission(transfer, None, tools.settings.worker.poll_min_seconds)
    where = ""
    if transfer.bytes_moved and transfer.size_bytes:
        where = f" at {100 * transfer.bytes_moved // transfer.size_bytes} %"
    again = next_attempt(advance(transfer, Event.RESUBMITTED, tools.now()))
    again = replace(again, resubmissions=transfer.resubmissions + (1 if counts(judgement.code) else 0))
    return Resubmission(again, f"{why}{where}; another job takes over.", pause_after(transfer, judgement.code))


def had_ended_before_release(transfer: Transfer, report: JobReport) -> bool:
    """Whether somebody ended the job while it was held; releasing it succeeded in silence. For the first look at it."""
    if transfer.state is not State.QUEUED or not report.phase.is_final or report.phase is JobPhase.COMPLETED:
        return False
    released = transfer.changed_at.timestamp() - CLOCKS_DIFFER_SECONDS
    return report.end_time is not None and report.end_time < released


async def with_progress(tools: Toolbox, transfer: Transfer) -> Transfer:
    """The transfer with what the mover last told of its progress."""
    if transfer.is_direct:
        return await with_direct_progress(tools, transfer)
    progress = await job_progress(tools, transfer)
    return transfer if progress is None else noted_progress(tools, transfer, progress)


def noted_progress(tools: Toolbox, transfer: Transfer, progress: Progress) -> Transfer:
    """The transfer with that progress."""
    now = tools.now()
    if progress.measured_bytes not in {None, transfer.size_bytes}:
        transfer = replace(transfer, size_bytes=progress.measured_bytes, changed_at=now, updated_at=now)
    if progress.file_count not in {None, transfer.file_count}:
        transfer = replace(transfer, file_count=progress.file_count, changed_at=now, updated_at=now)
    if (progress.bytes_done, progress.files_done) != (transfer.bytes_moved, transfer.files_moved):
        transfer = replace(
            transfer,
            bytes_moved=progress.bytes_done,
            files_moved=progress.files_done,
            rate_bytes_per_second=progress.rate_bytes_per_second,
            changed_at=now,
            updated_at=now,
        )
    return transfer


async def _old_job_is_gone(tools: Toolbox, transfer: Transfer, report: JobReport | None) -> bool:
    scheduler = tools.system(transfer.system).scheduler
    if report is not None:
        if report.phase is JobPhase.NODE_FAIL:
            # Its script may run on; the scheduler ends it as soon as the node is back.
            await scheduler.cancel(transfer.owner, report.job_id)
        return True
    # Unknown by its id, which schedulers give again: only what bears its name is ours to cancel.
    alive = [job for job in await scheduler.find(transfer.owner, transfer.job_name) if not job.phase.is_final]
    for job in alive:
        await scheduler.cancel(transfer.owner, job.job_id)
    return not alive
