"""A relay and its source leg look at each other: the relay at what its leg stages, the leg at whether it is still needed.

Each row is saved alone. Whatever stops this service between two saves, the next look at either of them goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from stagecoach.core.errors import GrantExceeded, NodeNotFound, PathRefused, SizeRefused, StagecoachError, StaleVersion
from stagecoach.core.nodes import GrantUse
from stagecoach.core.relays import last_event, needs_its_leg, with_object_of, with_progress_of
from stagecoach.core.state_machine import Event, advance
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows.choose_system import use_of_measured
from stagecoach.flows.direct_road import close_receiver
from stagecoach.flows.fail_transfer import end_line
from stagecoach.flows.submit_job import job_directory_of
from stagecoach.flows.toolbox import Toolbox

NOT_NEEDED = "Its transfer needs it no more; what it staged is removed."


@dataclass(frozen=True, slots=True)
class Seen:
    """A row after the look, and the line for its story if something happened. ``grant_use`` is to be saved with it."""

    transfer: Transfer
    message: str | None = None
    grant_use: GrantUse | None = None


async def leg_of(tools: Toolbox, transfer: Transfer) -> Transfer | None:
    """The source leg; None where the transfer is no relay, or its leg has been forgotten."""
    return await tools.transfers.get(transfer.source_transfer_id) if transfer.source_transfer_id is not None else None


async def wake_relay(tools: Toolbox, leg: Transfer) -> None:
    """A leg with news has its relay looked at at once. Without it that would happen a little later; any other row has none."""
    if leg.relay_of is not None:
        await tools.transfers.wake(leg.relay_of, tools.now())
        tools.nudge_worker()


async def look_at_leg(tools: Toolbox, transfer: Transfer) -> Seen:
    """One look of a ``receiving`` relay at its leg: ``staged`` or ``failed`` as that is. Saves nothing."""
    leg, now = await leg_of(tools, transfer), tools.now()
    if leg is None:
        reason = "What was to bring the data from its source is gone; begin the transfer again."
        return Seen(advance(transfer, Event.FAILED, now, code="source_leg_gone", reason=reason), reason)
    if leg.is_direct and leg.state is State.STAGED:
        # Nothing is written into the folder while what it holds takes its place.
        await close_receiver(tools, transfer)
    if leg.state is State.STAGED:
        try:
            _require_size(tools, leg, transfer, leg.size_bytes or 0)
            staged, use = await take_over(tools, advance(transfer, Event.COMPLETED, now), leg)
        except (GrantExceeded, NodeNotFound, PathRefused, SizeRefused) as error:
            return _refused(tools, transfer, error)
        if leg.is_direct:
            return Seen(staged, f"The {transfer.what} is on the receiving node, {staged.size_bytes} bytes, compared.", use)
        return Seen(staged, f"The {transfer.what} is in the staging area, {staged.size_bytes} bytes, verified.", use)
    if leg.state.is_end or leg.state is State.CANCELLING:
        reason = f"On its source, {leg.system}: {leg.reason or leg.state.value}"
        if leg.is_direct:
            # What was measured since the last look is not counted yet: the first look of a retry does it, or refuses.
            transfer = replace(with_progress_of(transfer, leg), size_bytes=transfer.size_bytes)
        failed = advance(transfer, Event.FAILED, now, code=leg.code or "source_leg_ended", reason=reason)
        failed = replace(failed, rate_bytes_per_second=0.0, current_file=None)
        # It can go on for as long as its leg can.
        failed = replace(failed, retry_until=leg.retry_until if leg.state is State.FAILED else None)
        return Seen(failed, end_line(failed))
    after, use = with_progress_of(transfer, leg), None
    if (after.size_bytes or 0) > (transfer.size_bytes or 0):
        # As soon as it is known, and what it grows by: at its end it could not be told any more what was counted.
        try:
            _require_size(tools, leg, transfer, after.size_bytes or 0)
            use = await use_of_measured(tools, transfer, (after.size_bytes or 0) - (transfer.size_bytes or 0))
        except (GrantExceeded, NodeNotFound, PathRefused, SizeRefused) as error:
            return _refused(tools, transfer, error)
    if after.road is not transfer.road:
        return Seen(after, f"It goes through the staging area: {after.road_reason}", use)
    has_begun = after.bytes_staged > 0 and not transfer.bytes_staged
    who = f"{leg.system} sends" if leg.is_direct else f"The staging job on {leg.system} sends"
    return Seen(after, f"{who} the {transfer.what}." if has_begun else None, use)


def _require_size(tools: Toolbox, leg: Transfer, transfer: Transfer, size_bytes: int) -> None:
    """Raises SizeRefused: what goes straight has no ticket that would tell its job the limits of both ends."""
    if not leg.is_direct:
        return
    limits = [tools.system(row.system).settings.limits.max_file_size_bytes for row in (leg, transfer)]
    limit = min((each for each in limits if each is not None), default=None)
    if limit is not None and size_bytes > limit:
        raise SizeRefused(f"It has {size_bytes} bytes, and {limit} are allowed.", data={"limit_bytes": limit})


def _refused(tools: Toolbox, transfer: Transfer, error: StagecoachError) -> Seen:
    reason = f"It cannot be brought to its destination: {error.message}"
    return Seen(advance(transfer, Event.FAILED, tools.now(), code=error.code, reason=reason), reason)


async def take_over(tools: Toolbox, transfer: Transfer, leg: Transfer) -> tuple[Transfer, GrantUse | None]:
    """The relay with all that the job of its destination needs of what the leg has staged, and what is to be saved with it.
    Makes and saves nothing.

    Raises NodeNotFound, PathRefused, GrantExceeded: what the source measured may not be brought to somebody's node.
    """
    directory = await job_directory_of(tools.system(transfer.system), transfer.owner, transfer.id)
    more_bytes = (leg.size_bytes or 0) - (transfer.size_bytes or 0)
    use = await use_of_measured(tools, transfer, more_bytes) if more_bytes > 0 else None
    return replace(with_object_of(transfer, leg), job_directory=directory), use


async def look_at_relay(tools: Toolbox, leg: Transfer) -> Seen | None:
    """One look of an open leg at its relay: the leg on its way to its end, or None while it is needed. Saves nothing."""
    relay = await tools.transfers.get(leg.relay_of) if leg.relay_of is not None else None
    if relay is not None and needs_its_leg(relay):
        return None
    event = last_event(relay, leg) if relay is not None else Event.CANCEL_ASKED
    return Seen(advance(leg, event, tools.now()), NOT_NEEDED)


async def end_leg(tools: Toolbox, transfer: Transfer) -> Transfer | None:
    """Have the leg of a relay that is over come to its end as well, and return it as it is now; the worker carries it out.

    Can be repeated. None: there is no leg (any more). Asks nobody but the database; raises StaleVersion when the leg was
    moved at the same moment.
    """
    leg = await leg_of(tools, transfer)
    if leg is None or leg.state is State.CANCELLING:
        return leg
    if not leg.state.is_end:
        ending = advance(leg, last_event(transfer, leg), tools.now())
        return await tools.transfers.save(ending, NOT_NEEDED, next_check_at=tools.now())
    if leg.retry_until is not None:
        return await tools.transfers.save(replace(leg, retry_until=None), NOT_NEEDED, next_check_at=tools.now())
    return leg


async def leg_is_gone(tools: Toolbox, transfer: Transfer) -> bool:
    """Whether nothing of a relay's leg is left outside; has it end first. True where there is none."""
    try:
        leg = await end_leg(tools, transfer)
    except StaleVersion:
        return False
    return leg is None or (leg.state.is_end and leg.cleaned)
