"""The process dies before any call of a transfer to or from a node; another worker, later, repairs everything."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from tests.fakes.node_agent import NodeAgent
from tests.fakes.world import ALICE, Crash, Process, World, open_world

from stagecoach.core.nodes import AgentReport, Node, system_name
from stagecoach.core.transfer import State
from stagecoach.flows import cancel_transfer as cancelling
from stagecoach.flows.begin_transfer import begin_download, begin_upload
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.enrol_node import enrol_node
from stagecoach.flows.finish_transfer import finish_transfer
from stagecoach.flows.note_command import note_end, note_start
from stagecoach.flows.poll_node import poll_node
from stagecoach.flows.register_node import register_node

CONTENT = b"content " * 100
PATH, INSTANCE = "/run1/file", "instance00000001"


class Lab:
    """A node of alice's with an agent that lives as long as the world."""

    def __init__(self, world: World, node: Node) -> None:
        self.world, self.node = world, node
        self.agent = NodeAgent(httpx.AsyncClient(), world.store.follow)
        self.agent.send = {PATH: CONTENT}

    @property
    def system(self) -> str:
        return system_name(self.node.id)

    async def work(self, *, to_the_end: bool = True) -> None:
        """One poll; what it gives is carried out, and what is to be cancelled has ended."""
        tools = self.world.tools
        report = AgentReport(INSTANCE, "1", "x", running=tuple(self.agent.has), capacity=1)
        answer = await poll_node(tools, self.node, report, 0, _never)
        for command_id in (*answer.cancel, *answer.unknown):
            self.agent.has.pop(command_id, None)
            await self._end(command_id, 1, 143)
        for given in answer.commands:
            command = given.command
            shown = {"ticketUrl": given.ticket_url, "spec": command.spec}
            self.agent.has[command.id] = shown
            with suppress(cancelling.Conflict):
                await note_start(tools, self.node, INSTANCE, command.id, command.attempt)
        for command_id, shown in list(self.agent.has.items()) if to_the_end else ():
            del self.agent.has[command_id]
            await self._end(command_id, 1, self.agent.move(shown))

    async def _end(self, command_id: str, attempt: int, exit_code: int) -> None:
        words = {"code": None, "message": None, "result": None}
        await note_end(self.world.tools, self.node, INSTANCE, command_id, attempt, exit_code=exit_code, **words)


async def _never() -> bool:
    return False


async def a_lab(world: World) -> Lab:
    made = await register_node(world.tools, ALICE, "archive")
    enrolled = await enrol_node(world.tools, made.enrolment_token, INSTANCE, version="1", platform="x", address=None)
    return Lab(world, enrolled.node)


Story = Callable[[Lab, Process], Awaitable[None]]


async def work(lab: Lab, process: Process) -> None:
    """A round of a worker in the process that will die."""
    worker = lab.world.worker(process)
    lab.world.clock.advance(1)
    await worker.round()
    await worker.settle()
    if process.is_dead:
        raise Crash


async def upload(lab: Lab, process: Process) -> None:
    begun = await begin_upload(lab.world.toolbox(process), ALICE, lab.system, PATH, len(CONTENT))
    await work(lab, process)
    assert lab.world.put_by_client(begun, CONTENT)
    for _ in range(5):
        await work(lab, process)
        await lab.work()


async def download(lab: Lab, process: Process) -> None:
    begun = await begin_download(lab.world.toolbox(process), ALICE, lab.system, PATH)
    for _ in range(4):
        await lab.work()
        await work(lab, process)
    await finish_transfer(lab.world.toolbox(process), ALICE, begun.transfer.id)
    await work(lab, process)


async def cancel_of_a_held_one(lab: Lab, process: Process) -> None:
    begun = await begin_upload(lab.world.tools, ALICE, lab.system, PATH, len(CONTENT))
    await cancel_transfer(lab.world.toolbox(process), ALICE, begun.transfer.id)
    await work(lab, process)


async def cancel_of_a_running_one(lab: Lab, process: Process) -> None:
    begun = await begin_upload(lab.world.tools, ALICE, lab.system, PATH, len(CONTENT))
    assert lab.world.put_by_client(begun, CONTENT)
    await lab.world.work(2)
    await lab.work(to_the_end=False)
    await lab.world.work()
    await cancel_transfer(lab.world.toolbox(process), ALICE, begun.transfer.id)
    for _ in range(3):
        await lab.work(to_the_end=False)
        await work(lab, process)


STORIES: list[tuple[Story, set[State]]] = [
    (upload, {State.DONE}),
    (download, {State.DONE, State.EXPIRED}),
    (cancel_of_a_held_one, {State.CANCELLED}),
    (cancel_of_a_running_one, {State.CANCELLED}),
]


async def repaired(lab: Lab) -> State | None:
    """By another process's worker, from well after the crash on, until nothing is left to do."""
    world, worker = lab.world, lab.world.worker(name="another")
    world.clock.advance(world.settings.worker.lease_seconds + 1)
    seconds = 20.0
    for round_number in itertools.count():
        await world.work(seconds=seconds, worker=worker)
        await lab.work()
        transfers = await world.all_transfers()
        if not transfers:
            return None
        (transfer,) = transfers
        if round_number > 1 and transfer.next_check_at is None:
            assert transfer.cleaned
            return transfer.state
        if transfer.next_check_at is not None:
            seconds = max(20.0, (transfer.next_check_at - world.clock.now()).total_seconds())
        if round_number == 6 and transfer.state in {State.STAGED, State.RECEIVING}:
            world.clock.advance(11 * 24 * 3600)
        assert round_number < 120, f"still {transfer.state}, clean: {transfer.cleaned}, next look: {transfer.next_check_at}"
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
            lab = await a_lab(world)
            with suppress(Crash):
                await story(lab, process)
            where = process.where
            end = await repaired(lab)
            assert world.left_outside() == [], where
            assert await world.tools.node_commands.open_of(lab.node.id, None) == [], where
            assert lab.agent.receive in ({}, {PATH: CONTENT}), where
            assert (end is State.DONE) == (lab.agent.receive != {}) or story is download, where
            if not process.is_dead:
                assert end in ends, where
                break
    assert crash_at >= 4, "the story has hardly any steps; the test would be empty"
