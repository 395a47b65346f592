"""What an audit asks of the database, and the few repairs of rows; the removal of rows that are old enough.

Rows come without ``part_digests``: to be judged, not to be saved.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, case, delete, exists, func, insert, not_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from stagecoach.core.operations import Operation, OperationOptions
from stagecoach.core.transfer import ENDS, Direction, Transfer, hidden_path
from stagecoach.database.engine import reading, writing
from stagecoach.database.tables import buckets, transfer_history, transfers
from stagecoach.database.transfers import SHOWN, from_row
from stagecoach.database.usage import UserUsage, read_usage_of_users

_IDS_AT_ONCE = 500
_IS_OVER = and_(transfers.c.state.in_([state.value for state in ENDS]), transfers.c.cleaned)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the job of an ended upload or operation had its hidden file."""

    transfer_id: str
    system: str
    owner: str
    hidden_path: str


class Inventory:
    """All tables, read across."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def open_rows(self) -> list[Transfer]:
        """Every transfer that may still have something outside, or that a worker will look at again."""
        query = select(*SHOWN).where(or_(not_(_IS_OVER), transfers.c.next_check_at.is_not(None))).order_by(transfers.c.id)
        async with reading(self._engine) as connection:
            return [from_row(row) for row in (await connection.execute(query)).mappings()]

    async def load(self) -> Mapping[str, tuple[int, int]]:
        """By system: how many transfers have not ended, and bytes of all those that may be in the staging area."""
        moved, staged = transfers.c.bytes_moved, transfers.c.bytes_staged
        known = func.coalesce(transfers.c.size_bytes, case((moved > staged, moved), else_=staged))
        # A relay's object is counted where its source leg is.
        is_of_others = or_(transfers.c.direction == Direction.WITHIN.value, transfers.c.source_transfer_id.is_not(None))
        size = case((is_of_others, 0), else_=known)
        is_open = transfers.c.state.not_in([state.value for state in ENDS])
        query = (
            select(transfers.c.system, func.count().filter(is_open), func.sum(size))
            .where(transfers.c.cleaned.is_(False))
            .group_by(transfers.c.system)
        )
        async with reading(self._engine) as connection:
            return {system: (int(count), int(size)) for system, count, size in (await connection.execute(query)).all()}

    async def usage_of_users(self, limit: int) -> list[UserUsage]:
        """What counts against their bounds, of those who have most in the staging area."""
        async with reading(self._engine) as connection:
            return await read_usage_of_users(connection, limit)

    async def rows(self, transfer_ids: Collection[str]) -> Mapping[str, Transfer]:
        """As they are now, by id; those that do not exist are missing."""
        wanted = sorted(set(transfer_ids))
        found: dict[str, Transfer] = {}
        async with reading(self._engine) as connection:
            for start in range(0, len(wanted), _IDS_AT_ONCE):
                query = select(*SHOWN).where(transfers.c.id.in_(wanted[start : start + _IDS_AT_ONCE]))
                found |= {row["id"]: from_row(row) for row in (await connection.execute(query)).mappings()}
        return found

    async def owners(self) -> list[tuple[str, str]]:
        """(system, user) of all transfers."""
        query = select(transfers.c.system, transfers.c.owner).distinct().order_by(transfers.c.system, transfers.c.owner)
        async with reading(self._engine) as connection:
            return [(system, owner) for system, owner in (await connection.execute(query)).all()]

    async def targets(self, since: datetime) -> list[Target]:
        """Of the uploads, and of the operations that make something, that were over and have changed ``since``."""
        columns = (transfers.c.id, transfers.c.system, transfers.c.owner, transfers.c.real_path, transfers.c.operation_options)
        makes_nothing = or_(
            transfers.c.direction == Direction.DOWNLOAD.value,
            func.coalesce(transfers.c.operation, "") == Operation.REMOVE.value,
        )
        query = select(*columns).where(_IS_OVER, not_(makes_nothing), transfers.c.updated_at >= since)
        async with reading(self._engine) as connection:
            rows = (await connection.execute(query)).all()
        return [
            Target(*row[:3], hidden_path(row[0], row[3], OperationOptions.of_document(row[4]) if row[4] else None))
            for row in rows
        ]

    async def without_history(self) -> list[Transfer]:
        """Rows that have no story, a thousand at most."""
        told = exists().where(transfer_history.c.transfer_id == transfers.c.id)
        query = select(*SHOWN).where(not_(told)).order_by(transfers.c.id).limit(1000)
        async with reading(self._engine) as connection:
            return [from_row(row) for row in (await connection.execute(query)).mappings()]

    async def buckets(self) -> dict[str, str]:
        """The owner of each bucket by its name."""
        async with reading(self._engine) as connection:
            return {row.name: row.owner for row in (await connection.execute(select(buckets.c.name, buckets.c.owner))).all()}

    async def wake(self, transfer: Transfer, now: datetime) -> None:
        """A worker looks at it at once; nothing happens when the row has moved on."""
        async with writing(self._engine) as connection:
            await connection.execute(
                update(transfers)
                .where(transfers.c.id == transfer.id, transfers.c.version == transfer.version)
                .values(next_check_at=now, lease_owner=None, lease_until=None)
            )

    async def tell(self, transfer: Transfer, message: str, now: datetime) -> None:
        """One line for the story."""
        line = {"transfer_id": transfer.id, "at": now, "state": transfer.state.value, "message": message}
        async with writing(self._engine) as connection:
            await connection.execute(insert(transfer_history).values(**line))

    async def forget_bucket(self, name: str) -> None:
        """It is made again when it is needed."""
        async with writing(self._engine) as connection:
            await connection.execute(delete(buckets).where(buckets.c.name == name))

    async def forget_ended(self, before: datetime, limit: int) -> int:
        """Remove at most ``limit`` rows that were over ``before``, with their stories. Returns how many.

        The source leg of a relay stays until the relay has gone.
        """
        relay = transfers.alias()
        is_of_relay = exists().where(relay.c.id == transfers.c.relay_of)
        old = (
            select(transfers.c.id)
            .where(_IS_OVER, transfers.c.next_check_at.is_(None), transfers.c.updated_at < before, not_(is_of_relay))
            .order_by(transfers.c.id)
            .limit(limit)
        )
        async with writing(self._engine) as connection:
            ids = list((await connection.execute(old)).scalars())
            if ids:
                await connection.execute(delete(transfers).where(transfers.c.id.in_(ids)))
        return len(ids)
