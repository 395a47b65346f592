"""Stops a transfer on its owner's word: what runs is ended, what arrived is kept, and a retry goes on from there."""

from __future__ import annotations

from dataclasses import replace

from stagecoach.core.access import Caller
from stagecoach.core.errors import Conflict, StaleVersion
from stagecoach.core.relays import require_no_leg
from stagecoach.core.transfer import State, Transfer
from stagecoach.core.trying_again import STOPPED
from stagecoach.flows.fail_transfer import end_line, fail
from stagecoach.flows.follow_leg import Seen, leg_of, look_at_leg
from stagecoach.flows.show_transfers import show_transfer
from stagecoach.flows.toolbox import Toolbox

_WITH_JOB = frozenset({State.QUEUED, State.MOVING})


async def stop_transfer(tools: Toolbox, caller: Caller, transfer_id: str) -> Transfer:
    """``failed`` with the code ``stopped`` and ``retry_until``; of a relay whichever leg is at work is stopped first.

    The job is ended by the worker. Stopping twice is fine.

    Raises:
        TransferNotFound; Conflict: no job of it waits or runs.
    """
    for _ in range(10):
        transfer = await show_transfer(tools, caller, transfer_id)
        require_no_leg(transfer)
        if transfer.state is State.FAILED and transfer.code == STOPPED:
            return transfer
        try:
            seen = await _stopped(tools, transfer, f"Stopped by {caller.username}; a retry goes on from what has arrived.")
            stopped = seen.transfer
            saved = await tools.transfers.save(stopped, end_line(stopped), next_check_at=tools.now(), grant_use=seen.grant_use)
        except StaleVersion:
            continue
        tools.nudge_worker()
        return saved
    raise StaleVersion("The transfer changes all the time; try again.")


async def _stopped(tools: Toolbox, transfer: Transfer, reason: str) -> Seen:
    if transfer.is_direct and transfer.is_relay and transfer.state is State.MOVING:
        words = "All of it has arrived and takes its place at this moment, which is not stopped halfway."
        raise Conflict(words, data={"state": transfer.state.value})
    if transfer.state in _WITH_JOB and transfer.operation is None:
        return Seen(fail(tools, transfer, STOPPED, reason))
    leg = await leg_of(tools, transfer) if transfer.state is State.RECEIVING else None
    if leg is not None and leg.state in _WITH_JOB:
        # Its word first: a relay in front of a leg that works on would be the wrong half of the truth.
        stopped = fail(tools, leg, STOPPED, reason)
        leg = await tools.transfers.save(stopped, end_line(stopped), next_check_at=tools.now())
    if leg is None or leg.state is not State.FAILED or leg.code != STOPPED:
        raise Conflict(
            f"The transfer is {transfer.state}; no job of it waits or runs that could be stopped. It can be cancelled.",
            data={"state": transfer.state.value},
        )
    seen = await look_at_leg(tools, transfer)
    return replace(seen, transfer=replace(seen.transfer, reason=leg.reason))
