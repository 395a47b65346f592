"""Nodes and their queues on both databases: one command to one poll at a time, one name, one enrolment, no byte too many."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.unit.core.transfers import a_transfer

from stagecoach.core.errors import Conflict, LimitReached, NameTaken, NodeNotFound
from stagecoach.core.names import new_transfer_id
from stagecoach.core.nodes import AgentReport, CommandKind, CommandState, Grant, Node, NodeCommand
from stagecoach.core.transfer import State
from stagecoach.database.engine import migrate, open_engine
from stagecoach.database.node_commands import NodeCommands
from stagecoach.database.node_grants import NodeGrants
from stagecoach.database.node_polls import NodePolls
from stagecoach.database.nodes import Nodes
from stagecoach.database.transfers import Transfers

NOW = datetime(2030, 5, 17, 12, 0, 0, tzinfo=UTC)
INSTANCE, LEASE = "instance00000001", 180
_ids = iter(range(1, 10_000))


def new_id() -> str:
    return new_transfer_id(NOW.timestamp(), lambda _bits: next(_ids))


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    """With today's tables."""
    opened = open_engine(url, 20)
    await migrate(opened)
    yield opened
    await opened.dispose()


async def a_node(engine: AsyncEngine, name: str = "archive", parallel: int = 1) -> Node:
    """Enrolled."""
    node = Node(new_id(), "alice", name, NOW, enrolment_expires_at=NOW + timedelta(days=1), parallel=parallel)
    await Nodes(engine).add(node, f"token of {node.id}", 100)
    enrolled = await enrol(engine, node)
    assert enrolled is not None
    return enrolled


async def enrol(engine: AsyncEngine, node: Node, instance_id: str = INSTANCE, number: int = 1) -> Node | None:
    digest = f"credential {number} of {node.id}"
    token = f"token of {node.id}"
    return await Nodes(engine).enrol(token, instance_id, digest, version="1", platform="x", address=None, now=NOW)


def a_command(node: Node, **changes: object) -> NodeCommand:
    command_id = new_id()
    command = NodeCommand(command_id, node.id, 0, CommandKind.CHECK_NETWORK, f"check-{command_id}", "alice", NOW)
    return replace(command, **changes)  # type: ignore[arg-type]


def report(running: list[str], capacity: int = 1) -> AgentReport:
    return AgentReport(INSTANCE, "1", "x", running=tuple(running), capacity=capacity)


async def test_commands_added_at_once_have_their_own_places(engine: AsyncEngine) -> None:
    node, commands = await a_node(engine), NodeCommands(engine)
    added = await asyncio.gather(*(commands.add(a_command(node)) for _ in range(20)))
    assert sorted(command.number for command in added) == list(range(1, 21))
    one = a_command(node)
    same = await asyncio.gather(*(commands.add(replace(one, id=new_id())) for _ in range(5)))
    assert len({command.id for command in same}) == 1
    with pytest.raises(LimitReached):
        await commands.add(a_command(node), 20)


async def test_of_many_polls_at_once_each_command_is_given_to_one(engine: AsyncEngine) -> None:
    node, commands, polls = await a_node(engine, parallel=64), NodeCommands(engine), NodePolls(engine)
    made = [(await commands.add(a_command(node))).id for _ in range(30)]
    has: list[str] = []
    given: Counter[str] = Counter()

    async def ask() -> None:
        # What one replica has answered, the agent names to the next.
        exchange = await polls.exchange(node.id, report(list(has), capacity=3), NOW, LEASE)
        assert exchange is not None
        given.update(command.id for command in exchange.commands)
        has.extend(command.id for command in exchange.commands)

    for _ in range(10):
        await ask()
    assert given == Counter(made)
    assert has == made
    # Several at once with the same word of what it has: none is given twice within its lease, whoever answers.
    more = [(await commands.add(a_command(node))).id for _ in range(8)]
    exchanges = await asyncio.gather(*(polls.exchange(node.id, report([*has, *more], capacity=8), NOW, LEASE) for _ in range(6)))
    taken = [command.id for exchange in exchanges if exchange is not None for command in exchange.commands]
    assert len(taken) == len(set(taken))


