"""Has a failed transfer go on, on its owner's word, from what is staged. The worker submits the job that this needs."""

from __future__ import annotations

import asyncio

from stagecoach.core.access import Caller
from stagecoach.core.errors import Conflict, StaleVersion, Unavailable
from stagecoach.core.relays import require_no_leg
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows.check_bounds import bounds_of, check_place
from stagecoach.flows.choose_system import require_grant
from stagecoach.flows.resume_transfer import resume_transfer, unsettled
from stagecoach.flows.show_transfers import show_transfer
from stagecoach.flows.toolbox import Toolbox

# What the failure left is being tidied up at first; the request waits for that as long.
SETTLING_SECONDS = 10
LOOK_SECONDS = 0.3


async def retry_transfer(tools: Toolbox, caller: Caller, transfer_id: str) -> Transfer:
    """``staged`` (an upload that is whole), ``receiving`` (one whose parts were still being put, or a relay whose source leg
    goes on) or ``queued`` (a download, or an operation).

    Nothing is made outside: the row says what is to be done, and whatever stops this process, the worker does it.

    Raises:
        TransferNotFound, SystemNotFound; NodeNotFound, PathRefused: the right to send there is gone.
        Conflict: it has not failed, or nothing of it is left to go on from.
        TooManyTransfers: its owner, or its system, has as many open as are allowed.
        Unavailable: what the failure left has not been tidied up yet; ask again.
    """
    clock = asyncio.get_running_loop()
    deadline = clock.time() + SETTLING_SECONDS
    while True:
        transfer = await show_transfer(tools, caller, transfer_id)
        require_no_leg(transfer)
        _require_kept(tools, transfer)
        system = tools.system(transfer.system)
        await check_place(tools, transfer.owner, system)
        if transfer.is_relay:
            await require_grant(tools, transfer)
        try:
            waits_for = await unsettled(tools, transfer)
            if waits_for is None:
                resumed = await resume_transfer(tools, transfer)
                saved = await tools.transfers.save(
                    resumed.transfer,
                    f"Retried by {caller.username}: {resumed.message}",
                    next_check_at=tools.now(),
                    reopened_within=bounds_of(tools, system),
                    grant_use=resumed.grant_use,
                )
                tools.nudge_worker()
                return saved
            if waits_for.next_check_at is None or waits_for.next_check_at > tools.soon(1):
                # It could not be tidied up before (a permission was missing, say): now is the time to try again.
                await tools.transfers.save(waits_for, next_check_at=tools.now())
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
