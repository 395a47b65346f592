"""One look of the worker at one transfer: what is true outside, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stagecoach.core import names
from stagecoach.core.polling import next_look_seconds
from stagecoach.core.transfer import Direction, State, Transfer, WaitPolicy, advance
from stagecoach.flows.cancel_transfer import carry_out_cancel, end_message
from stagecoach.flows.clean_up import clean_up
from stagecoach.flows.follow_job import follow_job
from stagecoach.flows.receive_object import receive_object
from stagecoach.flows.release_job import release_job, save_released
from stagecoach.flows.toolbox import Toolbox
from stagecoach.ports.scheduler import JobReport

UPLOAD_GONE_SECONDS = 60.0
CLEANING_LOOK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Look:
    """The transfer after the look, a line for its story if something happened, and when to look again (None: never)."""

    transfer: Transfer
    message: str | None
    next_seconds: float | None


def follows_job(transfer: Transfer) -> bool:
    """Whether the scheduler's report is needed for the next look."""
    if transfer.job_id is None:
        return False
    return transfer.state in {State.QUEUED, State.MOVING} or (
        transfer.state is State.RECEIVING and transfer.wait is WaitPolicy.IN_JOB
    )


async def look_at_transfer(tools: Toolbox, transfer: Transfer, report: JobReport | None) -> None:
    """Look, act, save. Raises StaleVersion when somebody else moved the transfer, and what the outside raises."""
    if transfer.state is State.STAGED and transfer.direction is Direction.UPLOAD and not _is_over(tools, transfer):
        released = await release_job(tools, transfer)
        await save_released(tools, released, tools.settings.worker.poll_min_seconds)
        return
    look = await _look(tools, transfer, report)
    if look.transfer == transfer and look.message is None:
        await tools.transfers.put_off(replace(transfer, failed_looks=0), tools.soon(look.next_seconds or 0))
        return
    messages = (look.message,) if look.message else ()
    next_check_at = tools.soon(look.next_seconds) if look.next_seconds is not None else None
    await tools.transfers.save(replace(look.transfer, failed_looks=0), *messages, next_check_at=next_check_at)
    if look.next_seconds == 0.0:
        tools.nudge_worker()


async def _look(tools: Toolbox, transfer: Transfer, report: JobReport | None) -> Look:
    if transfer.state.is_end:
        cleaned = await clean_up(tools, transfer)
        return Look(cleaned, None, None if cleaned.cleaned else CLEANING_LOOK_SECONDS)
    if transfer.state is State.CANCELLING:
        after = await carry_out_cancel(tools, transfer)
        if after.state is State.CANCELLING:
            return Look(after, None, CLEANING_LOOK_SECONDS)
        return Look(after, end_message(after), None if after.cleaned else 0.0)
    if transfer.state is State.PREPARING:
        return _interrupted(tools, transfer)
    if transfer.state in {State.QUEUED, State.MOVING}:
        followed = await follow_job(tools, transfer, report)
        return _next(tools, followed.transfer, followed.message)
    if _is_over(tools, transfer):
        return _expired(tools, transfer)
    if transfer.state is State.RECEIVING:
        return await _receive(tools, transfer, report)
    return _next(tools, transfer, None)


def _next(tools: Toolbox, transfer: Transfer, message: str | None) -> Look:
    """Look again when it is time: at once after an end, at the expiry of a staged download, else as things go."""
    worker, now = tools.settings.worker, tools.now()
    if transfer.state.is_end:
        return Look(transfer, message, 0.0)
    if transfer.state is State.STAGED and transfer.direction is Direction.DOWNLOAD and transfer.expires_at:
        return Look(transfer, message, max((transfer.expires_at - now).total_seconds(), worker.poll_min_seconds))
    return Look(transfer, message, next_look_seconds(transfer, now, worker.poll_min_seconds, worker.poll_max_seconds))


def _is_over(tools: Toolbox, transfer: Transfer) -> bool:
    return transfer.expires_at is not None and tools.now() >= transfer.expires_at


def _interrupted(tools: Toolbox, transfer: Transfer) -> Look:
    reason = "The service was interrupted while it prepared the transfer; nothing was moved. Begin it again."
    return Look(advance(transfer, State.FAILED, tools.now(), code="interrupted", reason=reason), reason, 0.0)


def _expired(tools: Toolbox, transfer: Transfer) -> Look:
    if transfer.direction is Direction.DOWNLOAD:
        reason = "The staged object was kept for its time and is removed now; begin the download again if you need it."
    else:
        reason = "The upload was not completed in time; its parts are removed. Begin it again."
    return Look(advance(transfer, State.EXPIRED, tools.now(), code="expired", reason=reason), reason, 0.0)


async def _receive(tools: Toolbox, transfer: Transfer, report: JobReport | None) -> Look:
    received = await receive_object(tools, transfer)
    if received is not None:
        return Look(received.transfer, received.message, 0.0)
    now = tools.now()
    stored = await tools.store.list_parts(transfer.bucket, names.object_key(transfer.id), transfer.upload_id or "")
    if stored is None:
        # Between the two questions the client may have completed it; a minute of neither means it is gone.
        since = transfer.job_missing_since or now
        if (now - since).total_seconds() < UPLOAD_GONE_SECONDS:
            return Look(replace(transfer, job_missing_since=since), None, tools.settings.worker.poll_min_seconds)
        reason = "The multipart upload is gone from the store (aborted or expired there); begin a new transfer."
        return Look(advance(transfer, State.FAILED, now, code="upload_gone", reason=reason), reason, 0.0)
    staged = sum(part.size_bytes for part in stored)
    if staged != transfer.bytes_staged:
        transfer = replace(transfer, bytes_staged=staged, changed_at=now, updated_at=now, job_missing_since=None)
    if transfer.wait is WaitPolicy.IN_JOB and report is not None:
        transfer = replace(transfer, job_state=report.state[:64], job_reason=report.reason or None)
        if report.phase.is_final:
            reason = f"The staging job that was to wait for the object ended ({report.state}); begin a new transfer."
            return Look(advance(transfer, State.FAILED, now, code="job_ended_early", reason=reason), reason, 0.0)
    return _next(tools, transfer, None)
