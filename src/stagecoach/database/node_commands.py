"""The queues of data transfer nodes. Whatever changes one locks its node's row first, so that replicas take turns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, delete, func, insert, not_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stagecoach.core.errors import Conflict, LimitReached, NodeNotFound
from stagecoach.core.nodes import (
    QUEUED,
    SIDE_KINDS,
    CommandKind,
    CommandState,
    Node,
    NodeCommand,
    node_not_found,
)
from stagecoach.core.transfer import State
from stagecoach.database.engine import reading, writing
from stagecoach.database.network_checks import NetworkCheck, keep_check
from stagecoach.database.node_tables import HAS_ENDED, IS_WITH_AGENT, node_commands, nodes
from stagecoach.database.nodes import node_of
from stagecoach.database.tables import transfers

IDS_AT_ONCE = 1000
MOST_RATES = 240
_MOST_AMOUNT = 10**18
_FIELDS = tuple(field.name for field in fields(NodeCommand))
_rows = node_commands.c
_IS_QUEUED = _rows.state.in_([state.value for state in QUEUED])


class NodeCommands:
    """The table node_commands behind plain methods."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, command: NodeCommand, most_of_kind: int | None = None, sealed: bytes | None = None) -> NodeCommand:
        """At the end of its node's queue; or the one of this name that is open or done already. ``sealed`` is kept with it
        until it has ended.

        Raises:
            NodeNotFound: the node is revoked or was never. LimitReached: ``most_of_kind`` of its kind are open.
        """
        async with writing(self._engine) as connection:
            await _lock(connection, command.node_id)
            mine = select(node_commands).where(_rows.node_id == command.node_id)
            good = _rows.state.not_in([CommandState.FAILED.value, CommandState.CANCELLED.value])
            same = mine.where(_rows.name == command.name, _rows.owner == command.owner, good)
            if (row := (await connection.execute(same.limit(1))).one_or_none()) is not None:
                return command_of(row)
            if most_of_kind is not None:
                open_ones = select(func.count()).select_from(node_commands)
                open_ones = open_ones.where(_rows.node_id == command.node_id, _rows.kind == command.kind.value, not_(HAS_ENDED))
                if (await connection.execute(open_ones)).scalar_one() >= most_of_kind:
                    data = {"limit": most_of_kind}
                    raise LimitReached(f"{most_of_kind} of this kind are in the node's queue, which is the limit.", data=data)
            last = select(func.coalesce(func.max(_rows.number), 0)).where(_rows.node_id == command.node_id)
            numbered = replace(command, number=(await connection.execute(last)).scalar_one() + 1)
            await connection.execute(insert(node_commands).values(**_values(numbered), sealed=sealed, hidden=False))
        return numbered

    async def sealed(self, node_id: str, command_id: str) -> bytes | None:
        """What is kept sealed with it; None when there is nothing, or it has ended."""
        async with reading(self._engine) as connection:
            query = select(_rows.sealed).where(_rows.node_id == node_id, _rows.id == command_id)
            sealed: bytes | None = await connection.scalar(query)
            return sealed

    async def get(self, node_id: str, command_id: str) -> NodeCommand | None:
        """One of this node's."""
        return next(iter(await self.some(node_id, [command_id])), None)

    async def some(self, node_id: str, command_ids: Sequence[str]) -> list[NodeCommand]:
        """Those of this node's with these ids."""
        found: list[NodeCommand] = []
        async with reading(self._engine) as connection:
            for start in range(0, len(command_ids), IDS_AT_ONCE):
                ids = list(command_ids[start : start + IDS_AT_ONCE])
                query = select(node_commands).where(_rows.node_id == node_id, _rows.id.in_(ids))
                found += [command_of(row) for row in await connection.execute(query)]
        return found

    async def named(self, node_id: str, owner: str, name: str) -> list[NodeCommand]:
        """With exactly this name, oldest first."""
        query = select(node_commands).where(_rows.node_id == node_id, _rows.owner == owner, _rows.name == name)
        async with reading(self._engine) as connection:
            return [command_of(row) for row in await connection.execute(query.order_by(_rows.id))]

    async def open_of(self, node_id: str, owner: str | None) -> list[NodeCommand]:
        """Those that have not ended, of ``owner`` or of everybody, in the queue's order."""
        query = select(node_commands).where(_rows.node_id == node_id, not_(HAS_ENDED)).order_by(_rows.number)
        if owner is not None:
            query = query.where(_rows.owner == owner)
        async with reading(self._engine) as connection:
            return [command_of(row) for row in await connection.execute(query)]

    async def open_of_transfer(self, node_id: str, transfer_id: str, kind: CommandKind) -> list[NodeCommand]:
        """Those of one kind that have not ended, in the queue's order."""
        mine = (_rows.node_id == node_id, _rows.transfer_id == transfer_id, _rows.kind == kind.value, not_(HAS_ENDED))
        async with reading(self._engine) as connection:
            return [
                command_of(row) for row in await connection.execute(select(node_commands).where(*mine).order_by(_rows.number))
            ]

    async def page(
        self, node_id: str, states: Collection[CommandState], before_number: int | None, limit: int
    ) -> Sequence[NodeCommand]:
        """The last of the queue first, without what its owner took off the list."""
        query = select(node_commands).where(_rows.node_id == node_id, _rows.hidden.is_(False))
        if states:
            query = query.where(_rows.state.in_([state.value for state in states]))
        if before_number is not None:
            query = query.where(_rows.number < before_number)
        async with reading(self._engine) as connection:
            return [command_of(row) for row in await connection.execute(query.order_by(_rows.number.desc()).limit(limit))]

    async def newest_checks(self, node_ids: Collection[str]) -> dict[str, NodeCommand]:
        """The last check of each node's network that was carried out and that its owner has not taken off the list."""
        checks = (_rows.kind == CommandKind.CHECK_NETWORK.value, _rows.state == CommandState.DONE.value, _rows.hidden.is_(False))
        found: dict[str, NodeCommand] = {}
        ids = list(node_ids)
        async with reading(self._engine) as connection:
            for start in range(0, len(ids), IDS_AT_ONCE):
                mine = (_rows.node_id.in_(ids[start : start + IDS_AT_ONCE]), *checks)
                last = select(_rows.node_id, func.max(_rows.ended_at).label("at")).where(*mine).group_by(_rows.node_id).subquery()
                newest = and_(_rows.node_id == last.c.node_id, _rows.ended_at == last.c.at)
                for row in await connection.execute(select(node_commands).join(last, newest).where(*checks)):
                    found[row.node_id] = command_of(row)
        return found

    async def put_in_order(self, node_id: str, command_ids: Sequence[str]) -> None:
        """These, among themselves. Raises Conflict: one of them does not wait (any more)."""
        async with writing(self._engine) as connection:
            await _lock(connection, node_id)
            query = select(_rows.id, _rows.number).where(_rows.node_id == node_id, _IS_QUEUED)
            numbers: dict[str, int] = {row.id: row.number for row in await connection.execute(query)}
            if missing := [command_id for command_id in command_ids if command_id not in numbers]:
                raise Conflict("Only commands that wait can be put in another order.", data={"not_waiting": missing[:100]})
            places = sorted(numbers[command_id] for command_id in command_ids)
            for command_id, number in zip(command_ids, places, strict=True):
                await connection.execute(update(node_commands).where(_rows.id == command_id).values(number=number))

    async def release(self, node_id: str, owner: str, command_id: str) -> bool:
        """Let a held one be delivered; one that is not held stays as it is. False: there is none."""
        mine = (_rows.node_id == node_id, _rows.owner == owner, _rows.id == command_id)
        async with writing(self._engine) as connection:
            await _lock(connection, node_id, revoked_too=True)
            state = await connection.scalar(select(_rows.state).where(*mine))
            if state == CommandState.HELD.value:
                await connection.execute(update(node_commands).where(*mine).values(state=CommandState.PENDING.value))
        return state is not None

    async def cancel(self, node_id: str, command_id: str, now: datetime) -> NodeCommand | None:
        """As it is afterwards: one that waits, or that its agent has lost, has ended; another is asked to end."""
        async with writing(self._engine) as connection:
            await _lock(connection, node_id, revoked_too=True)
            query = select(node_commands).where(_rows.node_id == node_id, _rows.id == command_id)
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                return None
            command = command_of(row)
            if command.state.is_end:
                return command
            if command.state in QUEUED or command.is_lost(now):
                command = replace(command, state=CommandState.CANCELLED, ended_at=now, lease_until=None)
            command = replace(command, cancel_asked=True)
            await write(connection, command)
        return command

    async def drop(self, node_id: str, command_id: str, now: datetime) -> None:
        """It has ended without being carried out: nobody has it, and nobody needs it."""
        async with writing(self._engine) as connection:
            mine = (_rows.node_id == node_id, _rows.id == command_id, not_(HAS_ENDED))
            ended = {
                "state": CommandState.CANCELLED.value,
                "cancel_asked": True,
                "ended_at": now,
                "lease_until": None,
                "sealed": None,
            }
            await connection.execute(update(node_commands).where(*mine).values(**ended))

    async def hide(self, node_id: str, command_id: str) -> None:
        """Not on the list any more."""
        async with writing(self._engine) as connection:
            mine = (_rows.node_id == node_id, _rows.id == command_id)
            await connection.execute(update(node_commands).where(*mine).values(hidden=True))

    async def note_start(self, node_id: str, command_id: str, attempt: int, now: datetime, lease_until: datetime) -> None:
        """The agent has begun it.

        Raises:
            NodeNotFound: it is not this node's. Conflict: it has ended, or is to end.
        """
        async with writing(self._engine) as connection:
            command = await _for_agent(connection, node_id, command_id, attempt)
            if command.state.is_end or command.cancel_asked or command.state is CommandState.HELD:
                raise Conflict("The command is not to be carried out (any more).", data={"state": command.state.value})
            started = replace(command, state=CommandState.RUNNING, started_at=command.started_at or now, lease_until=lease_until)
            await write(connection, started)
            await _wake_transfer(connection, command, now)

    async def note_end(
        self, node_id: str, command_id: str, attempt: int, result: Mapping[str, object], now: datetime
    ) -> NodeCommand:
        """The agent has ended it; one that had ended before stays as it is. Raises NodeNotFound, Conflict."""
        async with writing(self._engine) as connection:
            command = await _for_agent(connection, node_id, command_id, attempt)
            if command.state.is_end:
                return command
            failed = CommandState.CANCELLED if command.cancel_asked else CommandState.FAILED
            state = CommandState.DONE if result.get("exit_code") == 0 else failed
            ended = replace(command, state=state, ended_at=now, lease_until=None, result=result)
            await write(connection, ended)
            check = check_of_result(result, now) if command.kind is CommandKind.SEND else None
            if command.transfer_id is not None and check is not None:
                await keep_check(connection, command.transfer_id, check)
            await _wake_transfer(connection, command, now)
        return ended

    async def note_progress(
        self,
        node_id: str,
        command_id: str,
        attempt: int,
        progress: Mapping[str, object],
        check: NetworkCheck | None,
        now: datetime,
    ) -> NodeCommand:
        """How far the agent is with it; gives the command. ``check`` replaces what is kept of the transfer that it carries.

        Raises:
            NodeNotFound: it is not this node's. Conflict: it has ended, or is to end.
        """
        async with writing(self._engine) as connection:
            command = await _for_agent(connection, node_id, command_id, attempt)
            if command.state is not CommandState.RUNNING or command.cancel_asked:
                raise Conflict("The command is not to be carried out (any more).", data={"state": command.state.value})
            await connection.execute(update(node_commands).where(_rows.id == command_id).values(progress=dict(progress)))
            # The receiving node has no word in what the sending one found.
            if command.kind is CommandKind.SEND and command.transfer_id is not None and check is not None:
                await keep_check(connection, command.transfer_id, check)
            if command.kind is not CommandKind.RECEIVE:  # how far the transfer is its sender says
                await _wake_transfer(connection, command, now)
        return command

    async def nodes_with_news(self, with_room: Collection[str], without_room: Collection[str]) -> set[str]:
        """Of the nodes whose agents wait: those with a command to deliver, and those with one to end that was not told."""
        found: set[str] = set()
        untold = and_(IS_WITH_AGENT, _rows.cancel_asked, _rows.cancel_told_at.is_(None))
        pending = _rows.state == CommandState.PENDING.value
        aside = and_(pending, _rows.kind.in_([kind.value for kind in SIDE_KINDS]))
        async with reading(self._engine) as connection:
            for ids, wanted in (
                (list(with_room), or_(pending, untold)),
                (list(without_room), or_(aside, untold)),
            ):
                for start in range(0, len(ids), IDS_AT_ONCE):
                    query = select(_rows.node_id).where(_rows.node_id.in_(ids[start : start + IDS_AT_ONCE]), wanted).distinct()
                    found |= set((await connection.scalars(query)).all())
        return found

    async def forget_ended(self, before: datetime, limit: int) -> int:
        """Remove at most ``limit`` that ended ``before``. Returns how many."""
        old = select(_rows.id).where(HAS_ENDED, _rows.ended_at < before).order_by(_rows.id).limit(limit)
        async with writing(self._engine) as connection:
            gone = delete(node_commands).where(_rows.id.in_(old.scalar_subquery()))
            return (await connection.execute(gone)).rowcount


