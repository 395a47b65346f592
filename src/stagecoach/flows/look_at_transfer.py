"""One look of the worker at one transfer: what is true outside, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stagecoach.core import names
from stagecoach.core.polling import next_look_seconds
from stagecoach.core.transfer import Direction, State, Transfer, WaitPolicy, advance
from stagecoach.flows.cancel_transfer import carry_out_cancel, end_message
from stagecoach.flows.clean_up import clean_up, remove_staged_data, seconds_until_last_look
from stagecoach.flows.follow_job import follow_job
from stagecoach.flows.receive_object import receive_object
from stagecoach.flows.release_job import release_job, save_released
from stagecoach.flows.toolbox import JOB_URL_TTL_SECONDS, Toolbox
from stagecoach.flows.write_ticket import write_ticket, write_ticket_url
from stagecoach.ports.scheduler import JobReport

UPLOAD_GONE_SECONDS = 60.0
CLEANING_LOOK_SECONDS = 2.0
# A listing of 10,000 parts is ten requests; who sends so many need not be seen more often than every five seconds.
PARTS_LISTED_PER_SECOND = 2000


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
    # A look that went well ends the trouble of those before it; the reason of an end stays.
    after = replace(look.transfer, failed_looks=0, reason=look.transfer.reason if look.transfer.state.is_end else None)
    if look.transfer == transfer and look.message is None and look.next_seconds is not None:
        await tools.transfers.put_off(after, tools.soon(look.next_seconds or 0))
        return
    messages = (look.message,) if look.message else ()
    next_check_at = tools.soon(look.next_seconds) if look.next_seconds is not None else None
    await tools.transfers.save(after, *messages, next_check_at=next_check_at)
    if look.next_seconds == 0.0:
        tools.nudge_worker()


async def _look(tools: Toolbox, transfer: Transfer, report: JobReport | None) -> Look:
    if transfer.state.is_end:
        if transfer.cleaned:
            await remove_staged_data(tools, transfer)
            return Look(transfer, None, None)
        cleaned = await clean_up(tools, transfer)
        return Look(cleaned, None, seconds_until_last_look(cleaned) if cleaned.cleaned else CLEANING_LOOK_SECONDS)
    if transfer.state is State.CANCELLING:
        after = await carry_out_cancel(tools, transfer)
        if after.state is State.CANCELLING:
            return Look(after, None, CLEANING_LOOK_SECONDS)
        return Look(after, end_message(after), seconds_until_last_look(after) if after.cleaned else 0.0)
    if transfer.state is State.PREPARING:
        return _interrupted(tools, transfer)
    if transfer.state in {State.QUEUED, State.MOVING}:
        followed = await follow_job(tools, transfer, report)
        if followed.transfer.state is State.QUEUED and _is_over(tools, followed.transfer):
            return _expired(tools, followed.transfer)
        return _next(tools, await _with_fresh_urls(tools, followed.transfer), followed.message)
    if transfer.state is State.RECEIVING:
        return await _receive(tools, transfer, report)
    if _is_over(tools, transfer):
        return _expired(tools, transfer)
    return _next(tools, transfer, None)


def _next(tools: Toolbox, transfer: Transfer, message: str | None) -> Look:
    """Look again when it is time: at once after an end, at the expiry of a staged download, else as things go."""
    worker, now = tools.settings.worker, tools.now()
    if transfer.state.is_end:
        return Look(transfer, message, 0.0)
    if transfer.state is State.STAGED and transfer.direction is Direction.DOWNLOAD and transfer.expires_at:
        return Look(transfer, message, max((transfer.expires_at - now).total_seconds(), worker.poll_min_seconds))
    return Look(transfer, message, next_look_seconds(transfer, now, worker.poll_min_seconds, worker.poll_max_seconds))


async def _with_fresh_urls(tools: Toolbox, transfer: Transfer) -> Transfer:
    """A queue may be longer than the life of a presigned URL: sign again what waits in the ticket."""
    # The ticket is an object of the bucket, so the bucket's rule ends its life as well.
    life = min(JOB_URL_TTL_SECONDS, tools.settings.s3.object_life_seconds)
    if transfer.state is not State.QUEUED or (tools.now() - transfer.updated_at).total_seconds() < life / 3:
        return transfer
    await write_ticket(tools, transfer)
    await write_ticket_url(tools, transfer)
    return replace(transfer, updated_at=tools.now())


def _is_over(tools: Toolbox, transfer: Transfer) -> bool:
    return transfer.expires_at is not None and tools.now() >= transfer.expires_at


def _interrupted(tools: Toolbox, transfer: Transfer) -> Look:
    reason = "The service was interrupted while it prepared the transfer; nothing was moved. Begin it again."
    return Look(advance(transfer, State.FAILED, tools.now(), code="interrupted", reason=reason), reason, 0.0)


def _expired(tools: Toolbox, transfer: Transfer) -> Look:
    if transfer.state is State.QUEUED:
        reason = "The staging job did not start in time and was taken back; begin the transfer again, perhaps elsewhere."
    elif transfer.direction is Direction.DOWNLOAD:
        reason = "The staged object was kept for its time and is removed now; begin the download again if you need it."
    else:
        reason = "The upload was not completed in time; its parts are removed. Begin it again."
    return Look(advance(transfer, State.EXPIRED, tools.now(), code="expired", reason=reason), reason, 0.0)


async def _receive(tools: Toolbox, transfer: Transfer, report: JobReport | None) -> Look:
    received = await receive_object(tools, transfer)
    if received is not None:
        return Look(received.transfer, received.message, 0.0)
    # Only now: what came in time is not thrown away because the worker was late.
    if _is_over(tools, transfer):
        return _expired(tools, transfer)
    now = tools.now()
    stored = await tools.store.list_parts(transfer.bucket, names.object_key(transfer.id), transfer.upload_id or "")
    if stored is None:
        # Between the two questions the client may have completed it; a minute of neither means it is gone.
        since = transfer.job_missing_since or now
        if (now - since).total_seconds() < UPLOAD_GONE_SECONDS:
            return Look(replace(transfer, job_missing_since=since), None, tools.settings.worker.poll_min_seconds)
        reason = "The multipart upload is gone from the store (aborted or expired there); begin a new transfer."
        return Look(advance(transfer, State.FAILED, now, code="upload_gone", reason=reason), reason, 0.0)
    transfer = replace(transfer, job_missing_since=None)
    staged = sum(part.size_bytes for part in stored)
    if staged != transfer.bytes_staged:
        transfer = replace(transfer, bytes_staged=staged, changed_at=now, updated_at=now)
    if transfer.wait is WaitPolicy.IN_JOB and report is not None:
        transfer = replace(transfer, job_state=report.state[:64], job_reason=report.reason or None)
        if report.phase.is_final:
            reason = f"The staging job that was to wait for the object ended ({report.state}); begin a new transfer."
            return Look(advance(transfer, State.FAILED, now, code="job_ended_early", reason=reason), reason, 0.0)
    look = _next(tools, transfer, None)
    return replace(look, next_seconds=max(look.next_seconds or 0.0, transfer.part_count / PARTS_LISTED_PER_SECOND))
