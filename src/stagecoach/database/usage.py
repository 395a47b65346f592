"""Counts what users have under way: read for a first answer, and under a lock for the one that counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from stagecoach.core.bounds import RECENT_SECONDS, Bounds, Usage
from stagecoach.core.names import new_transfer_id
from stagecoach.core.transfer import ENDS, Direction, Road, State
from stagecoach.database.tables import transfers

_IS_OPEN = and_(
    transfers.c.state.not_in([state.value for state in ENDS]),
    or_(transfers.c.direction == Direction.UPLOAD.value, transfers.c.state != State.STAGED.value),
)
_MOVED, _ARRIVED = transfers.c.bytes_moved, transfers.c.bytes_staged
# A relay's object is its source leg's, and counts once.
_IS_OF_OTHERS = or_(
    transfers.c.direction == Direction.WITHIN.value,
    transfers.c.source_transfer_id.is_not(None),
    transfers.c.road == Road.DIRECT.value,
)
_STAGED = case((_IS_OF_OTHERS, 0), else_=func.coalesce(transfers.c.size_bytes, case((_MOVED > _ARRIVED, _MOVED), else_=_ARRIVED)))


@dataclass(frozen=True, slots=True)
class UserUsage:
    """What one user has under way: how many transfers on which system, and bytes that count as staged."""

    user: str
    staged_bytes: int
    open_transfers: Mapping[str, int]


async def read_usage(connection: AsyncConnection, owner: str, system: str, bounds: Bounds, now: datetime) -> Usage:
    """What counts against ``bounds``.

    Open is what has not ended and is not just waiting to be fetched. In the staging area may be the data of every
    transfer that is not cleaned: all of an upload, from its announcement on; of a directory what was measured so far.
    """
    mine = transfers.c.owner == owner
    is_open = and_(transfers.c.system == system, _IS_OPEN)
    counted = select(
        func.count().filter(and_(is_open, mine)),
        func.count().filter(is_open),
        func.coalesce(func.sum(_STAGED).filter(mine), 0),
        func.coalesce(func.sum(_STAGED), 0),
    ).where(transfers.c.cleaned.is_(False))
    row = (await connection.execute(counted)).one()
    most = bounds.max_new_transfers_per_minute_per_user
    since = now - timedelta(seconds=RECENT_SECONDS)
    # Ids are in the order of time, and there is an index on them.
    first_id = new_transfer_id(since.timestamp(), lambda _bits: 0)
    recent = (
        select(transfers.c.created_at)
        .where(mine, transfers.c.system == system, transfers.c.id >= first_id)
        .order_by(transfers.c.id.desc())
        .offset(most - 1)
        .limit(1)
    )
    full_minute_since = (await connection.execute(recent)).scalar_one_or_none()
    return Usage(int(row[0]), int(row[1]), full_minute_since, int(row[2]), int(row[3]))


async def read_usage_of_users(connection: AsyncConnection, limit: int) -> list[UserUsage]:
    """Of at most ``limit`` users who have anything under way, who has most in the staging area first. The same counts as
    :func:`read_usage`."""
    staged = func.coalesce(func.sum(_STAGED), 0)
    most = (
        select(transfers.c.owner, staged)
        .where(transfers.c.cleaned.is_(False))
        .group_by(transfers.c.owner)
        .having(or_(staged > 0, func.count().filter(_IS_OPEN) > 0))
        .order_by(staged.desc(), transfers.c.owner)
        .limit(limit)
    )
    users = {owner: int(size) for owner, size in (await connection.execute(most)).all()}
    counted = (
        select(transfers.c.owner, transfers.c.system, func.count())
        .where(transfers.c.cleaned.is_(False), _IS_OPEN, transfers.c.owner.in_(list(users)))
        .group_by(transfers.c.owner, transfers.c.system)
        .order_by(transfers.c.system)
    )
    systems: dict[str, dict[str, int]] = {user: {} for user in users}
    for owner, system, count in (await connection.execute(counted)).all():
        systems[owner][system] = int(count)
    return [UserUsage(user, size, systems[user]) for user, size in users.items()]
