"""Has a failed transfer go on, on its owner's word, from what is staged. The worker submits the job that this needs."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from stagecoach.core import names
from stagecoach.core.access import Caller
from stagecoach.core.errors import Conflict, StaleVersion, Unavailable
from stagecoach.core.state_machine import Event, advance
from stagecoach.core.transfer import Direction, State, Transfer, WaitPolicy
from stagecoach.core.trying_again import next_attempt
from stagecoach.flows.check_bounds import bounds_of, check_place
from stagecoach.flows.fail_transfer import parts_end
from stagecoach.flows.keep_failed import is_settled
from stagecoach.flows.show_transfers import show_transfer
from stagecoach.flows.toolbox import Toolbox

# What the failure left is being tidied up at first; the request waits for that as long.
SETTLING_SECONDS = 10
LOOK_SECONDS = 0.3


async def retry_transfer(tools: Toolbox, caller: Caller, transfer_id: str) -> Transfer:
    """``staged`` (an upload that is whole), ``receiving`` (one whose parts were still being put) or ``queued`` (a download, or an
    operation).

    Nothing is made outside: the row says what is to be done, and whatever stops this process, the worker does it.

    Raises:
        TransferNotFound, SystemNotFound; Conflict: it has not failed, or nothing of it is left to go on from.
        TooManyTransfers: its owner, or its system, has as many open as are allowed.
        Unavailable: what the failure left has not been tidied up yet; ask again.
    """
    clock = asyncio.get_running_loop()
    deadline = clock.time() + SETTLING_SECONDS
    while True:
        transfer = await show_transfer(tools, caller, transfer_id)
        _require_kept(tools, transfer)
        system = tools.system(transfer.system)
        await check_place(tools, transfer.owner, system)
        try:
            if is_settled(transfer):
                again, message = await _resumed(tools, transfer)
                saved = await tools.transfers.save(
                    again,
                    f"Retried by {caller.username}: {message}",
                    next_check_at=tools.now(),
                    reopened_within=bounds_of(tools, system),
                )
                tools.nudge_worker()
                return saved
            if transfer.next_check_at is None or transfer.next_check_at > tools.soon(1):
                # It could not be tidied up before (a permission was missing, say): now is the time to try again.
                await tools.transfers.save(transfer, next_check_at=tools.now())
        except StaleVersion:
            pass
        tools.nudge_worker()
        if clock.time() >= deadline:
            raise Unavailable("What is left of the failed job is still being taken away; try again in a moment.")
        await asyncio.sleep(LOOK_SECONDS)


def _require_kept(tools: Toolbox, transfer: Transfer) -> None:
    data = {"state": transfer.state.value}
    if transfer.state is not State.FAILED:
        raise Conflict(f"The transfer is {transfer.state}; only a failed one can be retried.", data=data)
    if transfer.retry_until is None or transfer.retry_until <= tools.now():
        raise Conflict("Nothing is kept of this transfer that it could go on from; begin a new transfer.", data=data)


async def _resumed(tools: Toolbox, transfer: Transfer) -> tuple[Transfer, str]:
    """The transfer where it goes on, and the words for its story. Looks at the store; raises Conflict."""
    now, key = tools.now(), names.object_key(transfer.id)
    if transfer.operation is not None:
        return _anew(advance(transfer, Event.RETRY_ASKED, now)), "another job does what is left of it."
    limits = tools.system(transfer.system).settings.limits
    found = await tools.store.head_object(transfer.bucket, key)
    stored = None if found else await tools.store.list_parts(transfer.bucket, key, transfer.upload_id or "")
    if found is None and stored is None:
        raise Conflict("The store no longer has what was staged; begin a new transfer.", data={"state": transfer.state.value})
    if transfer.direction is Direction.DOWNLOAD:
        return _anew(advance(transfer, Event.RETRY_ASKED, now)), "another job will go on sending."
    if found is not None:
        if found.size_bytes != transfer.size_bytes:
            raise Conflict(
                f"The staged object has {found.size_bytes} bytes where {transfer.size_bytes} were announced; "
                "begin a new transfer.",
                data={"state": transfer.state.value},
            )
        staged = _anew(advance(transfer, Event.RETRY_ASKED, now))
        if transfer.object_etag is None:
            etag = found.etag.strip('"') or None
            life = tools.soon(tools.settings.s3.object_life_seconds)
            staged = replace(staged, object_etag=etag, bytes_staged=found.size_bytes, expires_at=life)
        return staged, "the staged object is brought to the cluster again."
    seconds = limits.upload_seconds if transfer.wait is WaitPolicy.HELD else limits.wait_in_job_seconds
    expires_at = min(tools.soon(seconds), parts_end(tools, transfer))
    reopened = replace(_anew(advance(transfer, Event.REOPENED, now)), expires_at=expires_at)
    return reopened, f"{len(stored or [])} of {transfer.part_count} parts are there; the others can be put."


def _anew(transfer: Transfer) -> Transfer:
    return replace(next_attempt(transfer), resubmissions=0, retry_until=None, cleaned=False)
