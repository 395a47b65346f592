"""The process dies before any call to anything outside while an operation is begun, followed, cancelled or retried."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.fakes.world import ALICE, Crash, Process, World, open_world, world_settings
from tests.unit.flows.test_crashes import KEPT_SECONDS, repaired, work

from stagecoach.core.errors import StagecoachError
from stagecoach.core.operations import Operation
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows.begin_operation import OperationRequest, begin_operation
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.retry_transfer import retry_transfer
from stagecoach.ports.scheduler import JobPhase

SOURCE, TARGET = "/home/alice/source", "/home/alice/target"
CONTENT = b"content " * 100
REQUEST = OperationRequest(Operation.MOVE, TARGET, SOURCE)

Story = Callable[[World, Process], Awaitable[None]]


async def move(world: World, process: Process) -> None:
    await begin_operation(world.toolbox(process), ALICE, "alps", REQUEST)
    for _ in range(4):
        await work(world, process)
        world.let_cluster_work()


async def move_whose_submission_is_not_answered(world: World, process: Process) -> None:
    world.scheduler.lose_answers = ["late"]
    with suppress(StagecoachError):
        await begin_operation(world.toolbox(process), ALICE, "alps", REQUEST)
    await work(world, process, 3)


async def moving(world: World) -> Transfer:
    transfer = (await begin_operation(world.tools, ALICE, "alps", REQUEST)).transfer
    world.nodes.move_some(transfer.job_id or "", 10)
    await world.work()
    return transfer


async def move_whose_node_fails(world: World, process: Process) -> None:
    transfer = await moving(world)
    world.nodes.end_with(transfer.job_id or "", JobPhase.NODE_FAIL)
    await work(world, process, 8, seconds=10)
    for _ in range(3):
        world.let_cluster_work()
        await work(world, process, 2)


async def cancel(world: World, process: Process) -> None:
    transfer = await moving(world)
    await cancel_transfer(world.toolbox(process), ALICE, transfer.id)
    await work(world, process, 2)


async def retry(world: World, process: Process) -> None:
    transfer = await moving(world)
    world.nodes.end_with(transfer.job_id or "", JobPhase.TIMEOUT)
    await world.work(4, seconds=20)
    assert (await world.get(transfer.id)).state is State.FAILED
    await retry_transfer(world.toolbox(process), ALICE, transfer.id)
    for _ in range(4):
        await work(world, process)
        world.let_cluster_work()


STORIES: list[tuple[Story, set[State]]] = [
    (move, {State.DONE, State.FAILED}),
    (move_whose_submission_is_not_answered, {State.FAILED}),
    (move_whose_node_fails, {State.DONE}),
    (cancel, {State.CANCELLED, State.DONE}),
    (retry, {State.DONE, State.FAILED}),
]


@pytest.mark.parametrize(("story", "ends"), STORIES, ids=[story.__name__ for story, _ in STORIES])
async def test_the_worker_alone_repairs_it(
    tmp_path: Path, database_template: Path, story: Story, ends: set[State], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    settings = world_settings(alps={"limits": {"keep_failed_seconds": KEPT_SECONDS}})
    for crash_at in itertools.count(1):
        process = Process(crash_at)
        async with open_world(tmp_path, database_template, settings) as world:
            world.files.add_file(SOURCE, "alice", CONTENT)
            with suppress(Crash):
                await story(world, process)
            where = process.where
            end = await repaired(world) if await world.all_transfers() else None
            assert world.left_outside() == [], where
            content = {path: world.files.entries[path].content for path in (SOURCE, TARGET) if path in world.files.entries}
            assert content == {TARGET if end is State.DONE else SOURCE: CONTENT}, where
            names = [what for verb, _, what in world.scheduler.calls if verb == "submit"]
            assert len(names) == len(set(names)) or process.is_dead, where
            assert end in ends or (end is None and process.is_dead), (where, end)
            if not process.is_dead:
                break
    assert crash_at > 5, "the story has hardly any steps; the test would be empty"
