"""Changes how fast a transfer from node to node may go, also while it goes. Its sender hears of it with its next report."""

from __future__ import annotations

from dataclasses import replace

from stagecoach.core.access import Caller
from stagecoach.core.errors import Conflict, StaleVersion
from stagecoach.core.relays import require_no_leg
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows.follow_leg import leg_of
from stagecoach.flows.show_transfers import show_own_transfer
from stagecoach.flows.toolbox import Toolbox


async def change_rate(tools: Toolbox, caller: Caller, transfer_id: str, bytes_per_second: int | None) -> Transfer:
    """The transfer with its new cap, which holds for a retry too; ``bytes_per_second`` None: it has none any more.

    The leg is saved first: by it the sender goes, and the transfer follows it whatever stops this process.

    Raises:
        TransferNotFound; PermissionRefused: it is somebody else's. Conflict: it does not go straight, or has all been sent.
    """
    for _ in range(10):
        transfer = await show_own_transfer(tools, caller, transfer_id)
        require_no_leg(transfer)
        leg = await leg_of(tools, transfer)
        if not transfer.is_direct or leg is None or not leg.is_direct:
            raise Conflict(
                "Only what goes straight from node to node has a rate that can be changed, and this does not.",
                data=_state(transfer),
            )
        can_be_retried = transfer.state is State.FAILED and transfer.retry_until is not None and leg.state is not State.STAGED
        if transfer.state is not State.RECEIVING and not can_be_retried:
            raise Conflict(f"The transfer is {transfer.state}: nothing of it is to be sent any more.", data=_state(transfer))
        try:
            if leg.rate_limit_bytes_per_second != bytes_per_second:
                await _save(tools, leg, bytes_per_second)
            if transfer.rate_limit_bytes_per_second != bytes_per_second:
                transfer = await _save(tools, transfer, bytes_per_second)
        except StaleVersion:
            continue
        return transfer
    raise StaleVersion("The transfer changes all the time; try again.")


async def _save(tools: Toolbox, row: Transfer, bytes_per_second: int | None) -> Transfer:
    words = "without a bound" if bytes_per_second is None else f"at {bytes_per_second} bytes a second at most"
    changed = replace(row, rate_limit_bytes_per_second=bytes_per_second, updated_at=tools.now())
    return await tools.transfers.save(changed, f"It goes {words} from now on.", next_check_at=tools.now())


def _state(transfer: Transfer) -> dict[str, object]:
    return {"state": transfer.state.value}
