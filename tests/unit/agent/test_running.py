"""The agent's rounds: what it takes and says, and that no end, crash or lost answer repeats or loses anything."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from tests.fakes.node_service import CREDENTIAL, QueuedCommand
from tests.unit.agent.conftest import DONE, World, soon

from stagecoach.agent.errors import CredentialRefused
from stagecoach.agent.journal import Ending, Journal
from stagecoach.agent.running import MOST_AT_ONCE
from stagecoach.mover.stagecoach_mover import Failed

FAILED = Ending(1, "no_space", "There is no room.")
INTERRUPTED = Ending(75, "interrupted", "The mover was stopped.")


def move(world: World, command_id: str, transfer_id: str | None = None, **more: object) -> QueuedCommand:
    return world.service.queue(
        command_id,
        spec={"direction": "fetch"},
        transfer_id=transfer_id or f"t{command_id}",
        ticket_url=lambda: f"http://store/{command_id}?X-Amz-Signature=secret{world.service.commands[command_id].attempt}",
        **more,
    )


def states(world: World) -> dict[str, str]:
    return {entry.id: str(entry.state) for entry in Journal(world.state.commands, lambda: world.now)}


async def test_commands_are_taken_in_order_and_their_ends_are_told(world: World) -> None:
    first, second = move(world, "1"), move(world, "2")
    async with world.running():
        await world.mover.finish("1")
        await world.mover.finish("2", FAILED)
        await soon(lambda: set(states(world).values()) == {"acknowledged"})
    assert world.mover.log == ["begin 1", "end 1", "forget t1", "begin 2", "end 2"]
    assert (first.ending.exit_code, first.ending.code, first.ending.message) == (0, None, "moved")
    assert (second.ending.exit_code, second.ending.code, second.ending.message) == (1, "no_space", "There is no room.")
    assert [one.attempt for one in (*first.starts, *second.starts, *first.ends, *second.ends)] == [1, 1, 1, 1]
    assert (world.state.moves / "t1" / "ticket-url").read_text() == "http://store/1?X-Amz-Signature=secret1"


async def test_as_many_run_at_once_as_the_service_delivers(world: World) -> None:
    world.service.parallel = 3
    for command_id in "1234":
        move(world, command_id)
    async with world.running():
        await soon(lambda: len(world.mover.endings) == 3)
        assert world.service.commands["4"].state == "pending"
        await world.mover.finish("2")
        await soon(lambda: "4" in world.mover.endings)
        for command_id in "134":
            await world.mover.finish(command_id)
        await soon(lambda: set(states(world).values()) == {"acknowledged"})


async def test_the_agent_takes_no_more_than_the_machine_bears(world: World) -> None:
    world.service.parallel = 100
    for number in range(MOST_AT_ONCE + 4):
        move(world, f"c{number:02}")
    async with world.running():
        await soon(lambda: len(world.mover.endings) == MOST_AT_ONCE and world.service.polls[-1].capacity == 0)
        for number in range(4):
            await world.mover.finish(f"c{number:02}")
        await soon(lambda: len(world.mover.endings) == MOST_AT_ONCE and world.service.polls[-1].capacity == 0)


async def test_what_was_not_done_when_the_agent_ended_is_taken_up_again(world: World) -> None:
    command = move(world, "1")
    async with world.running():
        await soon(lambda: command.starts)
    assert states(world) == {"1": "taken"}
    assert not command.ends
    async with world.running():
        await world.mover.finish("1")
        await soon(lambda: command.ends)
    assert world.mover.log[:4] == ["begin 1", "end 1", "begin 1", "end 1"]
    assert command.ending.code is None


async def test_what_is_done_just_when_the_agent_ends_is_done(world: World) -> None:
    command = move(world, "1")
    async with world.running():
        await soon(lambda: command.starts)
        world.service.is_away = True
        world.mover.endings["1"].set_result(DONE)
        world.stop.set()
    assert states(world) == {"1": "ended"}
    world.service.is_away = False
    async with world.running():
        await soon(lambda: command.ends)
    assert world.mover.log.count("begin 1") == 1


@pytest.mark.parametrize("what", ["started", "ended", "poll"])
async def test_a_lost_answer_changes_nothing(world: World, what: str) -> None:
    world.service.lost[what] = 3
    command = move(world, "1")
    async with world.running():
        await soon(lambda: world.service.lost[what] == 0 or what == "ended")
        await world.mover.finish("1")
        await soon(lambda: set(states(world).values()) == {"acknowledged"})
    assert world.mover.log == ["begin 1", "end 1", "forget t1"]
    assert len(command.ends) == (4 if what == "ended" else 1)
    assert {one.code for one in command.ends} == {None}


async def test_while_the_service_is_away_pauses_grow_and_work_goes_on(world: World) -> None:
    command = move(world, "1")
    async with world.running():
        await soon(lambda: command.starts)
        world.service.is_away = True
        world.pauses.clear()
        await world.mover.finish("1")
        await soon(lambda: world.pauses.count(60.0) >= 2)
        assert states(world) == {"1": "ended"}
        world.service.is_away = False
        await soon(lambda: states(world) == {"1": "acknowledged"})
    assert {1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0} <= set(world.pauses)
    assert max(world.pauses) == 60.0


async def test_a_ticket_gets_another_address_before_the_old_one_ends(world: World) -> None:
    signed: list[str] = []

    def sign() -> str:
        signed.append(f"http://store/1?X-Amz-Signature=secret{len(signed)}")
        return signed[-1]

    world.service.poll_seconds = 1
    command = world.service.queue("1", spec={"direction": "fetch"}, transfer_id="t1", ticket_url=sign, ticket_seconds=1000)
    async with world.running():
        await soon(lambda: command.starts)
        polls = len(world.service.polls)
        await soon(lambda: len(world.service.polls) > polls + 1)
        assert len(signed) == 1, "not before half of its time is over"
        world.now += 600
        await soon(lambda: len(world.mover.urls) == 2)
        polls = len(world.service.polls)
        await soon(lambda: len(world.service.polls) > polls + 1)
        assert world.mover.urls == signed
        assert len(signed) == 2, "it is asked for once"
        await world.mover.finish("1")
        await soon(lambda: command.ends)


async def test_what_waited_for_longer_than_its_address_works_is_given_another_one_first(world: World) -> None:
    world.service.poll_seconds = 1
    command = move(world, "1", ticket_seconds=1000)
    async with world.running():
        await soon(lambda: command.starts)
    assert world.mover.log == ["begin 1", "end 1"]
    world.now += 5000
    async with world.running():
        await soon(lambda: len(world.mover.log) > 2)
        assert len(world.mover.urls) == 2, "the mover is not begun with an address that is over"
        await world.mover.finish("1")
        await soon(lambda: command.ends)
    assert command.ending.code is None


async def test_a_command_that_is_delivered_again_is_not_done_again(world: World) -> None:
    command = move(world, "1")
    async with world.running():
        await soon(lambda: command.starts)
        world.service.again.add("1")
        move(world, "2")
        await soon(lambda: [one.attempt for one in command.starts] == [1, 2])
        assert (world.state.moves / "t1" / "ticket-url").read_text().endswith("secret2")
        await world.mover.finish("1")
        await soon(lambda: command.ends)
        assert command.ending.attempt == 2
        await world.mover.finish("2")
        # Out of an old backup of the service, say.
        command.state, before = "delivered", len(command.ends)
        await soon(lambda: len(command.ends) > before)
    assert world.mover.log.count("begin 1") == 1
    assert command.ending.code is None


async def test_two_commands_of_one_transfer_never_run_side_by_side(world: World) -> None:
    world.service.parallel = 2
    move(world, "1", "t")
    move(world, "2", "t")
    async with world.running():
        await soon(lambda: set(states(world)) == {"1", "2"} and "1" in world.mover.endings)
        await world.mover.finish("1", INTERRUPTED)
        await world.mover.finish("2")
        await soon(lambda: set(states(world).values()) == {"acknowledged"})
    assert world.mover.log == ["begin 1", "end 1", "begin 2", "end 2", "forget t"]


async def test_cancel_stops_and_removes(world: World) -> None:
    command = move(world, "1")
    async with world.running():
        await soon(lambda: command.starts)
        command.cancel_asked = True
        await soon(lambda: command.ends)
    assert world.mover.log == ["begin 1", "end 1", "discard t1"]
    assert (command.ending.exit_code, command.ending.code) == (143, "cancelled")


async def test_cancel_of_what_waits_for_its_turn(world: World) -> None:
    world.service.parallel = 2
    move(world, "1", "t")
    waiting = move(world, "2", "t")
    async with world.running():
        await soon(lambda: "2" in states(world))
        waiting.cancel_asked = True
        await soon(lambda: waiting.ends)
        assert waiting.ending.code == "cancelled"
        await world.mover.finish("1")
    # The other one needs what there is of the transfer.
    assert "discard t" not in world.mover.log
    assert "begin 2" not in world.mover.log


async def test_what_is_done_before_the_cancel_arrives_is_said_to_be_done(world: World) -> None:
    command = move(world, "1")
    async with world.running():
        await soon(lambda: command.starts)
        world.mover.endings["1"].set_result(DONE)
        command.cancel_asked = True
        await soon(lambda: command.ends)
    assert command.ending.code is None
    assert "discard t1" not in world.mover.log


async def test_a_cancelled_command_that_never_arrived_is_told_to_have_ended(world: World) -> None:
    command = world.service.queue("9", cancel_asked=True, state="delivered")
    world.service.lost["poll"] = 1
    async with world.running():
        await soon(lambda: command.ends)
    assert command.ending.code == "cancelled"


@pytest.mark.parametrize("when", ["running", "started"])
async def test_what_is_no_longer_this_nodes_is_stopped_and_removed(world: World, when: str) -> None:
    command = move(world, "1")
    async with world.running():
        if when == "running":
            await soon(lambda: command.starts)
        else:
            await soon(lambda: command.attempt)
        world.service.unknown.add("1")
        move(world, "2")  # an answer is due
        await soon(lambda: "1" not in states(world))
        await soon(lambda: "discard t1" in world.mover.log)
    assert not command.ends


async def test_an_end_that_the_service_will_not_have_is_dropped(world: World) -> None:
    command = move(world, "1")
    async with world.running():
        await soon(lambda: command.starts)
        world.service.is_away = True
        await world.mover.finish("1", INTERRUPTED)
        await soon(lambda: states(world) == {"1": "ended"})
        del world.service.commands["1"]
        world.service.is_away = False
        await soon(lambda: states(world).get("1") != "ended")


async def test_a_revoked_node_ends_and_its_movers_too(world: World) -> None:
    command = move(world, "1")
    with pytest.raises(CredentialRefused, match=r"The node was revoked\. Nothing more is moved\."):
        async with world.running() as task:
            await soon(lambda: command.starts)
            world.service.is_revoked = True
            await asyncio.wait({task})
    assert world.mover.log == ["begin 1", "end 1"]
    assert states(world) == {"1": "taken"}


async def test_a_proxys_refusal_is_not_the_services(world: World) -> None:
    async with world.running():
        await soon(lambda: world.service.polls)
        world.service.is_away = True
        await soon(lambda: world.service.refused >= 3)
        assert not world.stop.is_set()


async def test_a_command_that_this_agent_does_not_know_fails_and_the_next_goes_on(world: World) -> None:
    odd, next_one = world.service.queue("1", kind="from_the_future"), move(world, "2")
    async with world.running():
        await world.mover.finish("2")
        await soon(lambda: odd.ends and next_one.ends)
    assert odd.ending.code == "command_unsupported"
    assert "update" in odd.ending.message


async def test_what_a_transfer_has_left_can_be_removed_by_command(world: World) -> None:
    command = world.service.queue("1", kind="discard", transfer_id="t1")
    async with world.running():
        await soon(lambda: command.ends)
    assert command.ending.code is None
    assert "discard t1" in world.mover.log


@pytest.mark.parametrize("lasting", [Failed("discard_failed", "It stays."), OSError(30, "Read-only file system")])
async def test_what_cannot_be_removed_is_not_said_to_be(world: World, lasting: Exception) -> None:
    world.mover.lasting = lasting
    discard, moving = world.service.queue("1", kind="discard", transfer_id="t1"), move(world, "2")
    async with world.running():
        await soon(lambda: discard.ends and moving.starts)
        moving.cancel_asked = True
        await soon(lambda: moving.ends)
    assert (discard.ending.code, discard.ending.exit_code) == ("discard_failed", 1)
    assert ("It stays." if isinstance(lasting, Failed) else "Read-only") in discard.ending.message
    assert (moving.ending.code, "was removed" in moving.ending.message) == ("cancelled", False)


async def test_a_mover_that_cannot_be_started_is_no_end_of_the_agent(world: World) -> None:
    world.mover.trouble = OSError(11, "Resource temporarily unavailable")
    command = move(world, "1")
    async with world.running():
        await soon(lambda: command.ends)
    assert (command.ending.code, "Resource temporarily unavailable" in command.ending.message) == ("interrupted", True)


async def test_the_node_is_renamed(world: World) -> None:
    async with world.running():
        await soon(lambda: world.service.polls)
        world.service.rename_to = "lab two"
        await soon(lambda: (known := world.state.enrolment()) is not None and known.name == "lab two")


async def test_a_poll_tells_of_the_machine_and_waits_less_than_a_third_of_a_lease(world: World) -> None:
    world.service.lease_seconds = 9
    await world.enrolled()
    (world.folder / "receive").rmdir()
    async with world.running():
        move(world, "1")
        await soon(lambda: len(world.service.polls) > 1)
    poll = world.service.polls[1]
    assert poll.wait_seconds == 3
    assert poll.free_bytes.receive is None
    assert poll.free_bytes.send is not None
    assert poll.health == ["The receive directory is not there."]
    assert poll.capacity > 0
    seen = json.loads(world.state.status_file.read_text())
    assert seen["health"] == poll.health


async def test_no_secret_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "stagecoach")
    command = move(world, "1")
    async with world.running():
        await world.mover.finish("1")
        await soon(lambda: command.ends)
        world.service.is_away = True
        await soon(lambda: world.service.refused)
    assert "Command 1 is taken" in caplog.text
    for secret in ("X-Amz", CREDENTIAL, "secret1"):
        assert secret not in caplog.text


async def test_old_commands_are_forgotten_and_old_remains_removed(world: World) -> None:
    command = move(world, "1")
    async with world.running():
        await world.mover.finish("1", FAILED)
        await soon(lambda: command.ends)
    world.now += 8 * 24 * 3600
    (world.state.moves / "t2").mkdir(exist_ok=True)
    assert states(world) == {"1": "acknowledged"}
    async with world.running():
        await soon(lambda: "discard t1" in world.mover.log)
    assert states(world) == {}
