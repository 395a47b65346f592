"""Submits the staging job of an attempt that has none yet: the worker does this, after a failure that passed or a retry."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stagecoach.core.errors import StaleVersion, SubmissionRefused, SubmissionUncertain
from stagecoach.core.transfer import Transfer
from stagecoach.flows.clean_up import LATE_JOB_SECONDS
from stagecoach.flows.fail_transfer import end_line, fail
from stagecoach.flows.follow_leg import wake_relay
from stagecoach.flows.submit_job import prepare_job_directory, submit_job
from stagecoach.flows.toolbox import Toolbox
from stagecoach.flows.write_ticket import write_ticket
from stagecoach.ports.scheduler import JobPhase, JobReport


@dataclass(frozen=True, slots=True)
class Submitted:
    """The transfer with its job (``failed``, when that was refused), the line for its story, and whether a job was made."""

    transfer: Transfer
    message: str
    is_new_job: bool


async def submit_attempt(tools: Toolbox, transfer: Transfer, *, held: bool) -> Submitted:
    """The job of this attempt: looked for by its name first wherever one may exist, so that there are never two.

    A ``job_id`` that the transfer has is that of a job the scheduler does not know any more. Saves, before the scheduler
    is asked, that a job may exist; nothing else.

    Raises:
        StaleVersion: the transfer was moved by somebody else. SubmissionUncertain: look again later.
    """
    if transfer.submission_tried:
        scheduler = tools.system(transfer.system).scheduler
        # An empty answer is believed of a controller that answers, not of one that is away; and one that was frozen
        # makes the job it was asked for first.
        await scheduler.ping(transfer.owner)
        found = await _find(tools, transfer)
        if found is not None:
            if found.phase is JobPhase.HELD and not held:
                await scheduler.release(transfer.owner, found.job_id)
            adopted = _with_job(tools, transfer, found.job_id)
            if found.phase.is_final:
                adopted = replace(adopted, job_state=found.state[:64])
            may_run = "" if held else "; it may run now"
            return Submitted(adopted, f"Staging job {found.job_id} was found by its name{may_run}.", False)
        if transfer.job_id is None and (tools.now() - transfer.updated_at).total_seconds() < LATE_JOB_SECONDS:
            raise SubmissionUncertain("Whether the staging job was submitted is not known yet; the scheduler is asked again.")
    transfer = await write_ticket(tools, transfer)
    await prepare_job_directory(tools, transfer)
    # The row says it before the scheduler is asked: after a crash, a lost answer or a cancel the name is looked for.
    gone = transfer.job_id
    transfer = await tools.transfers.save(
        replace(transfer, job_id=None, submission_tried=True, updated_at=tools.now()),
        next_check_at=tools.soon(tools.settings.worker.lease_seconds),
    )
    try:
        submitted = await submit_job(tools, transfer, held=held)
    except SubmissionRefused as error:
        failed = fail(tools, transfer, error.code, error.message)
        return Submitted(failed, end_line(failed), False)
    return Submitted(_with_job(tools, submitted, submitted.job_id or ""), _told(submitted, gone, held=held), True)


async def save_submitted(tools: Toolbox, submitted: Submitted) -> Transfer:
    """Save; a job submitted for a transfer that moved on meanwhile (a cancel, say) is taken back. Raises StaleVersion."""
    transfer = submitted.transfer
    next_check_at = tools.now() if transfer.state.is_end else tools.soon(tools.settings.worker.poll_min_seconds)
    try:
        saved = await tools.transfers.save(transfer, submitted.message, next_check_at=next_check_at)
    except StaleVersion:
        if submitted.is_new_job:
            await tools.system(transfer.system).scheduler.cancel(transfer.owner, transfer.job_id or "")
        raise
    if saved.state.is_end:
        await wake_relay(tools, saved)
    return saved


async def _find(tools: Toolbox, transfer: Transfer) -> JobReport | None:
    """The job of this name. One that ended badly counts only where it is not known to be gone: its end is judged then."""
    scheduler = tools.system(transfer.system).scheduler
    jobs = await scheduler.find(transfer.owner, transfer.job_name)
    good = [job for job in jobs if not job.phase.is_final or job.phase is JobPhase.COMPLETED]
    for other in good[1:]:
        if not other.phase.is_final:
            await scheduler.cancel(transfer.owner, other.job_id)
    if transfer.job_id is None:
        good = good or jobs[-1:]
    return good[0] if good else None


def _with_job(tools: Toolbox, transfer: Transfer, job_id: str) -> Transfer:
    now = tools.now()
    return replace(transfer, job_id=job_id, restarts=0, changed_at=now, updated_at=now)


def _told(transfer: Transfer, gone: str | None, *, held: bool) -> str:
    if gone is not None:
        return f"The held job {gone} was gone; job {transfer.job_id} was submitted instead."
    if held and transfer.is_direct:
        return "The sending node goes on as soon as the receiving one has opened its folder."
    if held:
        return f"Staging job {transfer.job_id} is held until the object is whole."
    if transfer.is_direct:
        return "The receiving node brings what has arrived to its place."
    if transfer.bytes_moved and transfer.size_bytes:
        percent = 100 * transfer.bytes_moved // transfer.size_bytes
        return f"Staging job {transfer.job_id} is in the queue; it goes on from {percent} %."
    return f"Staging job {transfer.job_id} is in the queue."
