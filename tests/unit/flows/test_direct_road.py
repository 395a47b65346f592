"""From node to node with nothing in between: a folder is opened, filled, compared and moved to its place, or another road."""

from __future__ import annotations

import pytest
from tests.fakes.direct_agents import DirectAgent, direct_agent
from tests.fakes.world import ALICE, BOB, World, world_settings

from stagecoach.core.errors import Conflict, NodeNotFound, RoadClosed
from stagecoach.core.nodes import CommandKind, CommandState
from stagecoach.core.transfer import Road, State, Transfer
from stagecoach.flows import cancel_transfer as cancelling
from stagecoach.flows.begin_relay import RelayEnd, begin_relay
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.grant_node import Terms, grant_node, revoke_grant
from stagecoach.flows.retry_transfer import retry_transfer
from stagecoach.flows.stop_transfer import stop_transfer

CONTENT = b"content " * 100
SOURCE, TARGET = "/run1/file", "/from alice/file"


@pytest.fixture
async def sender(world: World) -> DirectAgent:
    agent = await direct_agent(world, ALICE, "lab")
    agent.send[SOURCE] = CONTENT
    return agent


@pytest.fixture
async def receiver(world: World, sender: DirectAgent) -> DirectAgent:
    agent = await direct_agent(world, ALICE, "vault")
    sender.reaches = {str(agent.host): agent}
    return agent


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(cancelling, "INLINE_SECONDS", 0.5)


async def begun(world: World, sender: DirectAgent, receiver: DirectAgent, wanted: Road | None = None) -> Transfer:
    ends = RelayEnd(sender.system, SOURCE), RelayEnd(receiver.system, TARGET)
    return (await begin_relay(world.tools, ALICE, *ends, wanted_road=wanted)).transfer


async def turn(world: World, *agents: DirectAgent, seconds: float = 1.0) -> None:
    """The worker looks, then each agent asks and does what it is told."""
    await world.work(seconds=seconds)
    for agent in agents:
        await agent.work()


async def legs(world: World, transfer: Transfer) -> tuple[Transfer, Transfer]:
    """The leg and the relay as they are now."""
    return await world.get(transfer.source_transfer_id or ""), await world.get(transfer.id)


async def to_the_end(world: World, transfer: Transfer, *agents: DirectAgent) -> Transfer:
    for _ in range(12):
        await turn(world, *agents, seconds=2)
    return await world.get(transfer.id)


async def test_a_file_goes_straight_and_nothing_is_staged(world: World, sender: DirectAgent, receiver: DirectAgent) -> None:
    transfer = await begun(world, sender, receiver)
    assert (transfer.road, transfer.road_reason) == (Road.DIRECT, None)
    await sender.work()
    assert sender.told == [], "it waits until the other one receives"
    done = await to_the_end(world, transfer, receiver, sender)
    assert (done.state, done.size_bytes, done.code) == (State.DONE, len(CONTENT), None)
    assert receiver.receive == {TARGET: CONTENT}
    assert receiver.hidden == {}
    assert receiver.open == {}, "its folder is closed"
    assert (receiver.told, sender.told) == (["receive", "place"], ["send"])
    assert world.store._buckets == {}
    assert all(row.cleaned for row in await world.all_transfers())
    check = await world.tools.network_checks.of(transfer.source_transfer_id or "")
    assert check is not None
    assert (check.report, check.rates) == ({"probeBytesPerSecond": 1e6}, [[0.0, 0], [1.5, len(CONTENT)]])


async def test_keys_are_sealed_told_alike_and_gone_at_the_end(world: World, sender: DirectAgent, receiver: DirectAgent) -> None:
    transfer = await begun(world, sender, receiver)
    await turn(world, receiver)
    await world.work()
    await sender.work(to_the_end=False)
    opened, sends = receiver.running(CommandKind.RECEIVE), sender.running(CommandKind.SEND)
    (key,) = receiver.open
    assert sender.has[sends.id].secret == key
    assert repr(key).count(key.secret_access_key) == 0
    for node, command in ((receiver, opened), (sender, sends)):
        sealed = await world.tools.node_commands.sealed(node.node.id, command.id)
        assert sealed is not None
        assert key.secret_access_key.encode() not in sealed
        assert key.secret_access_key not in str(command.spec)
    await to_the_end(world, transfer, receiver, sender)
    for node, command in ((receiver, opened), (sender, sends)):
        assert await world.tools.node_commands.sealed(node.node.id, command.id) is None


