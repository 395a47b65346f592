"""A system that hangs delays nobody elsewhere: not requests, not the worker's looks, not the database's connections."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tests.fakes.systems import MemoryScheduler
from tests.fakes.world import ALICE, BOB, World

from stagecoach.core.transfer import State
from stagecoach.flows.begin_transfer import begin_download, begin_upload
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.ports.scheduler import JobKey, JobReport
from stagecoach.settings.run_time import SettingsInForce
from stagecoach.worker import Worker


class Hanging:
    """A plug whose every call hangs until ``thaw``; ``waiting`` counts who hangs."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing
        self.thawed = asyncio.Event()
        self.waiting = 0

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._thing, name)
        if not asyncio.iscoroutinefunction(member):
            return member

        async def call(*arguments: Any, **options: Any) -> Any:
            self.waiting += 1
            try:
                await self.thawed.wait()
            finally:
                self.waiting -= 1
            return await member(*arguments, **options)

        return call


def with_hanging_bora(world: World) -> tuple[Toolbox, Hanging, Hanging]:
    """``alps`` is well; ``bora``'s scheduler and files hang."""
    scheduler, files = Hanging(MemoryScheduler(901)), Hanging(world.files)
    bora = System(world.tools.systems["bora"].settings, scheduler, files, world.compute)
    return replace(world.tools, systems={**world.tools.systems, "bora": bora}), scheduler, files


async def hanging(plug: Hanging, count: int) -> None:
    while plug.waiting < count:
        await asyncio.sleep(0)


async def test_requests_that_wait_for_one_system_hold_neither_others_nor_the_database(world: World) -> None:
    tools, _, files = with_hanging_bora(world)
    stuck = [
        asyncio.create_task(begin_upload(tools, caller, "bora", f"/home/{caller.username}/{n}", 10, "project"))
        for n in range(50)
        for caller in (ALICE, BOB)
    ]
    await asyncio.wait_for(hanging(files, 100), 20)
    # As many as there are, and none of them holds a connection.
    assert world.engine.pool.checkedout() == 0
    for number in range(10):
        begun = await asyncio.wait_for(begin_upload(tools, ALICE, "alps", f"/home/alice/{number}", 10), 5)
        assert begun.transfer.state is State.RECEIVING
    assert not any(task.done() for task in stuck)
    files.thawed.set()
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)


async def test_the_workers_looks_elsewhere_go_on_while_a_scheduler_hangs(world: World) -> None:
    tools, scheduler, files = with_hanging_bora(world)
    files.thawed.set()
    scheduler.thawed.set()
    world.files.add_file("/home/alice/data", "alice", b"data")
    settings = world.settings.worker
    slow = [(await begin_download(tools, ALICE, "bora", "/home/alice/data", "project")).transfer for _ in range(3)]
    scheduler.thawed.clear()
    worker = Worker(tools, "worker-1", asyncio.Event())
    world.clock.advance(settings.poll_min_seconds * 2)
    await worker.round()
    await asyncio.wait_for(hanging(scheduler, 1), 20)
    content = b"0123456789"
    quick = await begin_upload(tools, ALICE, "alps", "/home/alice/quick", len(content))
    assert world.put_by_client(quick, content)
    for _ in range(12):
        world.clock.advance(2)
        world.let_cluster_work()
        await worker.round()
        others = [task for task in worker._under_way if not task.done()]
        # The hanging look stays; every other one ends.
        await asyncio.wait_for(_all_but_one(others), 20)
    assert (await world.get(quick.transfer.id)).state is State.DONE
    assert world.engine.pool.checkedout() == 0
    assert scheduler.waiting == 1
    for transfer in slow:
        assert (await world.get(transfer.id)).state is State.QUEUED
    scheduler.thawed.set()
    await worker.settle()


async def _all_but_one(tasks: Sequence[asyncio.Task[None]]) -> None:
    while sum(not task.done() for task in tasks) > 1:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=0.05)


async def test_a_flood_of_due_rows_of_a_hanging_system_leaves_room_in_every_round(world: World) -> None:
    tools, scheduler, files = with_hanging_bora(world)
    files.thawed.set()
    scheduler.thawed.set()
    tools = replace(
        tools,
        settings_in_force=SettingsInForce(
            tools.settings.model_copy(update={"worker": world.settings.worker.model_copy(update={"batch_size": 5})})
        ),
    )
    world.files.add_file("/home/alice/data", "alice", b"data")
    for _ in range(20):
        await begin_download(tools, ALICE, "bora", "/home/alice/data", "project")
    world.clock.advance(1)
    quick = await begin_download(tools, ALICE, "alps", "/home/alice/data")
    scheduler.thawed.clear()
    asked: list[Sequence[JobKey]] = []
    real = world.scheduler.reports

    async def reports(jobs: Sequence[JobKey]) -> Mapping[str, JobReport]:
        asked.append(jobs)
        return await real(jobs)

    world.scheduler.reports = reports  # type: ignore[method-assign]
    worker = Worker(tools, "worker-1", asyncio.Event())
    world.clock.advance(60)
    for _ in range(4):
        await worker.round()
        await asyncio.sleep(0)
    await asyncio.wait_for(_until(lambda: bool(asked)), 20)
    assert [key.job_id for key in asked[0]] == [quick.transfer.job_id]
    scheduler.thawed.set()
    await worker.settle()


async def _until(look: Any) -> None:
    while not look():
        await asyncio.sleep(0.01)
