"""Whether one more transfer is within the bounds: asked first of all, before anybody's cluster is."""

from __future__ import annotations

from stagecoach.core.access import Caller
from stagecoach.core.bounds import Bounds, require_place, require_within
from stagecoach.core.errors import RequestUnderWay, StagecoachError, SystemDisabled
from stagecoach.flows.answer_again import RepeatableRequest, find_begun
from stagecoach.flows.toolbox import System, Toolbox

# Somebody has to end it, so asking every few seconds is of no use.
DISABLED_RETRY_SECONDS = 300


def bounds_of(tools: Toolbox, system: System) -> Bounds:
    """As the settings have them."""
    limits, s3 = system.settings.limits, tools.settings.s3
    return Bounds(
        max_open_transfers_per_user=limits.max_open_transfers_per_user,
        max_open_transfers=limits.max_open_transfers,
        max_new_transfers_per_minute_per_user=limits.max_new_transfers_per_minute_per_user,
        max_staged_bytes_per_user=s3.max_staged_bytes_per_user,
        max_staged_bytes=s3.max_staged_bytes,
    )


def require_enabled(system: System) -> None:
    """Raises SystemDisabled, with the administrators' reason."""
    settings = system.settings
    if not settings.enabled:
        reason = settings.disabled_reason or "No reason is given."
        raise SystemDisabled(
            f"{settings.name} takes no new transfers now: {reason}",
            data={"reason": reason, "retry_after_seconds": DISABLED_RETRY_SECONDS},
        )


async def check_bounds(
    tools: Toolbox, caller: Caller, system: System, size_bytes: int | None, repeatable: RepeatableRequest | None
) -> None:
    """A first look, so that who has too much is told at once. The row's insertion looks again, under a lock.

    Raises:
        as :func:`stagecoach.core.bounds.require_within`; SystemDisabled;
        SystemUnavailable: the scheduler did not answer others just now.
        RequestUnderWay: there is no place because the same request took it a moment ago.
    """
    require_enabled(system)
    bounds, name, now = bounds_of(tools, system), system.settings.name, tools.now()
    usage = await tools.transfers.usage(caller.username, name, bounds, now)
    try:
        require_within(bounds, usage, name, size_bytes, now)
    except StagecoachError:
        if await find_begun(tools, caller, repeatable) is not None:
            raise RequestUnderWay("The same request came at the same time; ask again in a moment.") from None
        raise
    system.scheduler.require_answering(caller.username)


async def check_place(tools: Toolbox, owner: str, system: System) -> None:
    """Whether one of ``owner``'s transfers that have ended may be opened again; what is staged of it counts already.

    A first look, so that the store is not asked in vain. Saving the row looks again, under a lock.

    Raises:
        TooManyTransfers: too many are open. SystemDisabled.
    """
    require_enabled(system)
    bounds, name = bounds_of(tools, system), system.settings.name
    require_place(bounds, await tools.transfers.usage(owner, name, bounds, tools.now()), name)
