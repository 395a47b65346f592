"""What is asked of the transfers table: find, list, save with the version checked, take what is due."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping, and_, bindparam, insert, not_, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stagecoach.core.bounds import Bounds, Usage, require_place, require_within
from stagecoach.core.errors import RequestUnderWay, StaleVersion
from stagecoach.core.nodes import GrantUse
from stagecoach.core.operations import Operation, OperationOptions
from stagecoach.core.transfer import ENDS, Archive, Direction, HistoryEntry, Road, State, Transfer, TransferFilter, WaitPolicy
from stagecoach.database.engine import Turn, is_alive, reading, take_turn, writing
from stagecoach.database.followed_jobs import Sight, is_followed, is_free, is_still_so
from stagecoach.database.node_grants import count_bytes
from stagecoach.database.tables import transfer_history, transfers
from stagecoach.database.usage import read_usage
from stagecoach.database.webhook_deliveries import add_delivery

_COLUMNS = {field.name for field in fields(Transfer)}
# One digest a part can be 700 KB a row: too much where many rows are shown and none is worked on.
SHOWN = [column for column in transfers.c if column.name != "part_digests"]


_PUT_OFF = (
    update(transfers)
    .where(transfers.c.id == bindparam("its_id"), transfers.c.version == bindparam("its_version"))
    .values(
        next_check_at=bindparam("due_at"),
        lease_owner=None,
        lease_until=None,
        failed_looks=bindparam("looks"),
        reason=bindparam("why"),
    )
)


@dataclass(frozen=True, slots=True)
class NewRow:
    """A transfer to be added, the first line of its story, and what it must be within."""

    transfer: Transfer
    message: str
    bounds: Bounds | None = None


class Transfers:
    """The transfers table behind plain methods."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._put_offs: list[tuple[Transfer, datetime, asyncio.Future[bool]]] = []
        self._putting_off: asyncio.Task[None] | None = None

    async def add(self, transfer: Transfer, message: str, bounds: Bounds | None = None) -> None:
        """Insert a new row and the first line of its story.

        With ``bounds``, only if they leave room for it, however many ask at once. Raises as ``require_within`` does, and
            RequestUnderWay: another row of its owner has its idempotency key.
        """
        await self.add_together([NewRow(transfer, message, bounds)])

    async def add_together(self, rows: Sequence[NewRow]) -> None:
        """As :func:`add`: all of them or none. Each is counted against what is there with those before it."""
        try:
            async with writing(self._engine) as connection:
                if any(row.bounds is not None for row in rows):
                    await take_turn(connection, Turn.COUNT_TRANSFERS)
                    # Its twin, that took the last place a moment ago, is no reason to refuse it.
                    if any([await _has_key(connection, row.transfer) for row in rows]):
                        raise _under_way()
                for row in rows:
                    await _insert(connection, row)
        except IntegrityError as error:
            # PostgreSQL names the index, SQLite its columns.
            if "idempotency" not in str(error.orig):
                raise
            raise _under_way() from None

    async def get(self, transfer_id: str) -> Transfer | None:
        """The row, or None."""
        async with reading(self._engine) as connection:
            result = await connection.execute(select(transfers).where(transfers.c.id == transfer_id))
            row = result.mappings().first()
        return from_row(row) if row else None

    async def find_by_idempotency_key(self, owner: str, key: str) -> Transfer | None:
        """What the owner's request with this key made, or None."""
        wanted = (transfers.c.owner == owner, transfers.c.idempotency_key == key)
        async with reading(self._engine) as connection:
            row = (await connection.execute(select(transfers).where(*wanted))).mappings().first()
        return from_row(row) if row else None

    async def find_by_job(self, system: str, job_id: str) -> list[Transfer]:
        """By its present job or its first one. Newest first, because schedulers use job ids again.

        Without ``part_digests``: to be shown, not to be saved.
        """
        query = (
            select(*SHOWN)
            .where(transfers.c.system == system, or_(transfers.c.job_id == job_id, transfers.c.first_job_id == job_id))
            .order_by(transfers.c.id.desc())
            .limit(10)
        )
        async with reading(self._engine) as connection:
            return [from_row(row) for row in (await connection.execute(query)).mappings()]

    async def history(self, transfer_id: str) -> list[HistoryEntry]:
        """Oldest first."""
        async with reading(self._engine) as connection:
            return (await _stories(connection, [transfer_id]))[transfer_id]

    async def changed_since(self, versions: Mapping[str, int]) -> list[tuple[Transfer, list[HistoryEntry]]]:
        """Of the transfers with these ids those that have another version by now, each with its whole story.

        Without ``part_digests``: to be shown, not to be saved.
        """
        async with reading(self._engine) as connection:
            ids = select(transfers.c.id, transfers.c.version).where(transfers.c.id.in_(list(versions)))
            changed = [row.id for row in await connection.execute(ids) if row.version != versions[row.id]]
            if not changed:
                return []
            rows = await connection.execute(select(*SHOWN).where(transfers.c.id.in_(changed)))
            found = [from_row(row) for row in rows.mappings()]
            # After the rows: a line that is not there yet comes with the row's next version, never a version without its line.
            stories = await _stories(connection, changed)
        return [(transfer, stories[transfer.id]) for transfer in found]

    async def page(self, wanted: TransferFilter) -> Sequence[Transfer]:
        """Newest first, at most ``wanted.limit``. Without ``part_digests``: to be shown, not to be saved."""
        query = select(*SHOWN).order_by(transfers.c.id.desc()).limit(wanted.limit)
        if wanted.owner is not None:
            query = query.where(transfers.c.owner == wanted.owner)
        if wanted.system is not None:
            query = query.where(or_(transfers.c.system == wanted.system, transfers.c.source_system == wanted.system))
        if not wanted.with_legs:
            query = query.where(transfers.c.relay_of.is_(None))
        if wanted.direction is not None:
            query = query.where(transfers.c.direction == wanted.direction.value)
        if wanted.states:
            query = query.where(transfers.c.state.in_([state.value for state in wanted.states]))
        if wanted.before_id is not None:
            query = query.where(transfers.c.id < wanted.before_id)
        async with reading(self._engine) as connection:
            return [from_row(row) for row in (await connection.execute(query)).mappings()]

    async def usage(self, owner: str, system: str, bounds: Bounds, now: datetime) -> Usage:
        """What is under way of ``owner`` and of all, to be held against ``bounds``."""
        async with reading(self._engine) as connection:
            return await read_usage(connection, owner, system, bounds, now)

    async def save(
        self,
        transfer: Transfer,
        *messages: str,
        next_check_at: datetime | None,
        reopened_within: Bounds | None = None,
        grant_use: GrantUse | None = None,
    ) -> Transfer:
        """Write the row if nobody else has since it was read, give back its lease, and add ``messages`` to its story.

        Where its webhook is to be told of a new state, that is written as well: all of it or nothing. One that had ended is
        saved as an open one only if ``reopened_within`` leaves a place for it, however many ask at once. With ``grant_use`` the
        bytes count under the grant when the row is written, and only then.

        Raises:
            StaleVersion: the row, or the grant, moved on; read it again and decide again. TooManyTransfers: no place is left.
        """
        saved = replace(
            transfer,
            version=transfer.version + 1,
            next_check_at=next_check_at,
            lease_owner=None,
            lease_until=None,
        )
        this_version = (transfers.c.id == transfer.id, transfers.c.version == transfer.version)
        async with writing(self._engine) as connection:
            if reopened_within is not None:
                await take_turn(connection, Turn.COUNT_TRANSFERS)
                usage = await read_usage(connection, saved.owner, saved.system, reopened_within, saved.updated_at)
                require_place(reopened_within, usage, saved.system)
            # A version has one state, so what is read here is what the update below replaces.
            before = await connection.scalar(select(transfers.c.state).where(*this_version)) if saved.webhook_url else None
            result = await connection.execute(update(transfers).where(*this_version).values(**_to_row(saved)))
            if result.rowcount != 1:
                raise StaleVersion("The transfer was changed by somebody else at the same time; try again.")
            if grant_use is not None and not await count_bytes(connection, grant_use, saved.updated_at):
                raise StaleVersion("The grant was used or revoked by somebody at the same time; try again.")
            if before not in {None, saved.state.value}:
                await add_delivery(connection, saved)
            for message in messages:
                await connection.execute(insert(transfer_history).values(**_story(saved, message)))
        return saved

    async def claim_due(
        self,
        worker: str,
        now: datetime,
        lease_seconds: float,
        limit: int,
        *,
        without_systems: Sequence[str] = (),
        without_jobs_of: Collection[str] = (),
    ) -> list[Transfer]:
        """Take rows that are due and that nobody holds; a dead worker's lease runs out by itself.

        ``without_jobs_of`` names systems whose followed jobs are left to who asks their scheduler. The lease is given
        back by :meth:`save` or :meth:`put_off`.
        """
        free = and_(
            is_free(now),
            transfers.c.system.not_in(without_systems),
            or_(transfers.c.system.not_in(without_jobs_of), not_(is_followed(now))),
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
            return [from_row(row) for row in (await connection.execute(claim)).mappings()]

    async def take(
        self, sights: Sequence[Sight], worker: str, now: datetime, lease_seconds: float, *, due_in_seconds: float = 0.0
    ) -> list[Transfer]:
        """Those that are still as in ``sights``, held by nobody and due within ``due_in_seconds``; now leased."""
        free = select(transfers.c.id).where(is_free(now, due_in_seconds), is_still_so(sights)).with_for_update(skip_locked=True)
        claim = (
            update(transfers)
            .where(transfers.c.id.in_(free.scalar_subquery()))
            .values(lease_owner=worker, lease_until=now + timedelta(seconds=lease_seconds))
            .returning(transfers)
        )
        async with writing(self._engine) as connection:
            return [from_row(row) for row in (await connection.execute(claim)).mappings()]

    async def put_off(self, transfer: Transfer, next_check_at: datetime) -> bool:
        """Give the lease back, and note only why it waits; nothing happens, and it is false, when somebody else moved the row.

        Most looks end like this, many at a time: those that come while a transaction is under way share the next one.
        """
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._put_offs.append((transfer, next_check_at, done))
        if self._putting_off is None or self._putting_off.done():
            self._putting_off = asyncio.create_task(self._put_all_off())
        return await done

    async def _put_all_off(self) -> None:
        while self._put_offs:
            some, self._put_offs = self._put_offs, []
            try:
                kept = await self._write_put_offs([(transfer, at) for transfer, at, _ in some])
            except BaseException as error:
                for _, _, done in some:
                    if not done.done():
                        done.set_exception(error)
                if not isinstance(error, Exception):
                    raise
            else:
                for transfer, _, done in some:
                    if not done.done():
                        done.set_result(transfer.id in kept)

    async def _write_put_offs(self, some: Sequence[tuple[Transfer, datetime]]) -> set[str]:
        """Ids of those whose version was still theirs."""
        values = [
            {
                "its_id": transfer.id,
                "its_version": transfer.version,
                "due_at": next_check_at,
                "looks": transfer.failed_looks,
                "why": transfer.reason,
            }
            # Always in one order, so that two transactions never wait for each other's rows.
            for transfer, next_check_at in sorted(some, key=lambda each: each[0].id)
        ]
        versions = {transfer.id: transfer.version for transfer, _ in some}
        async with writing(self._engine) as connection:
            await connection.execute(_PUT_OFF, values)
            found = await connection.execute(
                select(transfers.c.id, transfers.c.version).where(transfers.c.id.in_(list(versions)))
            )
            return {row[0] for row in found if versions[row[0]] == row[1]}

    async def wake(self, transfer_id: str, now: datetime) -> None:
        """Have a worker look at a transfer that is ``receiving`` at once: there is news for it.

        It gets a new version, so that a look that is under way, and has not seen the news, does not put it off.
        """
        async with writing(self._engine) as connection:
            await connection.execute(
                update(transfers)
                .where(transfers.c.id == transfer_id, transfers.c.state == State.RECEIVING.value)
                .values(next_check_at=now, lease_owner=None, lease_until=None, version=transfers.c.version + 1)
            )

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


def _under_way() -> RequestUnderWay:
    return RequestUnderWay("A request with this idempotency key came at the same time; ask again in a moment.")


async def _insert(connection: AsyncConnection, row: NewRow) -> None:
    transfer, bounds = row.transfer, row.bounds
    if bounds is not None:
        usage = await read_usage(connection, transfer.owner, transfer.system, bounds, transfer.created_at)
        # What a relay stages is its source leg's.
        size_bytes = 0 if transfer.is_relay else transfer.size_bytes
        require_within(bounds, usage, transfer.system, size_bytes, transfer.created_at)
    await connection.execute(insert(transfers).values(**_to_row(transfer)))
    await connection.execute(insert(transfer_history).values(**_story(transfer, row.message)))


async def _has_key(connection: AsyncConnection, transfer: Transfer) -> bool:
    if transfer.idempotency_key is None:
        return False
    wanted = (transfers.c.owner == transfer.owner, transfers.c.idempotency_key == transfer.idempotency_key)
    return (await connection.execute(select(transfers.c.id).where(*wanted))).first() is not None


async def _stories(connection: AsyncConnection, transfer_ids: Sequence[str]) -> dict[str, list[HistoryEntry]]:
    history = transfer_history.c
    query = select(transfer_history).where(history.transfer_id.in_(transfer_ids)).order_by(history.number)
    stories: dict[str, list[HistoryEntry]] = {transfer_id: [] for transfer_id in transfer_ids}
    for row in (await connection.execute(query)).mappings():
        stories[row["transfer_id"]].append(HistoryEntry(row["at"], State(row["state"]), row["message"], row["number"]))
    return stories


def _to_row(transfer: Transfer) -> dict[str, Any]:
    row = asdict(transfer)
    row["proved"] = [dict(entry) for entry in transfer.proved]
    row["digests"] = dict(transfer.digests)
    row["part_digests"] = {algorithm: list(values) for algorithm, values in transfer.part_digests.items()} or None
    row["notices"] = list(transfer.notices) or None
    row["wanted_road"] = transfer.wanted_road.value if transfer.wanted_road is not None else None
    for name in ("state", "direction", "wait", "road"):
        row[name] = row[name].value
    row["archive"] = transfer.archive.value if transfer.archive is not None else None
    row["operation"] = transfer.operation.value if transfer.operation is not None else None
    row["operation_options"] = transfer.operation_options.as_document() if transfer.operation_options is not None else None
    return row


def from_row(row: RowMapping) -> Transfer:
    """A transfer from all columns of its row, or from those in ``SHOWN``."""
    values = {name: row[name] for name in _COLUMNS if name != "part_digests"}
    values["state"] = State(row["state"])
    values["direction"] = Direction(row["direction"])
    values["wait"] = WaitPolicy(row["wait"])
    values["archive"] = Archive(row["archive"]) if row["archive"] is not None else None
    values["operation"] = Operation(row["operation"]) if row["operation"] is not None else None
    options = row["operation_options"]
    values["operation_options"] = OperationOptions.of_document(options) if options is not None else None
    values["proved"] = tuple(row["proved"])
    values["road"] = Road(row["road"])
    values["wanted_road"] = Road(row["wanted_road"]) if row["wanted_road"] is not None else None
    values["notices"] = tuple(row["notices"] or ())
    values["part_digests"] = {name: tuple(parts) for name, parts in (row.get("part_digests") or {}).items()}
    return Transfer(**values)


def _story(transfer: Transfer, message: str) -> dict[str, Any]:
    return {
        "transfer_id": transfer.id,
        "at": transfer.updated_at,
        "state": transfer.state.value,
        "message": message,
    }
