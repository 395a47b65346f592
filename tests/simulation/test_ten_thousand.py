"""Ten thousand transfers open at once: what three workers ask of the scheduler and of the store in ten minutes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select
from tests.fakes.counted import Calls, Counted
from tests.fakes.systems import MemoryScheduler
from tests.fakes.world import World, migrated_database, world_settings
from tests.simulation.figures import memory_mib
from tests.unit.core.transfers import a_transfer

from stagecoach.core.names import job_name, new_transfer_id, object_key
from stagecoach.core.transfer import Direction, State, Transfer
from stagecoach.database.engine import open_engine, reading, writing
from stagecoach.database.tables import transfers
from stagecoach.database.transfers import _to_row
from stagecoach.flows.toolbox import System
from stagecoach.ports.scheduler import JobKey, JobPhase, JobReport
from stagecoach.worker import Worker

COUNT, OWNERS, WORKERS, MINUTES, STEP_SECONDS = 10_000, 300, 3, 10, 2.5


class FullQueue(MemoryScheduler):
    """Knows all jobs at once, and counts who asks."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.asks = Calls()
        self.asked_for: list[int] = []

    async def reports(self, jobs: list[JobKey]) -> dict[str, JobReport]:  # type: ignore[override]
        self.asks.note(self._world.clock.now().timestamp())
        self.asked_for.append(len(jobs))
        return {job.job_id: self.jobs[job.job_id] for job in jobs}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """With ten thousand rows: 6,000 jobs wait in the queue, 500 run, 3,500 uploads wait for their clients."""
    await migrated_database(tmp_path / "full.db")
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path / 'full.db'}")
    world = World(engine, world_settings(worker={"scheduler_asks_per_minute": 12}))
    world.scheduler = FullQueue(world)
    dice = random.Random(7)
    rows = []
    for number in range(COUNT):
        row = _row(world, number, dice)
        await world.store.ensure_bucket(row.bucket)
        if row.state is State.RECEIVING:
            row = replace(row, upload_id=await world.store.open_multipart(row.bucket, object_key(row.id)))
        rows.append(row)
    async with writing(engine) as connection:
        await connection.execute(insert(transfers), [_to_row(row) for row in rows])
    yield world
    await engine.dispose()


def _row(world: World, number: int, dice: random.Random) -> Transfer:
    now = world.clock.now()
    transfer_id, owner = new_transfer_id(now.timestamp(), dice.getrandbits), f"user{number % OWNERS}"
    state = State.QUEUED if number % 20 < 12 else State.RECEIVING if number % 20 < 19 else State.MOVING
    job_id, name = str(50_000_000 + number), job_name(transfer_id, 1)
    phase = {State.QUEUED: JobPhase.PENDING, State.RECEIVING: JobPhase.HELD, State.MOVING: JobPhase.RUNNING}[state]
    reason = "Priority" if phase is JobPhase.PENDING else ""
    world.scheduler.jobs[job_id] = JobReport(job_id, name, phase, phase.upper(), reason, user=owner)
    transfer = a_transfer(
        id=transfer_id,
        owner=owner,
        system="alps",
        state=state,
        direction=Direction.UPLOAD if state is State.RECEIVING else Direction.DOWNLOAD,
        bucket=f"stagecoach-{owner}",
        job_id=job_id,
        job_name=name,
        changed_at=now - timedelta(hours=dice.uniform(1, 5)),
        expires_at=now + timedelta(days=5),
        next_check_at=now + timedelta(seconds=dice.uniform(0, 30 if state is not State.RECEIVING else 300)),
    )
    return replace(transfer, job_state=phase.upper(), job_reason=reason or None)


@pytest.mark.timeout(900)
async def test_ten_thousand_open_transfers_cost_a_handful_of_questions_and_few_requests(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler: FullQueue = world.scheduler  # type: ignore[assignment]
    store = Counted(world.store, world.clock.now)
    workers = []
    for number in range(WORKERS):
        tools = world.toolbox()
        systems = {
            name: System(system.settings, scheduler, system.files, system.compute) for name, system in tools.systems.items()
        }
        workers.append(Worker(replace(tools, store=store, systems=systems), f"worker-{number}", asyncio.Event()))
    memory = []
    for step in range(int(MINUTES * 60 / STEP_SECONDS)):
        world.clock.advance(STEP_SECONDS)
        for worker in (*workers[step % WORKERS :], *workers[: step % WORKERS]):
            while await worker.round():
                await worker.settle()
        memory.append(memory_mib())
    a_minute = store.all.total / MINUTES
    with capsys.disabled():
        print(
            f"\n{COUNT} open: {scheduler.asks.total} asks in {MINUTES} minutes, "
            f"{scheduler.asks.most_in_a_minute} in the fullest, "
            f"for {max(scheduler.asked_for)} jobs at most; {a_minute:.0f} requests to the store a minute; "
            f"memory {memory[len(memory) // 3]:.0f} → {memory[-1]:.0f} MiB"
        )
    assert scheduler.asks.most_in_a_minute <= 12
    assert scheduler.asks.total >= 2 * MINUTES
    # 500 that move are looked at twice a minute, 3,500 that wait every five minutes, with two requests each; the 6,000
    # in the queue once an hour, with one.
    assert a_minute < 500 * 2 * 2.5 + 3500 / 5 * 2 * 1.3 + 6000 / 60 * 2
    assert memory[-1] < 1.2 * memory[len(memory) // 3]
    async with reading(world.engine) as connection:
        states = (await connection.execute(select(transfers.c.state, func.count()).group_by(transfers.c.state))).all()
    assert {row[0]: row[1] for row in states} == {"queued": 6000, "moving": 500, "receiving": 3500}