async def test_progress_is_told_of_both_rows_and_never_more_than_all(
    world: World, sender: DirectAgent, receiver: DirectAgent
) -> None:
    transfer = await begun(world, sender, receiver)
    await turn(world, receiver)
    await world.work()
    await sender.work(to_the_end=False)
    sends = sender.running(CommandKind.SEND)
    await sender.tell(sends.id, 300, 200, currentFile="a/b", notices=["Links were left out."])
    await world.work(3)
    leg, relay = await legs(world, transfer)
    assert (leg.state, leg.bytes_moved, leg.size_bytes) == (State.MOVING, 200, 200)
    assert (relay.bytes_staged, relay.size_bytes, relay.current_file) == (200, 200, "a/b")
    assert relay.rate_bytes_per_second == 10.0
    assert relay.notices == ("Links were left out.",)
    await cancel_transfer(world.tools, ALICE, transfer.id)
    with pytest.raises(Conflict):
        await sender.tell(sends.id, 300, 200)


async def test_silence_and_a_crawl_are_noticed_once(world: World, sender: DirectAgent, receiver: DirectAgent) -> None:
    transfer = await begun(world, sender, receiver)
    await turn(world, receiver)
    await world.work()
    await sender.work(to_the_end=False)
    sends = sender.running(CommandKind.SEND)
    for done in range(0, 100, 10):
        await sender.tell(sends.id, done, 200, check={"probeBytesPerSecond": 41})
        await world.work(seconds=15)
    leg, _ = await legs(world, transfer)
    assert [notice[:35] for notice in leg.notices] == ["It goes at less than a quarter of w"]
    for _ in range(5):
        await sender.poll()
        await world.work(seconds=30)
    leg, relay = await legs(world, transfer)
    assert [notice[:28] for notice in leg.notices[1:]] == ["No byte has arrived since 20"]
    assert relay.notices == leg.notices
    story = [line.message for line in await world.transfers.history(leg.id)]
    assert sum(line.startswith("No byte") for line in story) == 1


@pytest.mark.parametrize("code", ["receiver_unreachable", "direct_unfit"])
async def test_it_falls_back_where_the_sender_cannot_take_the_road(
    world: World, sender: DirectAgent, receiver: DirectAgent, code: str
) -> None:
    sender.refuses = {CommandKind.SEND: code}
    transfer = await begun(world, sender, receiver)
    done = await to_the_end(world, transfer, receiver, sender)
    assert (done.state, done.road, done.id) == (State.DONE, Road.STAGED, transfer.id)
    assert done.road_reason == f"The agent says {code}."
    assert receiver.receive == {TARGET: CONTENT}
    assert "discard" in receiver.told
    assert (receiver.open, world.left_in_store()) == ({}, [])


@pytest.mark.parametrize("trouble", ["offline", "old", "refuses"])
async def test_it_falls_back_where_the_receiver_does_not_open(
    world: World, sender: DirectAgent, receiver: DirectAgent, trouble: str
) -> None:
    transfer = await begun(world, sender, receiver)
    if trouble == "refuses":
        receiver.refuses = {CommandKind.RECEIVE: "agent_error"}
        await receiver.work()
    else:
        for _ in range(8):
            # It is heard of, and takes nothing.
            receiver.kinds = ("move", "discard")
            await turn(world, sender, *([receiver] if trouble == "old" else []), seconds=15)
    receiver.refuses = {}
    done = await to_the_end(world, transfer, receiver, sender)
    assert (done.state, done.road) == (State.DONE, Road.STAGED)
    assert done.road_reason
    assert receiver.receive == {TARGET: CONTENT}
    assert world.left_in_store() == []


async def test_who_insists_on_the_direct_road_is_told_and_may_retry(
    world: World, sender: DirectAgent, receiver: DirectAgent
) -> None:
    sender.reaches = {}
    transfer = await begun(world, sender, receiver, Road.DIRECT)
    for _ in range(6):
        await turn(world, receiver, sender)
    failed = await world.get(transfer.id)
    assert (failed.state, failed.code, failed.road) == (State.FAILED, "receiver_unreachable", Road.DIRECT)
    sender.reaches = {str(receiver.host): receiver}
    await retry_transfer(world.tools, ALICE, transfer.id)
    done = await to_the_end(world, transfer, receiver, sender)
    assert (done.state, receiver.receive) == (State.DONE, {TARGET: CONTENT})
    assert receiver.told.count("receive") == 2, "another key for another try"


