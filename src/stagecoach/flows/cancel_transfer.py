"""Cancels a transfer in whatever state it is, and leaves nothing of it.

The promise is written first (``cancelling``); carrying it out is tried at once and finished by the worker if need be.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import datetime

from stagecoach.core.access import Caller
from stagecoach.core.errors import Conflict, StagecoachError, StaleVersion
from stagecoach.core.operations import Operation
from stagecoach.core.relays import require_no_leg
from stagecoach.core.state_machine import Event, advance
from stagecoach.core.transfer import Direction, State, Transfer
from stagecoach.flows.clean_up import clean_up, clean_up_now, end_job, remove_leftovers, seconds_until_last_look
from stagecoach.flows.follow_leg import NOT_NEEDED, end_leg
from stagecoach.flows.job_words import job_receipt
from stagecoach.flows.show_transfers import show_transfer
from stagecoach.flows.toolbox import Toolbox

log = logging.getLogger(__name__)

# The request carries the cancellation out for this long; the worker takes it up afterwards.
INLINE_SECONDS = 10
LOOK_SECONDS = 0.3


async def cancel_transfer(tools: Toolbox, caller: Caller, transfer_id: str) -> Transfer:
    """Returns the transfer, ``cancelled`` or still ``cancelling`` (or ``done``, when the file had already arrived).

    Of a failed one that is kept for a retry, what is kept is dropped; it stays ``failed``.

    Raises:
        TransferNotFound, Conflict (it has ended otherwise)
    """
    transfer = await _promise(tools, caller, transfer_id)
    if transfer.state is State.FAILED:
        return await clean_up_now(tools, transfer)
    if transfer.state is not State.CANCELLING:
        return transfer
    try:
        async with asyncio.timeout(INLINE_SECONDS):
            pause = LOOK_SECONDS
            while transfer.state is State.CANCELLING:
                transfer = await carry_out_cancel(tools, transfer)
                if transfer.state is State.CANCELLING:
                    await asyncio.sleep(pause)
                    pause *= 2
            return await tools.transfers.save(transfer, end_message(transfer), next_check_at=next_look(tools, transfer))
    except TimeoutError:
        log.info("transfer %s: the worker will finish cancelling", transfer_id)
    except StagecoachError as error:
        log.warning("transfer %s: the worker will finish cancelling: %s", transfer_id, error.message)
    return await show_transfer(tools, caller, transfer_id)


async def _promise(tools: Toolbox, caller: Caller, transfer_id: str) -> Transfer:
    for _ in range(10):
        transfer = await show_transfer(tools, caller, transfer_id)
        require_no_leg(transfer)
        if transfer.state in {State.CANCELLED, State.CANCELLING}:
            return transfer
        if transfer.retry_until is not None and transfer.state is State.FAILED:
            dropped = replace(transfer, retry_until=None)
            try:
                message = f"Given up by {caller.username}; what was kept is removed."
                return await tools.transfers.save(dropped, message, next_check_at=tools.soon(INLINE_SECONDS))
            except StaleVersion:
                continue
        if transfer.state.is_end:
            raise Conflict(
                f"The transfer has already ended ({transfer.state}); there is nothing to cancel.",
                data={"state": transfer.state.value},
            )
        cancelling = advance(transfer, Event.CANCEL_ASKED, tools.now())
        cancelling = replace(cancelling, rate_bytes_per_second=0.0, current_file=None)
        try:
            return await tools.transfers.save(
                cancelling, f"Cancelled by {caller.username}.", next_check_at=tools.soon(INLINE_SECONDS)
            )
        except StaleVersion:
            continue
    raise StaleVersion("The transfer changes all the time; try again.")


async def carry_out_cancel(tools: Toolbox, transfer: Transfer) -> Transfer:
    """One attempt; returns the transfer ``cancelled`` (nothing left), ``done``, or ``cancelling`` still. Saves nothing."""
    if not await end_job(tools, transfer):
        return transfer
    if transfer.direction is not Direction.DOWNLOAD and transfer.submission_tried:
        receipt = await job_receipt(tools, transfer, ended=False)
        if receipt is not None and receipt.ok:
            reason = f"The {transfer.what} had arrived before it could be cancelled."
            if transfer.operation is not None:
                reason = "It had been done before it could be cancelled."
                transfer = replace(transfer, size_bytes=receipt.size_bytes, file_count=receipt.files, files_moved=receipt.files)
            done = advance(transfer, Event.CANCEL_TOO_LATE, tools.now(), reason=reason)
            return replace(done, bytes_moved=receipt.size_bytes, proved=receipt.proved)
    cleaned = await remove_leftovers(tools, transfer)
    if transfer.is_relay and not cleaned.cleaned:
        await _carry_out_for_leg(tools, transfer)
        cleaned = await remove_leftovers(tools, transfer)
    if not cleaned.cleaned:
        return transfer
    reason = "Cancelled on request." if transfer.relay_of is None else NOT_NEEDED
    return advance(cleaned, Event.CANCEL_DONE, tools.now(), reason=reason)


async def _carry_out_for_leg(tools: Toolbox, relay: Transfer) -> None:
    """One attempt to end the source leg now; the worker goes on with it else. Saves the leg."""
    try:
        leg = await end_leg(tools, relay)
        if leg is None or (leg.state.is_end and leg.cleaned):
            return
        after = await (carry_out_cancel if leg.state is State.CANCELLING else clean_up)(tools, leg)
        if after.state.is_end and after.cleaned:
            messages = [end_message(after)] if leg.state is State.CANCELLING else []
            await tools.transfers.save(after, *messages, next_check_at=None)
    except StaleVersion:
        log.info("transfer %s: another process ends its source leg", relay.id)


def end_message(transfer: Transfer) -> str:
    """The line of the story for a carried-out cancellation."""
    if transfer.state is State.CANCELLED and transfer.operation is Operation.REMOVE:
        return "The job has ended; what it had not removed yet stays."
    if transfer.state is State.CANCELLED:
        return "Nothing is left: no job, no multipart upload, no object, no temporary file."
    return transfer.reason or transfer.state.value


def next_look(tools: Toolbox, transfer: Transfer) -> datetime | None:
    """At once until all is clean; then perhaps one last time."""
    if not transfer.cleaned:
        return tools.now()
    seconds = seconds_until_last_look(transfer)
    return None if seconds is None else tools.soon(seconds)
