"""The direct road with agents that lie, transfers that last for weeks, and owners who stop at the wrong moment."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.fakes.direct_agents import DirectAgent, direct_agent
from tests.fakes.world import ALICE, BOB, World, world_settings
from tests.unit.flows.test_direct_road import CONTENT, TARGET, at_once, begun, legs, receiver, sender, to_the_end, turn

from stagecoach.core.errors import Conflict, PathRefused
from stagecoach.core.nodes import CommandKind
from stagecoach.core.transfer import Road, State, Transfer
from stagecoach.database.transfers import Transfers
from stagecoach.flows.begin_relay import RelayEnd, begin_relay
from stagecoach.flows.grant_node import Terms, grant_node
from stagecoach.flows.retry_transfer import retry_transfer
from stagecoach.flows.stop_transfer import stop_transfer
from stagecoach.wire.views import view

__all__ = ["at_once", "receiver", "sender"]  # fixtures
DAY_SECONDS = 24 * 3600


async def sending(world: World, sender: DirectAgent, receiver: DirectAgent) -> Transfer:
    """A transfer whose sender is at work."""
    transfer = await begun(world, sender, receiver)
    await turn(world, receiver)
    await world.work()
    await sender.work(to_the_end=False)
    return transfer


async def with_most_arrived(world: World, sender: DirectAgent, receiver: DirectAgent) -> Transfer:
    """700 of 800 bytes."""
    transfer = await sending(world, sender, receiver)
    await sender.tell(sender.running(CommandKind.SEND).id, 700, 800)
    receiver.hidden[transfer.id] = CONTENT[:700]
    await world.work()
    return transfer


async def bobs_node(world: World, sender: DirectAgent, most_bytes: int | None = None) -> DirectAgent:
    """One that alice may send to."""
    agent = await direct_agent(world, BOB, "bobs")
    sender.reaches = {str(agent.host): agent}
    await grant_node(world.tools, BOB, agent.node.id, "alice", Terms("/", most_bytes, None, None))
    return agent


async def test_what_has_arrived_is_not_thrown_away_for_another_road(
    world: World, sender: DirectAgent, receiver: DirectAgent
) -> None:
    transfer = await with_most_arrived(world, sender, receiver)
    await stop_transfer(world.tools, ALICE, transfer.id)
    for _ in range(3):
        await turn(world, receiver, sender)
    await retry_transfer(world.tools, ALICE, transfer.id)
    for _ in range(3):
        await turn(world, receiver)
    await sender.work(to_the_end=False)
    # Each job counts from zero while it looks at the way; this one does not find it.
    await sender.tell(sender.running(CommandKind.SEND).id, 0, 800)
    sender.refuses = {CommandKind.SEND: "receiver_unreachable"}
    for _ in range(6):
        await turn(world, receiver, sender)
    leg, _ = await legs(world, transfer)
    assert leg.road is Road.DIRECT
    assert receiver.hidden == {transfer.id: CONTENT[:700]}


async def test_a_transfer_of_weeks_outlives_what_would_be_in_a_store(
    world: World, sender: DirectAgent, receiver: DirectAgent
) -> None:
    transfer = await with_most_arrived(world, sender, receiver)
    for _ in range(2 * 8):
        world.clock.advance(DAY_SECONDS / 2)
        for _ in range(2):
            await sender.poll()
            await receiver.poll()
            await world.work(seconds=1)
    sender.refuses = {CommandKind.SEND: "receiver_lost"}
    for _ in range(4):
        await turn(world, receiver, sender)
    leg, _ = await legs(world, transfer)
    assert leg.state is State.QUEUED
    assert receiver.hidden
    await stop_transfer(world.tools, ALICE, transfer.id)
    for _ in range(3):
        await turn(world, receiver, sender)
    assert (await world.get(transfer.id)).retry_until is not None


async def test_whatever_a_sender_says_at_first_all_bytes_count_against_the_grant(world: World, sender: DirectAgent) -> None:
    receiver = await bobs_node(world, sender, most_bytes=100)
    transfer = await sending(world, sender, receiver)
    await sender.tell(sender.running(CommandKind.SEND).id, 0, 1)
    await world.work(3)
    ended = await to_the_end(world, transfer, receiver, sender)
    assert (ended.state, ended.code) == (State.FAILED, "grant_exceeded")
    assert receiver.receive == {}


async def test_what_was_never_measured_on_its_way_is_held_to_the_limit_of_size_too(
    world: World, sender: DirectAgent, receiver: DirectAgent
) -> None:
    world.settings = world_settings(nodes={"limits": {"max_file_size_bytes": 100}})
    world.tools = world.toolbox()
    ended = await to_the_end(world, await begun(world, sender, receiver), receiver, sender)
    assert (ended.state, receiver.receive) == (State.FAILED, {})


async def test_the_receiving_agent_has_no_word_in_what_the_sending_one_found(world: World, sender: DirectAgent) -> None:
    receiver = await bobs_node(world, sender)
    transfer = await sending(world, sender, receiver)
    lie = {"probeBytesPerSecond": 10**400, "words": "bob was here"}
    await receiver.tell(receiver.running(CommandKind.RECEIVE).id, 0, 1, check=lie)
    await sender.tell(sender.running(CommandKind.SEND).id, 5, 800)
    await world.work(3)
    leg, _ = await legs(world, transfer)
    assert await world.tools.network_checks.of(leg.id) is None
    assert leg.bytes_moved == 5


async def test_a_probe_that_nothing_can_reach_breaks_no_look(world: World, sender: DirectAgent, receiver: DirectAgent) -> None:
    transfer = await sending(world, sender, receiver)
    command_id = sender.running(CommandKind.SEND).id
    await sender.tell(command_id, 5, 800, check={"probeBytesPerSecond": 10**400})
    await world.work(3)
    await sender.tell(command_id, 6, 800)
    await world.work(3)
    leg, _ = await legs(world, transfer)
    assert (leg.bytes_moved, leg.failed_looks) == (6, 0)


async def test_notices_that_are_no_text_break_nobodys_list(world: World, sender: DirectAgent, receiver: DirectAgent) -> None:
    sender.result = {"notices": [json.loads('"Links stayed\\ud800."')]}
    transfer = await begun(world, sender, receiver)
    ended = await to_the_end(world, transfer, receiver, sender)
    assert ended.state is State.DONE
    assert ended.notices == ("Links stayed .",)
    assert "Links stayed ." in view(ended).model_dump_json()


async def test_what_takes_its_place_is_not_stopped_halfway(world: World, sender: DirectAgent, receiver: DirectAgent) -> None:
    receiver.receive[TARGET] = b"old"
    transfer = await begun(world, sender, receiver)
    for _ in range(12):
        await world.work(seconds=1)
        await receiver.work(to_the_end=False)
        await sender.work()
        if any(given.command.kind is CommandKind.PLACE for given in receiver.has.values()):
            break
    await world.work()
    assert (await world.get(transfer.id)).state is State.MOVING
    with pytest.raises(Conflict):
        await stop_transfer(world.tools, ALICE, transfer.id)
    assert (await to_the_end(world, transfer, receiver, sender)).state is State.DONE
    assert receiver.receive == {TARGET: CONTENT}


async def test_a_comparison_is_no_stall(world: World, sender: DirectAgent, receiver: DirectAgent) -> None:
    transfer = await sending(world, sender, receiver)
    await sender.tell(sender.running(CommandKind.SEND).id, 800, 800)
    for _ in range(5):
        await sender.poll()
        await receiver.poll()
        await world.work(seconds=20)
    leg, relay = await legs(world, transfer)
    assert (leg.state, leg.notices, relay.notices) == (State.MOVING, (), ())


@pytest.mark.parametrize("name", [".stagecoach-01m83cwnkzmg2svgdb04ak5vx7.part", ".Stagecoach-x.PART"])
async def test_nobodys_target_is_in_the_hidden_folder_of_another(
    world: World, sender: DirectAgent, receiver: DirectAgent, name: str
) -> None:
    for path in (f"/{name}", f"/a/{name}/b"):
        with pytest.raises(PathRefused):
            await begin_relay(world.tools, ALICE, RelayEnd(sender.system, "/run1/file"), RelayEnd(receiver.system, path))


async def test_the_receiving_node_is_told_what_may_come_and_ends_what_is_more(world: World, sender: DirectAgent) -> None:
    receiver = await bobs_node(world, sender, most_bytes=5000)
    transfer = await sending(world, sender, receiver)
    receive, sends = receiver.running(CommandKind.RECEIVE), sender.running(CommandKind.SEND)
    assert receive.spec["maxBytes"] == 5000, "nothing is known yet but the grant"
    assert (await receiver.tell(receive.id, 1, 1)).max_bytes == 5000
    await sender.tell(sends.id, 1, 800)
    await world.work(3)
    assert (await receiver.tell(receive.id, 2, 2)).max_bytes == 800, "what was measured is counted, and no more may come"
    leg, _ = await legs(world, transfer)
    assert leg.bytes_moved == 1, "how far it is its sender says"
    receiver.hidden[transfer.id] = CONTENT * 9
    receiver.refuses = {CommandKind.RECEIVE: "size_mismatch"}
    await receiver.work()
    await world.work(2)
    failed = await to_the_end(world, transfer, receiver, sender)
    assert (failed.state, failed.code, failed.retry_until) == (State.FAILED, "size_mismatch", None)
    assert "The agent says size_mismatch." in str(failed.reason)
    assert (receiver.hidden, receiver.receive, receiver.has, sender.has) == ({}, {}, {}, {})


async def test_a_full_receiver_ends_the_transfer_and_keeps_what_has_arrived(
    world: World, sender: DirectAgent, receiver: DirectAgent
) -> None:
    transfer = await with_most_arrived(world, sender, receiver)
    receiver.refuses = {CommandKind.RECEIVE: "receiver_full"}
    await receiver.work()
    for _ in range(3):
        await turn(world, sender, receiver)
    failed = await world.get(transfer.id)
    assert (failed.state, failed.code) == (State.FAILED, "receiver_full")
    assert failed.retry_until is not None
    assert (list(receiver.hidden), sender.has) == ([transfer.id], {})
    receiver.refuses = {}
    await retry_transfer(world.tools, ALICE, transfer.id)
    assert (await to_the_end(world, transfer, receiver, sender)).state is State.DONE


async def test_what_is_measured_counts_once_also_where_somebody_else_was_first(
    world: World, sender: DirectAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = await bobs_node(world, sender, most_bytes=5000)
    transfer = await sending(world, sender, receiver)
    await sender.tell(sender.running(CommandKind.SEND).id, 1, 800)
    save, raced = Transfers.save, []

    async def after_another(self: Transfers, row: Transfer, *messages: str, **options: Any) -> Transfer:
        if row.id == transfer.id and not raced:
            raced.append(await save(self, await world.get(row.id), next_check_at=world.tools.now()))
        return await save(self, row, *messages, **options)

    monkeypatch.setattr(Transfers, "save", after_another)
    await world.work(3)
    assert raced
    _, relay = await legs(world, transfer)
    assert relay.size_bytes == 800
    (held,) = await world.tools.node_grants.live_of(receiver.node.id, "alice", world.clock.now())
    assert held.used_bytes == 800


async def test_a_grant_that_another_used_up_at_the_same_moment_refuses(
    world: World, sender: DirectAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = await bobs_node(world, sender, most_bytes=1000)
    transfer = await sending(world, sender, receiver)
    (held,) = await world.tools.node_grants.live_of(receiver.node.id, "alice", world.clock.now())
    await sender.tell(sender.running(CommandKind.SEND).id, 1, 800)
    save, raced = Transfers.save, []

    async def after_another(self: Transfers, row: Transfer, *messages: str, **options: Any) -> Transfer:
        if row.id == transfer.id and not raced:
            raced.append(await world.tools.node_grants.use(held.id, 900, world.clock.now()))
        return await save(self, row, *messages, **options)

    monkeypatch.setattr(Transfers, "save", after_another)
    for _ in range(20):
        await turn(world, sender, receiver, seconds=10)
    assert raced == [True]
    failed = await world.get(transfer.id)
    assert (failed.state, failed.code) == (State.FAILED, "grant_exceeded")
    (held,) = await world.tools.node_grants.live_of(receiver.node.id, "alice", world.clock.now())
    assert held.used_bytes == 900


@pytest.mark.parametrize("ending", ["fails", "is stopped"])
async def test_a_size_that_was_told_just_before_an_end_counts_when_it_goes_on(
    world: World, sender: DirectAgent, ending: str
) -> None:
    receiver = await bobs_node(world, sender, most_bytes=100)
    transfer = await sending(world, sender, receiver)
    await sender.tell(sender.running(CommandKind.SEND).id, 0, 800)
    if ending == "fails":
        sender.refuses = {CommandKind.SEND: "no_space"}
        await sender.work()
        sender.refuses = {}
        await world.work(3)
    else:
        await stop_transfer(world.tools, ALICE, transfer.id)
        for _ in range(3):
            await turn(world, receiver, sender)
    failed = await world.get(transfer.id)
    assert failed.state is State.FAILED
    if failed.code != "grant_exceeded":
        await retry_transfer(world.tools, ALICE, transfer.id)
    ended = await to_the_end(world, transfer, receiver, sender)
    assert (ended.state, ended.code) == (State.FAILED, "grant_exceeded")
    assert receiver.receive == {}


async def test_a_grant_that_is_revoked_before_anything_was_measured_lets_nothing_more_in(
    world: World, sender: DirectAgent
) -> None:
    receiver = await bobs_node(world, sender, most_bytes=5000)
    await sending(world, sender, receiver)
    (receive,) = [given.command for given in receiver.has.values() if given.command.kind is CommandKind.RECEIVE]
    assert (await receiver.tell(receive.id, 1, 1)).max_bytes == 5000
    (held,) = await world.tools.node_grants.live_of(receiver.node.id, "alice", world.clock.now())
    await world.tools.node_grants.revoke(receiver.node.id, held.id, world.clock.now())
    assert (await receiver.tell(receive.id, 2, 2)).max_bytes == 0
