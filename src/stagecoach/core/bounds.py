"""How much one user, and all users together, may have under way; and what is said to those who want more. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from stagecoach.core.errors import QuotaReached, SizeRefused, StagingFull, TooManyRequests, TooManyTransfers

RECENT_SECONDS = 60
# When a place among many may become free, nobody knows; this is how often it is worth asking.
ASK_AGAIN_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Bounds:
    """The settings' bounds for one system. None: unbounded."""

    max_open_transfers_per_user: int
    max_open_transfers: int
    max_new_transfers_per_minute_per_user: int
    max_staged_bytes_per_user: int | None = None
    max_staged_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What is under way: transfers on one system, bytes in the whole staging area.

    ``full_minute_since`` is when the oldest of the user's latest ``max_new_transfers_per_minute_per_user`` transfers
    began, if there are so many.
    """

    open_of_user: int
    open_of_system: int
    full_minute_since: datetime | None
    staged_of_user_bytes: int
    staged_bytes: int


def require_within(bounds: Bounds, usage: Usage, system: str, size_bytes: int | None, now: datetime) -> None:
    """One more transfer, of ``size_bytes`` (None: nobody knows yet), is within the bounds.

    Raises:
        TooManyRequests, TooManyTransfers, SizeRefused, QuotaReached, StagingFull: with the limit and what is used of it.
    """
    _require_pause(bounds, usage, now)
    require_place(bounds, usage, system)
    _require_staging_room(bounds, usage, size_bytes)


def require_place(bounds: Bounds, usage: Usage, system: str) -> None:
    """One more open transfer is within the bounds, whose data is in the staging area already or counted otherwise.

    Raises:
        TooManyTransfers: with the limit and what is used of it.
    """
    if usage.open_of_user >= bounds.max_open_transfers_per_user:
        limit = bounds.max_open_transfers_per_user
        raise TooManyTransfers(
            f"You have {usage.open_of_user} transfers under way on {system}, and {limit} is its limit for one user; "
            "wait until some are done, or finish or cancel some.",
            data={"limit": limit, "used": usage.open_of_user, "retry_after_seconds": ASK_AGAIN_SECONDS},
        )
    if usage.open_of_system >= bounds.max_open_transfers:
        limit = bounds.max_open_transfers
        raise TooManyTransfers(
            f"{system} has {usage.open_of_system} transfers of all users under way, and {limit} is its limit; try again later.",
            data={"limit": limit, "used": usage.open_of_system, "retry_after_seconds": ASK_AGAIN_SECONDS},
        )


def _require_pause(bounds: Bounds, usage: Usage, now: datetime) -> None:
    if usage.full_minute_since is None:
        return
    left = usage.full_minute_since + timedelta(seconds=RECENT_SECONDS) - now
    if left <= timedelta(0):
        return
    limit, seconds = bounds.max_new_transfers_per_minute_per_user, max(1, math.ceil(left.total_seconds()))
    raise TooManyRequests(
        f"You began {limit} transfers in the last minute, which is this system's limit; begin the next in {seconds} s.",
        data={"limit_per_minute": limit, "retry_after_seconds": seconds},
    )


def _require_staging_room(bounds: Bounds, usage: Usage, size_bytes: int | None) -> None:
    quota, most = bounds.max_staged_bytes_per_user, bounds.max_staged_bytes
    least = min((limit for limit in (quota, most) if limit is not None), default=None)
    if least is not None and size_bytes is not None and size_bytes > least:
        raise SizeRefused(
            f"The {size_bytes} bytes never fit in the staging area, where you may have {least} bytes; send less at once.",
            data={"limit_bytes": least},
        )
    # Of unknown size: at least a byte must be free.
    wanted = 1 if size_bytes is None else size_bytes
    if quota is not None and usage.staged_of_user_bytes + wanted > quota:
        raise QuotaReached(
            f"Your transfers have {usage.staged_of_user_bytes} of the {quota} bytes in the staging area that one user may "
            f"have, and this one {_size(size_bytes)}; wait until some are done, fetch what is staged, or cancel some.",
            data={"limit_bytes": quota, "used_bytes": usage.staged_of_user_bytes, "requested_bytes": size_bytes},
        )
    if most is not None and usage.staged_bytes + wanted > most:
        raise StagingFull(
            f"The staging area has room for {max(0, most - usage.staged_bytes)} more bytes, and this transfer "
            f"{_size(size_bytes)}; others will end, so try again later.",
            data={
                "limit_bytes": most,
                "used_bytes": usage.staged_bytes,
                "requested_bytes": size_bytes,
                "retry_after_seconds": ASK_AGAIN_SECONDS,
            },
        )


def _size(size_bytes: int | None) -> str:
    return "is of unknown size" if size_bytes is None else f"has {size_bytes}"