async def locked_node(connection: AsyncConnection, node_id: str) -> Node | None:
    """The node, whose queue nobody else changes until the transaction's end. On SQLite a writer is alone anyway."""
    row = (await connection.execute(select(nodes).where(nodes.c.id == node_id).with_for_update())).one_or_none()
    return None if row is None else node_of(row)


async def write(connection: AsyncConnection, command: NodeCommand) -> None:
    """The whole row of one that exists. What is sealed in one that has ended is gone."""
    forgotten = {"sealed": None} if command.state.is_end else {}
    await connection.execute(update(node_commands).where(_rows.id == command.id).values(**_values(command), **forgotten))


def command_of(row: Row[Any]) -> NodeCommand:
    """A command from its row."""
    values = {name: getattr(row, name) for name in _FIELDS}
    return NodeCommand(**values | {"kind": CommandKind(row.kind), "state": CommandState(row.state)})


def check_of_result(result: Mapping[str, object], now: datetime) -> NetworkCheck | None:
    """What a command that sent found of the way, with how fast it went; None where its agent says nothing of it."""
    said = result.get("result")
    if not isinstance(said, Mapping) or not isinstance(said.get("check"), Mapping):
        return None
    rates = said.get("rates")
    pairs = [pair for pair in rates if _is_pair(pair)] if isinstance(rates, list) else []
    return NetworkCheck(now, dict(said["check"]), pairs[:MOST_RATES])


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_amount(each) for each in value)


