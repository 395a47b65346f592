"""Lets the staging job of a whole upload run: fresh URLs in the ticket first, then the release."""

from __future__ import annotations

import logging
from dataclasses import replace

from stagecoach.core.errors import JobNotFound
from stagecoach.core.state_machine import Event, advance
from stagecoach.core.transfer import Transfer
from stagecoach.flows.renew_ticket import renew_ticket
from stagecoach.flows.submit_attempt import Submitted, submit_attempt
from stagecoach.flows.submit_job import waits_held
from stagecoach.flows.toolbox import Toolbox
from stagecoach.ports.scheduler import JobKey, JobPhase, Scheduler

log = logging.getLogger(__name__)


async def release_job(tools: Toolbox, transfer: Transfer) -> Submitted:
    """Everything outside that makes a ``staged`` upload ``queued``. Can be repeated.

    Saves only what :func:`submit_attempt` saves; raises as that does.
    """
    if transfer.job_id is not None:
        transfer = await renew_ticket(tools, transfer)
        if not waits_held(transfer):
            message = f"Staging job {transfer.job_id}, which waits for the upload, takes it from here."
            return _queued(tools, Submitted(transfer, message, False))
        scheduler = tools.system(transfer.system).scheduler
        if await _is_there(scheduler, transfer):
            try:
                await scheduler.release(transfer.owner, transfer.job_id or "")
                message = f"Staging job {transfer.job_id} is held no longer; it starts when its turn comes."
                return _queued(tools, Submitted(transfer, message, False))
            except JobNotFound:
                pass
        log.warning("transfer %s: held job %s is gone", transfer.id, transfer.job_id)
    return _queued(tools, await submit_attempt(tools, transfer, held=False))


async def _is_there(scheduler: Scheduler, transfer: Transfer) -> bool:
    """Whether the job can still run, or has run. Releasing a cancelled job succeeds in silence, so its state is asked.

    One that the scheduler does not know is not released by its number, which may be somebody else's by now.
    """
    key = JobKey(transfer.job_id or "", transfer.job_name, transfer.owner)
    report = (await scheduler.reports([key])).get(key.job_id)
    return report is not None and (not report.phase.is_final or report.phase is JobPhase.COMPLETED)


def _queued(tools: Toolbox, submitted: Submitted) -> Submitted:
    if submitted.transfer.state.is_end:
        return submitted
    return replace(submitted, transfer=advance(submitted.transfer, Event.RELEASED, tools.now()))
