"""One look of the worker at one transfer: what is true outside, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from stagecoach.core import names
from stagecoach.core.errors import SubmissionRefused
from stagecoach.core.nodes import GrantUse
from stagecoach.core.polling import next_look_seconds
from stagecoach.core.state_machine import Event, advance
from stagecoach.core.transfer import ENDS, Direction, State, Transfer, WaitPolicy
from stagecoach.core.waiting_words import why_it_waits
from stagecoach.flows.cancel_transfer import carry_out_cancel, end_message
from stagecoach.flows.clean_up import CLEANING_LOOK_SECONDS, clean_up, remove_staged_data, seconds_until_last_look
from stagecoach.flows.direct_road import open_receiver
from stagecoach.flows.fail_transfer import end_line, fail
from stagecoach.flows.follow_job import follow_by_words, follow_job, see_job_out
from stagecoach.flows.follow_leg import look_at_leg, look_at_relay, wake_relay
from stagecoach.flows.keep_failed import keep_for_retry
from stagecoach.flows.receive_object import receive_object
from stagecoach.flows.release_job import release_job
from stagecoach.flows.renew_ticket import renew_ticket_in_time
from stagecoach.flows.submit_attempt import Submitted, save_submitted, submit_attempt
from stagecoach.flows.submit_job import waits_held
from stagecoach.flows.toolbox import Toolbox
from stagecoach.ports.scheduler import JobReport

UPLOAD_GONE_SECONDS = 60.0
# A listing of 10,000 parts is ten requests; who sends so many need not be seen more often than every five seconds.
PARTS_LISTED_PER_SECOND = 2000


@dataclass(frozen=True, slots=True)
class Look:
    """The transfer after the look, a line for its story if something happened, and when to look again (None: never).
    ``grant_use`` is saved with it."""

    transfer: Transfer
    message: str | None
    next_seconds: float | None
    grant_use: GrantUse | None = None


async def look_at_transfer(tools: Toolbox, transfer: Transfer, report: JobReport | None, least_seconds: float = 0.0) -> None:
    """Look, act, save. Raises StaleVersion when somebody else moved the transfer, and what the outside raises.

    ``least_seconds``: not again before, while nothing changes its state; so many others want to be looked at.
    """
    if transfer.state is State.STAGED and transfer.direction is Direction.UPLOAD and not _is_over(tools, transfer):
        await save_submitted(tools, await release_job(tools, transfer))
        return
    if _lacks_job(transfer) and not _is_over(tools, transfer):
        is_held = transfer.state is State.RECEIVING and waits_held(transfer)
        if transfer.is_direct and transfer.relay_of is not None:
            try:
                await open_receiver(tools, transfer)
            except SubmissionRefused as error:
                failed = fail(tools, transfer, error.code, error.message)
                await save_submitted(tools, Submitted(failed, end_line(failed), False))
                return
            is_held = True
        await save_submitted(tools, await submit_attempt(tools, transfer, held=is_held))
        return
    look = await _look(tools, transfer, report)
    if look.next_seconds and look.transfer.state is transfer.state:
        look = replace(look, next_seconds=max(look.next_seconds, least_seconds))
    # A look that went well ends the trouble of those before it; the reason of an end stays.
    reason = look.transfer.reason if look.transfer.state.is_end else None
    if look.transfer.state is State.QUEUED:
        reason = why_it_waits(look.transfer.job_reason)
    await _save_look(tools, transfer, replace(look, transfer=replace(look.transfer, failed_looks=0, reason=reason)))


def _lacks_job(transfer: Transfer) -> bool:
    """Whether the next attempt is to be submitted. A relay's first job is, when its object is whole."""
    if transfer.state is State.RECEIVING and transfer.is_relay:
        return False
    return transfer.job_id is None and transfer.state in {State.QUEUED, State.RECEIVING}


async def look_between_asks(tools: Toolbox, transfer: Transfer) -> None:
    """Look at a transfer with a followed job while its scheduler may not be asked: at what the job and the client did.

    Raises as :func:`look_at_transfer` does.
    """
    if transfer.state is State.RECEIVING:
        await look_at_transfer(tools, transfer, None)
        return
    followed = await follow_by_words(tools, transfer)
    await _save_look(tools, transfer, _next(tools, followed.transfer, followed.message))


async def _save_look(tools: Toolbox, transfer: Transfer, look: Look) -> None:
    after = look.transfer
    is_same = replace(after, failed_looks=transfer.failed_looks, reason=transfer.reason) == transfer
    if is_same and look.message is None and look.next_seconds is not None:
        await tools.transfers.put_off(after, tools.soon(look.next_seconds))
        return
    messages = (look.message,) if look.message else ()
    next_check_at = tools.soon(look.next_seconds) if look.next_seconds is not None else None
    await tools.transfers.save(after, *messages, next_check_at=next_check_at, grant_use=look.grant_use)
    has_moved = after.is_direct and (after.bytes_moved, after.notices) != (transfer.bytes_moved, transfer.notices)
    if after.state is not transfer.state or after.road is not transfer.road or has_moved:
        await wake_relay(tools, after)
    if look.next_seconds == 0.0:
        tools.nudge_worker()