@pytest.mark.parametrize("lacks", ["address", "kinds", "contact"])
async def test_without_a_direct_road_it_is_staged_and_says_why(
    world: World, sender: DirectAgent, receiver: DirectAgent, lacks: str
) -> None:
    if lacks == "address":
        receiver.host = None
    if lacks == "kinds":
        receiver.kinds = ()
    if lacks == "contact":
        world.clock.advance(1000)
    else:
        await receiver.poll()
    await sender.poll()
    words = {"address": "tells no address", "kinds": "does not know the direct road", "contact": "is offline"}[lacks]
    with pytest.raises(RoadClosed, match=words):
        await begun(world, sender, receiver, Road.DIRECT)
    assert await world.all_transfers() == []
    transfer = await begun(world, sender, receiver)
    assert transfer.road is Road.STAGED
    assert transfer.road_reason is not None
    assert words in transfer.road_reason


async def test_what_was_lost_on_the_way_is_sent_again(world: World, sender: DirectAgent, receiver: DirectAgent) -> None:
    transfer = await begun(world, sender, receiver)
    sender.refuses = {CommandKind.SEND: "receiver_lost"}
    for _ in range(3):
        await turn(world, receiver, sender)
    leg, _ = await legs(world, transfer)
    assert (leg.state, leg.road, leg.attempt) == (State.QUEUED, Road.DIRECT, 2)
    sender.refuses = {}
    for _ in range(10):
        await turn(world, receiver, sender, seconds=5)
    assert (await world.get(transfer.id)).state is State.DONE


async def test_a_good_end_without_its_proof_is_none(world: World, sender: DirectAgent, receiver: DirectAgent) -> None:
    sender.result = {"verified": False}
    transfer = await begun(world, sender, receiver)
    for _ in range(10):
        await turn(world, receiver, sender, seconds=4)
    failed = await world.get(transfer.id)
    assert (failed.state, failed.code, receiver.receive) == (State.FAILED, "receipt_missing", {})


@pytest.mark.parametrize("when", ["held", "moving", "arrived"])
async def test_a_cancel_leaves_nothing_on_either_node(
    world: World, sender: DirectAgent, receiver: DirectAgent, when: str
) -> None:
    transfer = await begun(world, sender, receiver)
    if when != "held":
        await turn(world, receiver)
        await world.work()
        await sender.work(to_the_end=when == "arrived")
        if when == "arrived":
            await world.work()
            assert receiver.hidden
    await cancel_transfer(world.tools, ALICE, transfer.id)
    ended = await to_the_end(world, transfer, receiver, sender)
    assert ended.state is State.CANCELLED
    assert (receiver.receive, receiver.hidden, receiver.open, receiver.has, sender.has) == ({}, {}, {}, {}, {})
    for agent in (sender, receiver):
        assert await world.tools.node_commands.open_of(agent.node.id, None) == []


async def test_a_revoked_grant_refuses_the_retry(world: World, sender: DirectAgent) -> None:
    receiver = await direct_agent(world, BOB, "bobs")
    grant = await grant_node(world.tools, BOB, receiver.node.id, "alice", Terms("/", None, None, None))
    transfer = await begun(world, sender, receiver, Road.DIRECT)
    for _ in range(6):
        await turn(world, receiver, sender)
    assert (await world.get(transfer.id)).state is State.FAILED
    await revoke_grant(world.tools, BOB, receiver.node.id, grant.id)
    with pytest.raises(NodeNotFound):
        await retry_transfer(world.tools, ALICE, transfer.id)


async def test_bytes_count_once_against_the_grant_and_too_many_end_it(world: World, sender: DirectAgent) -> None:
    receiver = await direct_agent(world, BOB, "bobs")
    sender.reaches = {str(receiver.host): receiver}
    await grant_node(world.tools, BOB, receiver.node.id, "alice", Terms("/", 1000, None, None))
    transfer = await begun(world, sender, receiver)
    await turn(world, receiver)
    await world.work()
    await sender.work(to_the_end=False)
    await sender.tell(sender.running(CommandKind.SEND).id, 100, len(CONTENT))
    await to_the_end(world, transfer, receiver, sender)
    (held,) = await world.tools.node_grants.live_of(receiver.node.id, "alice", world.clock.now())
    assert held.used_bytes == len(CONTENT)
    second = await begun(world, sender, receiver)
    failed = await to_the_end(world, second, receiver, sender)
    assert (failed.state, failed.code) == (State.FAILED, "grant_exceeded")
    assert (receiver.hidden, receiver.open) == ({}, {})


