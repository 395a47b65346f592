"""Counts what users have under way: read for a first answer, and under a lock for the one that counts."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import and_, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from stagecoach.core.bounds import RECENT_SECONDS, Bounds, Usage
from stagecoach.core.names import new_transfer_id
from stagecoach.core.transfer import ENDS, Direction, Road, State
from stagecoach.database.tables import transfers


async def read_usage(connection: AsyncConnection, owner: str, system: str, bounds: Bounds, now: datetime) -> Usage:
    """What counts against ``bounds``.

    Open is what has not ended and is not just waiting to be fetched. In the staging area may be the data of every
    transfer that is not cleaned: all of an upload, from its announcement on; of a directory what was measured so far.
    """
    mine = transfers.c.owner == owner
    is_open = and_(
        transfers.c.system == system,
        transfers.c.state.not_in([state.value for state in ENDS]),
        or_(transfers.c.direction == Direction.UPLOAD.value, transfers.c.state != State.STAGED.value),
    )
    moved, staged = transfers.c.bytes_moved, transfers.c.bytes_staged
    known = func.coalesce(transfers.c.size_bytes, case((moved > staged, moved), else_=staged))
    # A relay's object is its source leg's, and counts once.
    is_of_others = or_(
        transfers.c.direction == Direction.WITHIN.value,
        transfers.c.source_transfer_id.is_not(None),
        transfers.c.road == Road.DIRECT.value,
    )
    size = case((is_of_others, 0), else_=known)
    counted = select(
        func.count().filter(and_(is_open, mine)),
        func.count().filter(is_open),
        func.coalesce(func.sum(size).filter(mine), 0),
        func.coalesce(func.sum(size), 0),
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
