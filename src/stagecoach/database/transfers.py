"""What is asked of the transfers table: find, list, save with the version checked, take what is due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping, and_, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from stagecoach.core.errors import StaleVersion
from stagecoach.core.transfer import ENDS, Direction, HistoryEntry, State, Transfer, TransferFilter, WaitPolicy
from stagecoach.database.engine import is_alive, reading, writing
from stagecoach.database.tables import transfer_history, transfers

_COLUMNS = {field.name for field in fields(Transfer)}


class Transfers:
    """The transfers table behind plain methods."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, transfer: Transfer, message: str) -> None:
        """Insert a new row and the first line of its story."""
        async with writing(self._engine) as connection:
            await connection.execute(insert(transfers).values(**_to_row(transfer)))
            await connection.execute(insert(transfer_history).values(**_story(transfer, message)))

    async def get(self, transfer_id: str) -> Transfer | None:
        """The row, or None."""
        async with reading(self._engine) as connection:
            result = await connection.execute(select(transfers).where(transfers.c.id == transfer_id))
            row = result.mappings().first()
        return _from_row(row) if row else None

    async def find_by_job(self, system: str, job_id: str) -> list[Transfer]:
        """Newest first, because schedulers use job ids again."""
        query = (
            select(transfers)
            .where(transfers.c.system == system, transfers.c.job_id == job_id)
            .order_by(transfers.c.id.desc())
            .limit(10)
        )
        async with reading(self._engine) as connection:
            return [_from_row(row) for row in (await connection.execute(query)).mappings()]

    async def history(self, transfer_id: str) -> list[HistoryEntry]:
        """Oldest first."""
        query = select(transfer_history).where(transfer_history.c.transfer_id == transfer_id).order_by(transfer_history.c.number)
        async with reading(self._engine) as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [HistoryEntry(row["at"], State(row["state"]), row["message"]) for row in rows]

    async def page(self, wanted: TransferFilter) -> Sequence[Transfer]:
        """Newest first, at most ``wanted.limit``."""
        query = select(transfers).order_by(transfers.c.id.desc()).limit(wanted.limit)
        if wanted.owner is not None:
            query = query.where(transfers.c.owner == wanted.owner)
        if wanted.system is not None:
            query = query.where(transfers.c.system == wanted.system)
        if wanted.direction is not None:
            query = query.where(transfers.c.direction == wanted.direction.value)
        if wanted.states:
            query = query.where(transfers.c.state.in_([state.value for state in wanted.states]))
        if wanted.before_id is not None:
            query = query.where(transfers.c.id < wanted.before_id)
        async with reading(self._engine) as connection:
            return [_from_row(row) for row in (await connection.execute(query)).mappings()]

    async def count_open(self, owner: str, system: str) -> int:
        """Transfers of ``owner`` on ``system`` that have not ended and are not just waiting to be fetched."""
        ended = [state.value for state in ENDS]
        query = (
            select(func.count())
            .select_from(transfers)
            .where(
                transfers.c.owner == owner,
                transfers.c.system == system,
                transfers.c.state.not_in(ended),
                or_(transfers.c.direction == Direction.UPLOAD.value, transfers.c.state != State.STAGED.value),
            )
        )
        async with reading(self._engine) as connection:
            return int((await connection.execute(query)).scalar_one())

    async def save(self, transfer: Transfer, *messages: str, next_check_at: datetime | None) -> Transfer:
        """Write the row if nobody else has since it was read, give back its lease, and add ``messages`` to its story.

        Raises:
            StaleVersion: the row moved on; read it again and decide again.
        """
        saved = replace(
            transfer,
            version=transfer.version + 1,
            next_check_at=next_check_at,
            lease_owner=None,
            lease_until=None,
        )
        async with writing(self._engine) as connection:
            result = await connection.execute(
                update(transfers)
                .where(transfers.c.id == transfer.id, transfers.c.version == transfer.version)
                .values(**_to_row(saved))
            )
            if result.rowcount != 1:
                raise StaleVersion("The transfer was changed by somebody else at the same time; try again.")
            for message in messages:
                await connection.execute(insert(transfer_history).values(**_story(saved, message)))
        return saved

    async def claim_due(
        self, worker: str, now: datetime, lease_seconds: float, limit: int, *, without_systems: Sequence[str] = ()
    ) -> list[Transfer]:
        """Take rows that are due and that nobody holds; a dead worker's lease runs out by itself.

        The lease is given back by :meth:`save` or :meth:`put_off`.
        """
        free = and_(
            transfers.c.next_check_at.is_not(None),
            transfers.c.next_check_at <= now,
            or_(transfers.c.lease_until.is_(None), transfers.c.lease_until < now),
            transfers.c.system.not_in(without_systems),
        )
        due = (
            select(transfers.c.id).where(free).order_by(transfers.c.next_check_at).limit(limit).with_for_update(skip_locked=True)
        )
        claim = (
            update(transfers)
            .where(transfers.c.id.in_(due.scalar_subquery()))
            .values(lease_owner=worker, lease_until=now + timedelta(seconds=lease_seconds))
            .returning(transfers)
        )
        async with reading(self._engine) as connection:
            first = await connection.execute(select(transfers.c.id).where(free).limit(1))
            if first.first() is None:
                return []
        async with writing(self._engine) as connection:
            return [_from_row(row) for row in (await connection.execute(claim)).mappings()]

    async def put_off(self, transfer: Transfer, next_check_at: datetime) -> bool:
        """Give the lease back, and note only why it waits; nothing happens, and it is false, when somebody else moved the row."""
        async with writing(self._engine) as connection:
            result = await connection.execute(
                update(transfers)
                .where(transfers.c.id == transfer.id, transfers.c.version == transfer.version)
                .values(
                    next_check_at=next_check_at,
                    lease_owner=None,
                    lease_until=None,
                    failed_looks=transfer.failed_looks,
                    reason=transfer.reason,
                )
            )
        return result.rowcount == 1

    async def demand_cleaning(self, transfer_id: str, now: datetime) -> None:
        """Have an ended transfer cleaned once more: something may have been made for it after it was cleaned.

        One that is being cancelled gets a new version, so that a clean-up under way does not have the last word.
        """
        async with writing(self._engine) as connection:
            await connection.execute(
                update(transfers)
                .where(transfers.c.id == transfer_id, transfers.c.state.in_([state.value for state in (*ENDS, State.CANCELLING)]))
                .values(cleaned=False, next_check_at=now, version=transfers.c.version + 1)
            )

    async def is_alive(self) -> bool:
        """Whether the database answers."""
        return await is_alive(self._engine)


def _to_row(transfer: Transfer) -> dict[str, Any]:
    row = asdict(transfer)
    row["proved"] = [dict(entry) for entry in transfer.proved]
    row["digests"] = dict(transfer.digests)
    for name in ("state", "direction", "wait"):
        row[name] = row[name].value
    return row


def _from_row(row: RowMapping) -> Transfer:
    values = {name: row[name] for name in _COLUMNS}
    values["state"] = State(row["state"])
    values["direction"] = Direction(row["direction"])
    values["wait"] = WaitPolicy(row["wait"])
    values["proved"] = tuple(row["proved"])
    return Transfer(**values)


def _story(transfer: Transfer, message: str) -> dict[str, Any]:
    return {
        "transfer_id": transfer.id,
        "at": transfer.updated_at,
        "state": transfer.state.value,
        "message": message,
    }