async def test_neither_receiving_nor_placing_takes_a_place_of_the_owners(
    world: World, sender: DirectAgent, receiver: DirectAgent
) -> None:
    for number in range(3):
        sender.send[f"/{number}"] = CONTENT
        ends = RelayEnd(sender.system, f"/{number}"), RelayEnd(receiver.system, f"/there/{number}")
        await begin_relay(world.tools, ALICE, *ends)
    await receiver.work()
    assert receiver.told == ["receive"] * 3
    await world.work(2)
    await sender.work(to_the_end=False)
    assert sender.told == ["send"], "one at once, as its owner lets it"
    assert {command.state for command in await world.tools.node_commands.open_of(sender.node.id, None)} == {
        CommandState.RUNNING,
        CommandState.PENDING,
    }


async def test_a_stopped_one_keeps_what_has_arrived_and_goes_on_after_a_retry(
    world: World, sender: DirectAgent, receiver: DirectAgent
) -> None:
    transfer = await begun(world, sender, receiver)
    await turn(world, receiver)
    await world.work()
    await sender.work(to_the_end=False)
    await sender.tell(sender.running(CommandKind.SEND).id, len(CONTENT), len(CONTENT))
    receiver.hidden[transfer.id] = b"half"
    await world.work()
    stopped = await stop_transfer(world.tools, ALICE, transfer.id)
    assert (stopped.state, stopped.code) == (State.FAILED, "stopped")
    assert stopped.reason == "Stopped by alice; a retry goes on from what has arrived."
    assert stopped.retry_until is not None
    assert await stop_transfer(world.tools, ALICE, transfer.id) == stopped, "twice is fine"
    for _ in range(3):
        await turn(world, receiver, sender)
    leg, relay = await legs(world, transfer)
    assert (leg.state, leg.code, leg.bytes_moved) == (State.FAILED, "stopped", len(CONTENT) - 1)
    assert relay.bytes_staged < len(CONTENT), "what is not whole never reads as all"
    assert (sender.has, receiver.open, receiver.hidden) == ({}, {}, {transfer.id: b"half"})
    await retry_transfer(world.tools, ALICE, transfer.id)
    done = await to_the_end(world, transfer, receiver, sender)
    assert (done.state, receiver.receive) == (State.DONE, {TARGET: CONTENT})


async def test_only_what_waits_or_runs_can_be_stopped(world: World, sender: DirectAgent, receiver: DirectAgent) -> None:
    transfer = await begun(world, sender, receiver)
    await to_the_end(world, transfer, receiver, sender)
    with pytest.raises(Conflict, match="no job of it"):
        await stop_transfer(world.tools, ALICE, transfer.id)


async def test_what_is_given_up_after_a_stop_leaves_nothing(world: World, sender: DirectAgent, receiver: DirectAgent) -> None:
    transfer = await begun(world, sender, receiver)
    await turn(world, receiver)
    receiver.hidden[transfer.id] = b"half"
    await stop_transfer(world.tools, ALICE, transfer.id)
    for _ in range(3):
        await turn(world, receiver, sender)
    await cancel_transfer(world.tools, ALICE, transfer.id)
    await to_the_end(world, transfer, receiver, sender)
    assert (receiver.hidden, receiver.open) == ({}, {})
    assert all(row.cleaned for row in await world.all_transfers())


async def test_a_changed_sealing_key_closes_the_road_for_what_waits(
    world: World, sender: DirectAgent, receiver: DirectAgent
) -> None:
    transfer = await begun(world, sender, receiver)
    world.settings = world_settings(nodes={"sealing_key": "another one, of 32 and more letters"})
    world.tools = world.toolbox()
    done = await to_the_end(world, transfer, receiver, sender)
    assert (done.state, done.road, receiver.told) == (State.DONE, Road.STAGED, ["discard", "move"])
    assert receiver.receive == {TARGET: CONTENT}


async def test_what_is_larger_than_a_node_takes_is_ended_when_it_is_measured(
    world: World, sender: DirectAgent, receiver: DirectAgent
) -> None:
    world.settings = world_settings(nodes={"limits": {"max_file_size_bytes": 100}})
    world.tools = world.toolbox()
    transfer = await begun(world, sender, receiver)
    await turn(world, receiver)
    await world.work()
    await sender.work(to_the_end=False)
    await sender.tell(sender.running(CommandKind.SEND).id, 0, 101)
    failed = await to_the_end(world, transfer, receiver, sender)
    assert (failed.state, failed.code) == (State.FAILED, "size_refused")
    assert (receiver.hidden, receiver.open, sender.has) == ({}, {}, {})