async def test_a_node_never_has_more_than_its_owner_lets_it(engine: AsyncEngine) -> None:
    node, commands, polls = await a_node(engine, parallel=2), NodeCommands(engine), NodePolls(engine)
    for _ in range(6):
        await commands.add(a_command(node))
    for _ in range(3):
        exchanges = await asyncio.gather(*(polls.exchange(node.id, report([], capacity=6), NOW, LEASE) for _ in range(4)))
        assert all(exchange is not None and len(exchange.commands) <= 2 for exchange in exchanges)
        out = [each for each in await commands.open_of(node.id, None) if each.state is CommandState.DELIVERED]
        assert len(out) == 2


async def test_what_is_held_is_given_when_it_is_released_and_not_before(engine: AsyncEngine) -> None:
    node, commands, polls = await a_node(engine), NodeCommands(engine), NodePolls(engine)
    held = await commands.add(a_command(node, state=CommandState.HELD))
    exchange = await polls.exchange(node.id, report([]), NOW, LEASE)
    assert exchange is not None
    assert (exchange.commands, exchange.has_room) == ([], True)
    assert await commands.nodes_with_news([node.id], []) == set()
    assert await commands.release(node.id, "bob", held.id) is False
    assert await commands.release(node.id, "alice", held.id) is True
    assert await commands.nodes_with_news([node.id], []) == {node.id}
    assert await commands.nodes_with_news([], [node.id]) == set()
    exchange = await polls.exchange(node.id, report([]), NOW, LEASE)
    assert exchange is not None
    assert [command.id for command in exchange.commands] == [held.id]
    assert (await commands.cancel(node.id, held.id, NOW)) is not None
    assert await commands.nodes_with_news([], [node.id]) == {node.id}


@pytest.mark.parametrize(("state", "wakes"), [(State.MOVING, True), (State.PREPARING, False)])
async def test_an_end_is_noted_once_and_wakes_a_transfer_that_no_request_prepares(
    engine: AsyncEngine, state: State, wakes: bool
) -> None:
    node, commands, polls, transfers = await a_node(engine), NodeCommands(engine), NodePolls(engine), Transfers(engine)
    transfer = replace(a_transfer(), id=new_id(), state=state, next_check_at=NOW + timedelta(hours=1))
    await transfers.add(transfer, "Asked for.")
    added = await commands.add(a_command(node, kind=CommandKind.MOVE, transfer_id=transfer.id))
    await polls.exchange(node.id, report([]), NOW, LEASE)
    await commands.note_start(node.id, added.id, 1, NOW, NOW + timedelta(seconds=LEASE))
    found = await transfers.get(transfer.id)
    assert found is not None
    assert (found.next_check_at == NOW) is wakes
    good, bad = {"exit_code": 0}, {"exit_code": 1}
    ends = await asyncio.gather(*(commands.note_end(node.id, added.id, 1, result, NOW) for result in (good, bad, good)))
    assert len({end.state for end in ends}) == 1
    with pytest.raises(Conflict):
        await commands.note_start(node.id, added.id, 1, NOW, NOW)
    with pytest.raises(NodeNotFound):
        await commands.note_end((await a_node(engine, "other")).id, added.id, 1, good, NOW)


async def test_of_many_that_enrol_at_once_with_one_token_one_does(engine: AsyncEngine) -> None:
    node = Node(new_id(), "alice", "archive", NOW, enrolment_expires_at=NOW + timedelta(days=1))
    await Nodes(engine).add(node, f"token of {node.id}", 100)
    instances = [f"instance{number:08}" for number in range(6)]
    found = await asyncio.gather(*(enrol(engine, node, each, number) for number, each in enumerate(instances)))
    (enrolled,) = [each for each in found if each is not None]
    number = instances.index(enrolled.instance_id or "")
    assert await Nodes(engine).find_by_credential(f"credential {number} of {node.id}") == enrolled


