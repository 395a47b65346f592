"""One exchange with a node's agent, in one transaction: what it says is noted, and what it is to do is taken from its queue.

However many replicas answer one node's polls at once, each command is given out by one of them at a time.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stagecoach.core.nodes import (
    MOST_SIDE_COMMANDS,
    SIDE_KINDS,
    AgentReport,
    CommandKind,
    CommandState,
    Node,
    NodeCommand,
    kinds_of,
)
from stagecoach.database.engine import writing
from stagecoach.database.node_commands import command_of, locked_node, write
from stagecoach.database.node_tables import IS_WITH_AGENT, node_commands, nodes

_rows = node_commands.c


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the agent is told. ``has_room``: it would take more commands."""

    node: Node
    commands: list[NodeCommand]
    cancel: list[str]
    unknown: list[str]
    rename_to: str | None
    has_room: bool
    has_fresh_cancel: bool


class NodePolls:
    """The tables nodes and node_commands, as one agent's poll reads and writes them."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def exchange(self, node_id: str, report: AgentReport, now: datetime, lease_seconds: float) -> Exchange | None:
        """None: the node is revoked, or its agent is another."""
        lease_until = now + timedelta(seconds=lease_seconds)
        async with writing(self._engine) as connection:
            node = await locked_node(connection, node_id)
            if node is None or node.revoked_at is not None or node.instance_id != report.instance_id:
                return None
            known = await _with_agent(connection, node_id, report)
            held, cancel, unknown = await _settle(connection, known, report, now, lease_until)
            room = max(0, min(report.capacity, node.parallel - sum(not known[each].is_side for each in held)))
            sides = sum(known[each].is_side for each in held)
            kinds = kinds_of(report.kinds)
            # First: what is hidden of a transfer is removed before the next job of the same transfer begins.
            aside = await _take(
                connection, node_id, kinds & SIDE_KINDS, min(report.capacity, MOST_SIDE_COMMANDS - sides), now, lease_until
            )
            main = await _take(connection, node_id, kinds - SIDE_KINDS, room, now, lease_until)
            fresh = await _tell_cancels(connection, cancel, now)
            await connection.execute(update(nodes).where(nodes.c.id == node_id).values(**_seen(node, report, now)))
        rename_to = node.name if node.name != node.name_told else None
        return Exchange(node, [*aside, *main], cancel, unknown, rename_to, room > len(main), fresh)


async def _with_agent(connection: AsyncConnection, node_id: str, report: AgentReport) -> dict[str, NodeCommand]:
    """What we believe that it has, and what it says that it has."""
    either = or_(IS_WITH_AGENT, _rows.id.in_(list(report.running)))
    rows = await connection.execute(select(node_commands).where(_rows.node_id == node_id, either))
    return {row.id: command_of(row) for row in rows}


async def _settle(
    connection: AsyncConnection, known: dict[str, NodeCommand], report: AgentReport, now: datetime, lease_until: datetime
) -> tuple[list[str], list[str], list[str]]:
    """The ids that the agent has and may have, those it is to end on our word, and those that it should not have."""
    running = set(report.running)
    unknown = [command_id for command_id in report.running if command_id not in known]
    held, cancel = [], []
    for command in known.values():
        if command.id not in running:
            if _stays_out(command, now):
                held.append(command.id)
            else:
                await write(connection, _back(command, now))
        elif command.state is CommandState.CANCELLED or command.cancel_asked:
            cancel.append(command.id)
            if not command.state.is_end:
                held.append(command.id)
                await write(connection, replace(command, lease_until=lease_until))
        elif command.state.is_end or command.state is CommandState.HELD:
            unknown.append(command.id)
        else:
            # Also one that we had put back into the queue: its agent has it after all.
            state = CommandState.RUNNING if command.started_at is not None else CommandState.DELIVERED
            held.append(command.id)
            await write(connection, replace(command, state=state, lease_until=lease_until))
    return held, cancel, unknown


def _stays_out(command: NodeCommand, now: datetime) -> bool:
    """Whether a command that the agent does not name may still be with it: it has begun it, and the word of its end may be
    on its way."""
    return command.state is CommandState.RUNNING and not command.is_lost(now) and not command.cancel_asked


def _back(command: NodeCommand, now: datetime) -> NodeCommand:
    """It never got it (the answer was lost), or has been away for too long."""
    if command.cancel_asked:
        return replace(command, state=CommandState.CANCELLED, ended_at=now, lease_until=None)
    return replace(command, state=CommandState.PENDING, lease_until=None, started_at=None)


async def _take(
    connection: AsyncConnection, node_id: str, kinds: Collection[CommandKind], room: int, now: datetime, lease_until: datetime
) -> list[NodeCommand]:
    """Of these kinds alone: what an agent cannot do waits for one that can."""
    if room <= 0:
        return []
    of_kind = _rows.kind.in_([kind.value for kind in kinds])
    pending = select(node_commands).where(_rows.node_id == node_id, _rows.state == CommandState.PENDING.value, of_kind)
    rows = (await connection.execute(pending.order_by(_rows.number).limit(room))).all()
    given = [
        replace(
            command_of(row),
            state=CommandState.DELIVERED,
            delivered_at=now,
            lease_until=lease_until,
            attempt=row.attempt + 1,
        )
        for row in rows
    ]
    for command in given:
        await write(connection, command)
    return given


async def _tell_cancels(connection: AsyncConnection, cancel: list[str], now: datetime) -> bool:
    """Whether one of them is told for the first time."""
    if not cancel:
        return False
    told = update(node_commands).where(_rows.id.in_(cancel), _rows.cancel_told_at.is_(None)).values(cancel_told_at=now)
    return (await connection.execute(told)).rowcount > 0


def _seen(node: Node, report: AgentReport, now: datetime) -> dict[str, object]:
    return {
        "last_seen_at": now,
        "agent_version": report.version,
        "platform": report.platform,
        "receive_free_bytes": report.receive_free_bytes,
        "send_free_bytes": report.send_free_bytes,
        "health": list(report.health),
        "kinds": list(report.kinds),
        "receiver": dict(report.receiver) if report.receiver is not None else None,
        "address": report.address,
        "name_told": node.name,
    }
