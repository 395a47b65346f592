"""What a failed transfer keeps while it may be retried: no job, what is staged, and on the cluster only what helps."""

from __future__ import annotations

from datetime import timedelta

from stagecoach.core.transfer import Transfer
from stagecoach.core.trying_again import Kept, kept_after
from stagecoach.flows.clean_up import LATE_JOB_SECONDS, end_job, keep_job_log, remove_from_system
from stagecoach.flows.direct_road import close_receiver
from stagecoach.flows.toolbox import Toolbox


async def keep_for_retry(tools: Toolbox, transfer: Transfer) -> Transfer | None:
    """One attempt at leaving of a ``failed`` transfer what a retry goes on from; None while its job may still run.

    Can be repeated. Saves nothing.
    """
    if not await end_job(tools, transfer):
        return None
    if transfer.is_direct:
        await close_receiver(tools, transfer)
    may_come_late = transfer.submission_tried and transfer.job_id is None
    if may_come_late and tools.now() - transfer.changed_at < timedelta(seconds=LATE_JOB_SECONDS):
        return None
    if kept_after(transfer, transfer.code) is Kept.ALL:
        return await keep_job_log(tools, transfer)
    return await remove_from_system(tools, transfer)


def is_settled(transfer: Transfer) -> bool:
    """Whether no worker has anything to do with it before its time to be retried is over.

    Only then may a retry begin: nothing is being removed under it.
    """
    due, until = transfer.next_check_at, transfer.retry_until
    return due is not None and until is not None and due >= until