async def test_of_many_nodes_of_one_name_at_once_one_is_made(engine: AsyncEngine) -> None:
    async def add(number: int) -> bool:
        node = Node(new_id(), "alice", "archive", NOW)
        try:
            await Nodes(engine).add(node, f"token {number}", 100)
        except NameTaken:
            return False
        return True

    assert sum(await asyncio.gather(*(add(number) for number in range(6)))) == 1
    (node,) = await Nodes(engine).of_owner("alice")
    await Nodes(engine).revoke(node.id, NOW)
    assert await add(7) is True


async def test_a_revoked_node_has_no_queue_no_credential_and_no_grants(engine: AsyncEngine) -> None:
    node, commands, grants = await a_node(engine), NodeCommands(engine), NodeGrants(engine)
    added = [await commands.add(a_command(node, state=state)) for state in (CommandState.HELD, CommandState.PENDING)]
    await grants.add(Grant(new_id(), node.id, "alice", NOW, grantee="bob"), None, 10)
    await Nodes(engine).revoke(node.id, NOW)
    states = [each.state for each in await commands.some(node.id, [each.id for each in added])]
    assert states == [CommandState.CANCELLED] * 2
    assert await Nodes(engine).find_by_credential(f"credential 1 of {node.id}") is None
    assert await grants.live_of(node.id, "bob", NOW) == []
    assert await NodePolls(engine).exchange(node.id, report([]), NOW, LEASE) is None
    assert await enrol(engine, node) is None
    with pytest.raises(NodeNotFound):
        await commands.add(a_command(node))
    with pytest.raises(NodeNotFound):
        await grants.add(Grant(new_id(), node.id, "alice", NOW, grantee="eve"), None, 10)


async def test_no_more_bytes_are_used_than_granted_however_many_ask_at_once(engine: AsyncEngine) -> None:
    node, grants = await a_node(engine), NodeGrants(engine)
    grant = Grant(new_id(), node.id, "alice", NOW, grantee="bob", max_bytes=10)
    await grants.add(grant, None, 10)
    assert sum(await asyncio.gather(*(grants.use(grant.id, 3, NOW) for _ in range(8)))) == 3
    await grants.give_back(grant.id, 3)
    (left,) = await grants.live_of(node.id, "bob", NOW)
    assert left.used_bytes == 6
    assert await grants.revoke(node.id, grant.id, NOW) is True
    assert await grants.use(grant.id, 1, NOW) is False


async def test_a_grant_without_a_bound_ends_where_the_column_does(engine: AsyncEngine) -> None:
    node, grants = await a_node(engine), NodeGrants(engine)
    grant = Grant(new_id(), node.id, "alice", NOW, grantee="bob")
    await grants.add(grant, None, 10)
    assert [await grants.use(grant.id, 2**62, NOW) for _ in range(3)] == [True, False, False]
    (left,) = await grants.live_of(node.id, "bob", NOW)
    assert left.used_bytes == 2**62


async def test_an_invitation_is_redeemed_by_one_of_many(engine: AsyncEngine) -> None:
    node, grants = await a_node(engine), NodeGrants(engine)
    week = NOW + timedelta(days=7)
    await grants.add(Grant(new_id(), node.id, "alice", NOW, invitation_expires_at=week), "link", 1)
    with pytest.raises(LimitReached):
        await grants.add(Grant(new_id(), node.id, "alice", NOW, grantee="bob"), None, 1)
    assert await grants.redeem("link", "alice", NOW) is None
    assert await grants.redeem("link", "bob", week) is None
    users = [f"user-{number}" for number in range(6)]
    held = await asyncio.gather(*(grants.redeem("link", user, NOW) for user in users))
    (one,) = [each for each in held if each is not None]
    assert (one.grant.grantee in users, one.node_name, one.node_owner) == (True, "archive", "alice")
    assert [each.grant.id for each in await grants.of_grantee(one.grant.grantee or "", NOW)] == [one.grant.id]
