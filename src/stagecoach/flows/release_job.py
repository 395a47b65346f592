"""Lets the staging job of a whole upload run: fresh URLs in the ticket first, then the release."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from stagecoach.core.errors import FileMissing, JobNotFound, StaleVersion, SubmissionRefused, SubmissionUncertain
from stagecoach.core.transfer import State, Transfer, advance
from stagecoach.flows.clean_up import LATE_JOB_SECONDS
from stagecoach.flows.submit_job import prepare_job_directory, submit_job, waits_held
from stagecoach.flows.toolbox import Toolbox
from stagecoach.flows.write_ticket import write_ticket, write_ticket_url
from stagecoach.ports.scheduler import JobKey, JobPhase, Scheduler

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Released:
    """The transfer ``queued`` (``failed``, when a new job was refused), with the line for its story,
    and whether a new job had to be submitted."""

    transfer: Transfer
    message: str
    is_new_job: bool


async def release_job(tools: Toolbox, transfer: Transfer) -> Released:
    """Everything outside that makes a ``staged`` upload ``queued``. Can be repeated.

    Saves only that the job's id is unknown, before a job is submitted anew. Raises StaleVersion then.
    """
    await write_ticket(tools, transfer)
    scheduler = tools.system(transfer.system).scheduler
    if not waits_held(transfer):
        return Released(_queued(tools, transfer), f"Staging job {transfer.job_id} will find the object.", False)
    if transfer.job_id is not None and await _is_there(scheduler, transfer):
        try:
            await write_ticket_url(tools, transfer)
        except FileMissing:
            log.warning("transfer %s: its job directory was removed; it is made again", transfer.id)
            await prepare_job_directory(tools, transfer)
        try:
            await scheduler.release(transfer.owner, transfer.job_id or "")
            return Released(_queued(tools, transfer), f"Staging job {transfer.job_id} was released.", False)
        except JobNotFound:
            pass
    log.warning("transfer %s: held job %s is gone", transfer.id, transfer.job_id)
    # Somebody removed the held job, or the scheduler lost it; one of the same name may live on under another id.
    for job in await scheduler.find(transfer.owner, transfer.job_name):
        if not job.phase.is_final or job.phase is JobPhase.COMPLETED:
            if job.phase is JobPhase.HELD:
                await scheduler.release(transfer.owner, job.job_id)
            found = replace(transfer, job_id=job.job_id)
            return Released(_queued(tools, found), f"Staging job {job.job_id} was found by its name.", False)
    if transfer.job_id is None and (tools.now() - transfer.updated_at).total_seconds() < LATE_JOB_SECONDS:
        raise SubmissionUncertain("Whether the staging job was submitted is not known yet; the scheduler is asked again.")
    await prepare_job_directory(tools, transfer)
    # The row says it before the scheduler is asked: after a crash, a lost answer or a cancel the name is looked for.
    gone = transfer.job_id
    transfer = await tools.transfers.save(
        replace(transfer, job_id=None, updated_at=tools.now()),
        next_check_at=tools.soon(tools.settings.worker.lease_seconds),
    )
    try:
        again = await submit_job(tools, transfer, held=False)
    except SubmissionRefused as error:
        failed = advance(transfer, State.FAILED, tools.now(), code=error.code, reason=error.message)
        return Released(failed, error.message, False)
    return Released(
        _queued(tools, again),
        f"The held job{f' {gone}' if gone else ''} was gone; job {again.job_id} was submitted instead.",
        True,
    )


async def _is_there(scheduler: Scheduler, transfer: Transfer) -> bool:
    """Whether the job can still run, or has run. Releasing a cancelled job succeeds in silence, so its state is asked."""
    key = JobKey(transfer.job_id or "", transfer.job_name, transfer.owner)
    report = (await scheduler.reports([key])).get(key.job_id)
    return report is None or not report.phase.is_final or report.phase is JobPhase.COMPLETED


async def save_released(tools: Toolbox, released: Released, next_check_seconds: float) -> Transfer:
    """Save; a job submitted for a transfer that moved on meanwhile (a cancel, say) is taken back. Raises StaleVersion."""
    try:
        return await tools.transfers.save(released.transfer, released.message, next_check_at=tools.soon(next_check_seconds))
    except StaleVersion:
        if released.is_new_job:
            scheduler = tools.system(released.transfer.system).scheduler
            await scheduler.cancel(released.transfer.owner, released.transfer.job_id or "")
        raise


def _queued(tools: Toolbox, transfer: Transfer) -> Transfer:
    return advance(transfer, State.QUEUED, tools.now())