async def _look(tools: Toolbox, transfer: Transfer, report: JobReport | None) -> Look:
    if transfer.relay_of is not None and transfer.state not in {State.PREPARING, State.CANCELLING, *ENDS}:
        ending = await look_at_relay(tools, transfer)
        if ending is not None:
            return Look(ending.transfer, ending.message, 0.0)
        if transfer.state is State.STAGED and _is_over(tools, transfer):
            # The destination's job may be at it; its relay says when it is over.
            return Look(transfer, None, tools.settings.worker.poll_max_seconds)
    if transfer.job_is_on_its_way_out and (transfer.state.is_end or not _is_over(tools, transfer)):
        transfer = await see_job_out(tools, transfer, report)
        if not transfer.job_ended:
            return Look(transfer, None, CLEANING_LOOK_SECONDS)
    if transfer.state.is_end:
        if transfer.cleaned:
            await remove_staged_data(tools, transfer)
            return Look(transfer, None, None)
        if transfer.retry_until is not None:
            return await _keep(tools, transfer, transfer.retry_until)
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
        if transfer.job_id is None:
            return _expired(tools, transfer)
        followed = await follow_job(tools, transfer, report)
        if followed.transfer.state is State.QUEUED and _is_over(tools, followed.transfer):
            return _expired(tools, followed.transfer)
        if followed.next_seconds is not None:
            return Look(followed.transfer, followed.message, followed.next_seconds)
        return _next(tools, await renew_ticket_in_time(tools, followed.transfer), followed.message)
    if transfer.state is State.RECEIVING and transfer.is_relay:
        seen = await look_at_leg(tools, transfer)
        if seen.transfer.state is not State.RECEIVING:
            return Look(seen.transfer, seen.message, 0.0, seen.grant_use)
        return replace(_next(tools, seen.transfer, seen.message), grant_use=seen.grant_use)
    if transfer.state is State.RECEIVING:
        return await _receive(tools, transfer, report)
    if _is_over(tools, transfer):
        return _expired(tools, transfer)
    return _next(tools, transfer, None)


async def _keep(tools: Toolbox, transfer: Transfer, until: datetime) -> Look:
    """A failed transfer waits for its owner's word; what nobody asks for any more is removed."""
    seconds = (until - tools.now()).total_seconds()
    if seconds <= 0:
        # Saved before anything is removed, so that no retry begins meanwhile.
        return Look(replace(transfer, retry_until=None), "Nobody retried it in time; what was kept is removed.", 0.0)
    kept = await keep_for_retry(tools, transfer)
    return Look(transfer, None, CLEANING_LOOK_SECONDS) if kept is None else Look(kept, None, seconds)


def _next(tools: Toolbox, transfer: Transfer, message: str | None) -> Look:
    """Look again when it is time: at once after an end, at the expiry of a staged download, else as things go."""
    worker, now = tools.settings.worker, tools.now()
    if transfer.state.is_end:
        return Look(transfer, message, 0.0)
    if transfer.job_is_on_its_way_out:
        return Look(transfer, message, CLEANING_LOOK_SECONDS)
    if transfer.state is State.STAGED and transfer.direction is Direction.DOWNLOAD and transfer.expires_at:
        return Look(transfer, message, max((transfer.expires_at - now).total_seconds(), worker.poll_min_seconds))
    return Look(transfer, message, next_look_seconds(transfer, now, worker.poll_min_seconds, worker.poll_max_seconds))


def _is_over(tools: Toolbox, transfer: Transfer) -> bool:
    return transfer.expires_at is not None and tools.now() >= transfer.expires_at


def _interrupted(tools: Toolbox, transfer: Transfer) -> Look:
    reason = "The service was interrupted while it prepared the transfer; nothing was moved. Begin it again."
    return Look(advance(transfer, Event.FAILED, tools.now(), code="interrupted", reason=reason), reason, 0.0)


def _expired(tools: Toolbox, transfer: Transfer) -> Look:
    if transfer.state is State.QUEUED:
        reason = "The staging job did not start in time and was taken back; begin the transfer again, perhaps elsewhere."
    elif transfer.direction is Direction.DOWNLOAD:
        reason = "The staged object was kept for its time and is removed now; begin the download again if you need it."
    elif transfer.is_relay:
        reason = "The staged object was kept for its time and is removed now; begin the transfer again."
    else:
        reason = "The upload was not completed in time; its parts are removed. Begin it again."
    return Look(advance(transfer, Event.EXPIRED, tools.now(), code="expired", reason=reason), reason, 0.0)


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
        reason = "The parts put so far are gone from the staging area (aborted or expired there); begin the upload again."
        return Look(advance(transfer, Event.FAILED, now, code="upload_gone", reason=reason), reason, 0.0)
    transfer = replace(transfer, job_missing_since=None)
    staged = sum(part.size_bytes for part in stored)
    if staged != transfer.bytes_staged:
        transfer = replace(transfer, bytes_staged=staged, changed_at=now, updated_at=now)
    if transfer.wait is WaitPolicy.IN_JOB and report is not None:
        transfer = replace(transfer, job_state=report.state[:64], job_reason=report.reason or None)
        if report.phase.is_final:
            reason = f"The staging job ended ({report.state}) before the upload was complete."
            failed = fail(tools, transfer, "job_ended_early", reason)
            return Look(failed, end_line(failed), 0.0)
    look = _next(tools, transfer, None)
    return replace(look, next_seconds=max(look.next_seconds or 0.0, transfer.part_count / PARTS_LISTED_PER_SECOND))