def _is_amount(value: object) -> bool:
    """Of seconds or bytes, as an agent says: it may say anything."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST_AMOUNT


def _values(command: NodeCommand) -> dict[str, Any]:
    values = {name: getattr(command, name) for name in _FIELDS}
    return values | {"kind": command.kind.value, "state": command.state.value, "spec": dict(command.spec)}


async def _lock(connection: AsyncConnection, node_id: str, *, revoked_too: bool = False) -> None:
    node = await locked_node(connection, node_id)
    if node is None or (node.revoked_at is not None and not revoked_too):
        raise node_not_found()


async def _for_agent(connection: AsyncConnection, node_id: str, command_id: str, attempt: int) -> NodeCommand:
    await _lock(connection, node_id)
    query = select(node_commands).where(_rows.node_id == node_id, _rows.id == command_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NodeNotFound("There is no command with this id in this node's queue.")
    if attempt > row.attempt:
        raise Conflict("The command was never delivered for this attempt.", data={"attempt": row.attempt})
    return command_of(row)


async def _wake_transfer(connection: AsyncConnection, command: NodeCommand, now: datetime) -> None:
    """A worker looks at its transfer at once; one that is being prepared or cancelled is a request's, until that is done.

    An agent may be at its command before the request that made it has noted that it did. To a worker a row that is still
    being prepared when its time comes is one whose request has died.
    """
    if command.transfer_id is not None:
        is_of_request = transfers.c.state.in_([State.PREPARING.value, State.CANCELLING.value])
        asleep = (transfers.c.id == command.transfer_id, transfers.c.next_check_at > now, not_(is_of_request))
        await connection.execute(update(transfers).where(*asleep).values(next_check_at=now))
