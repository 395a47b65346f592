"""The process dies before any call of a transfer straight from node to node; another worker, later, repairs it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.fakes.direct_agents import DirectAgent, direct_agent
from tests.fakes.world import ALICE, Crash, Process, World, open_world

from stagecoach.core.errors import StagecoachError
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows import cancel_transfer as cancelling
from stagecoach.flows.begin_relay import RelayEnd, begin_relay
from stagecoach.flows.cancel_transfer import cancel_transfer

CONTENT = b"content " * 100
SOURCE, TARGET = "/run1/file", "/from alice/file"


@dataclass
class Lab:
    """Two nodes whose agents live as long as the world."""

    world: World
    sender: DirectAgent
    receiver: DirectAgent

    async def begin(self, process: Process | None = None) -> Transfer:
        tools = self.world.toolbox(process)
        ends = RelayEnd(self.sender.system, SOURCE), RelayEnd(self.receiver.system, TARGET)
        return (await begin_relay(tools, ALICE, *ends)).transfer

    async def work(self, *, to_the_end: bool = True) -> None:
        """Both agents ask once, and do what they are told."""
        await self.receiver.work(to_the_end=to_the_end)
        await self.sender.work(to_the_end=to_the_end)


Story = Callable[[Lab, Process], Awaitable[None]]


async def work(lab: Lab, process: Process) -> None:
    """A round of a worker in the process that will die."""
    worker = lab.world.worker(process)
    lab.world.clock.advance(1)
    await worker.round()
    await worker.settle()
    if process.is_dead:
        raise Crash


async def straight(lab: Lab, process: Process) -> None:
    await lab.begin(process)
    for _ in range(7):
        await lab.work()
        await work(lab, process)


async def fall_back(lab: Lab, process: Process) -> None:
    lab.sender.reaches = {}
    await lab.begin()
    await lab.work()
    await lab.world.work()
    await lab.work()
    for _ in range(8):
        await work(lab, process)
        await lab.work()


async def another_try(lab: Lab, process: Process) -> None:
    reaches, lab.sender.reaches = lab.sender.reaches, {}
    transfer = await lab.begin()
    # Something has arrived, so it does not fall back.
    leg = await lab.world.get(transfer.source_transfer_id or "")
    await lab.world.transfers.save(lost(leg), next_check_at=lab.world.clock.now())
    await lab.work()
    await lab.world.work()
    await lab.work()
    lab.sender.reaches = reaches
    for _ in range(3):
        await work(lab, process)
        await lab.work()


def lost(leg: Transfer) -> Transfer:
    return replace(leg, bytes_moved=1, size_bytes=len(CONTENT))


async def cancel_on_the_way(lab: Lab, process: Process) -> None:
    transfer = await lab.begin()
    await lab.work()
    await lab.world.work()
    await lab.work(to_the_end=False)
    await cancel_transfer(lab.world.toolbox(process), ALICE, transfer.id)
    for _ in range(3):
        await lab.work()
        await work(lab, process)


STORIES: list[tuple[Story, set[State]]] = [
    (straight, {State.DONE}),
    (fall_back, {State.DONE}),
    (another_try, {State.DONE, State.FAILED}),
    (cancel_on_the_way, {State.CANCELLED}),
]


async def repaired(lab: Lab) -> State | None:
    """By another process's worker, from well after the crash on, until nothing is left to do; how the transfer ended."""
    world, worker = lab.world, lab.world.worker(name="another")
    world.clock.advance(world.settings.worker.lease_seconds + 1)
    for round_number in itertools.count():
        await lab.work()
        await world.work(seconds=20.0, worker=worker)
        rows = await world.all_transfers()
        if not rows:
            return None
        (relay,) = (row for row in rows if row.is_relay)
        if round_number > 1 and all(row.next_check_at is None for row in rows):
            assert all(row.cleaned for row in rows)
            await lab.work()
            return relay.state
        if round_number > 30 and relay.state is State.FAILED:
            # Nobody retries it.
            world.clock.advance(11 * 24 * 3600)
        assert round_number < 80, f"still {[(row.state, row.code, row.cleaned, row.next_check_at) for row in rows]}"
    raise AssertionError


@pytest.mark.parametrize(("story", "ends"), STORIES, ids=[story.__name__ for story, _ in STORIES])
async def test_a_crash_between_any_two_steps_is_repaired_by_the_worker_alone(
    tmp_path: Path,
    database_template: Path,
    story: Story,
    ends: set[State],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(cancelling, "LOOK_SECONDS", 0)
    monkeypatch.setattr(cancelling, "INLINE_SECONDS", 0.3)
    for crash_at in itertools.count(1):
        process = Process(crash_at)
        directory = tmp_path / str(crash_at)
        directory.mkdir()
        async with open_world(directory, database_template) as world:
            sender, receiver = await direct_agent(world, ALICE, "lab"), await direct_agent(world, ALICE, "vault")
            sender.send[SOURCE] = CONTENT
            sender.reaches = {str(receiver.host): receiver}
            lab = Lab(world, sender, receiver)
            with suppress(Crash, StagecoachError):
                await story(lab, process)
            where = process.where
            end = await repaired(lab)
            assert world.left_outside() == [], where
            for agent in (sender, receiver):
                assert await world.tools.node_commands.open_of(agent.node.id, None) == [], where
                assert (agent.has, agent.open, agent.hidden) == ({}, {}, {}), where
            assert (end is State.DONE) == (receiver.receive == {TARGET: CONTENT}), where
            if not process.is_dead:
                assert end in ends, where
                break
    assert crash_at >= 4, "the story has hardly any steps; the test would be empty"
