"""A day of a busy centre: the real worker and the real database, clients and a cluster that follow a dice, a clock that jumps.

``python -m tests.simulation.day --transfers 10000 --workers 3`` prints what :class:`Day` counts. ``DATABASE_URL`` names a
PostgreSQL to use instead of an SQLite file; its tables must be migrated and empty.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import json
import logging
import os
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from tests.fakes.counted import Calls, Counted
from tests.fakes.systems import Entry, MemoryScheduler
from tests.fakes.world import World, migrated_database, world_settings
from tests.simulation.figures import Figures, memory_mib

from stagecoach.core.access import Caller
from stagecoach.core.errors import Conflict
from stagecoach.core.transfer import State
from stagecoach.database.engine import open_engine
from stagecoach.database.system_polls import SystemPolls
from stagecoach.database.tables import transfer_history, transfers
from stagecoach.flows.begin_transfer import begin_download, begin_upload
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.finish_transfer import finish_transfer
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.ports.scheduler import JobKey, JobPhase, JobReport
from stagecoach.worker import Worker

log = logging.getLogger(__name__)

HOUR = 3600.0
USERS = 50
# Real workers look twice a second. Here they do so for the first minutes of each hour only: the rest of it is jumped through.
CLOSE_SECONDS, CLOSE_STEP_SECONDS, WIDE_STEP_SECONDS = 60.0, 0.5, 30.0
FORGOTTEN_AFTER_SECONDS = 2 * HOUR


asking: ContextVar[bool] = ContextVar("asking", default=False)


class WatchedPolls(SystemPolls):
    """Tells the ask for all from a look at one transfer's job."""

    async def win(self, system: str, now: datetime, questions_per_minute: int) -> bool:
        won = await super().win(system, now, questions_per_minute)
        asking.set(won)
        return won

    async def settle(self, system: str, won_at: datetime, now: datetime, questions: int, questions_per_minute: int) -> None:
        asking.set(False)
        await super().settle(system, won_at, now, questions, questions_per_minute)


class Tree(dict[str, Entry]):
    """Paths and what is there; knows what lies in a directory without looking at all of them."""

    def __init__(self, entries: dict[str, Entry]) -> None:
        super().__init__()
        self.inside: defaultdict[str, set[str]] = defaultdict(set)
        for path, entry in entries.items():
            self[path] = entry

    def __setitem__(self, path: str, entry: Entry) -> None:
        super().__setitem__(path, entry)
        self.inside[path.rpartition("/")[0]].add(path)

    def __delitem__(self, path: str) -> None:
        super().__delitem__(path)
        self.inside[path.rpartition("/")[0]].discard(path)
        self.inside.pop(path, None)


class Cluster(MemoryScheduler):
    """A scheduler that tells what happens to its jobs and forgets them, as a real one does."""

    def __init__(self, happens: Callable[[str, JobPhase], None], now: Callable[[], datetime]) -> None:
        super().__init__()
        self._happens = happens
        self._now = now
        self.asks, self.looks_at_one = Calls(), Calls()
        self.submissions: Counter[str] = Counter()
        self.jobs_asked_for = 0

    def _called(self, verb: str, username: str, what: object) -> None:
        if verb == "submit":
            self.submissions[str(what)] += 1

    async def reports(self, jobs: Sequence[JobKey]) -> dict[str, JobReport]:
        (self.asks if asking.get() else self.looks_at_one).note(self._now().timestamp())
        self.jobs_asked_for += len(jobs)
        return dict(await super().reports(jobs))

    def set_phase(self, job_id: str, phase: JobPhase, *, state: str | None = None, reason: str = "") -> None:
        super().set_phase(job_id, phase, state=state, reason=reason)
        self._happens(job_id, phase)


class Day:
    """``count`` transfers, all begun in the first 24th of ``hours`` and open until their turn in a long queue comes."""

    def __init__(self, engine: Any, count: int, workers: int, hours: float, seed: int = 1) -> None:
        limits = {"upload_seconds": int(8 * HOUR), "max_open_transfers_per_user": 10 * count}
        settings = world_settings(
            alps={"limits": limits},
            bora={"limits": limits},
            worker={"scheduler_asks_per_minute": 12},
            s3={"bucket_lifecycle_configuration": {"days": 2, "abort_incomplete_multipart_days": 2}},
        )
        self._world = World(engine, settings)
        self._clock = self._world.clock
        self._dice = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], Awaitable[None] | None]]] = []
        self._order = itertools.count()
        self._cluster = Cluster(self._job_happens, self._clock.now)
        self._world.scheduler = self._world.nodes.scheduler = self._cluster
        self._world.files.entries = Tree(self._world.files.entries)
        self._callers = [Caller(f"user{number}") for number in range(USERS)]
        for caller in self._callers:
            self._world.files.uids[caller.username] = 2000 + len(self._world.files.uids)
            self._world.files.add_user(caller.username)
        self._world.files.remove_tree = self._remove_tree  # type: ignore[method-assign]
        self._store = Counted(self._world.store, self._clock.now)
        self._asked = Counted(self._cluster, self._clock.now)
        self._begun = 0
        self._hours = hours
        self.figures = Figures(count, workers)
        self._tools = self._toolbox()
        self._workers = [Worker(self._toolbox(), f"worker-{number}", asyncio.Event()) for number in range(workers)]
        for number in range(count):
            self._at(self._dice.uniform(0, hours * HOUR / 24), lambda number=number: self._begin(number))  # type: ignore[misc]

    def _toolbox(self) -> Toolbox:
        tools = self._world.toolbox()
        systems = {
            name: System(system.settings, self._asked, system.files, system.compute) for name, system in tools.systems.items()
        }
        return replace(tools, store=self._store, systems=systems, polls=WatchedPolls(self._world.engine))

    def _seconds(self) -> float:
        return (self._clock.time - self._began).total_seconds() if hasattr(self, "_began") else 0.0

    def _at(self, seconds: float, event: Callable[[], Awaitable[None] | None]) -> None:
        heapq.heappush(self._events, (seconds, next(self._order), event))

    def _after(self, seconds: float, event: Callable[[], Awaitable[None] | None]) -> None:
        self._at(self._seconds() + seconds, event)

    async def live(self) -> Figures:
        """Until every transfer has ended and is cleaned."""
        begun_at, self._began = time.monotonic(), self._clock.time
        next_hour = 0.0
        while (next_seconds := await self._next_happening()) is not None:
            in_hour = self._seconds() % HOUR
            step = CLOSE_STEP_SECONDS if in_hour < CLOSE_SECONDS else WIDE_STEP_SECONDS
            self._clock.advance(max(step, next_seconds))
            while self._events and self._events[0][0] <= self._seconds():
                happened = heapq.heappop(self._events)[2]()
                if happened is not None:
                    await happened
            # One after the other begins, so that none is always first; they look side by side.
            first = self.figures.rounds % len(self._workers)
            for worker in (*self._workers[first:], *self._workers[:first]):
                await worker.round()
            for worker in self._workers:
                await worker.settle()
            self.figures.rounds += 1
            if self._seconds() >= next_hour:
                next_hour += HOUR
                self._forget_old_jobs()
                self.figures.memory_mib.append((self._seconds() / HOUR, memory_mib()))
                count_open = await self._count_open()
                self.figures.most_open = max(self.figures.most_open, count_open)
                log.info("hour %.1f: %d open, %.0f MiB", self._seconds() / HOUR, count_open, memory_mib())
            if self._seconds() > 4 * 24 * HOUR:
                break
        self.figures.seconds = time.monotonic() - begun_at
        await self._judge()
        return self.figures

    async def _begin(self, number: int) -> None:
        caller, tools, dice = self._callers[number % USERS], self._tools, self._dice
        if dice.random() < 0.5:
            content = dice.randbytes(dice.randint(1, 20))
            begun = await begin_upload(tools, caller, "alps", f"/home/{caller.username}/up{number}", len(content))
            transfer_id = begun.transfer.id
            if dice.random() < 0.97:
                finishes = dice.random() < 0.5

                def put() -> Awaitable[None] | None:
                    self._world.put_by_client(begun, content)
                    return self._finish(caller, transfer_id) if finishes else None

                self._after(self._minutes(), put)
        else:
            path = f"/home/{caller.username}/down{number}"
            self._world.files.add_file(path, caller.username, dice.randbytes(dice.randint(1, 20)))
            transfer_id = (await begin_download(tools, caller, "alps", path)).transfer.id
        if dice.random() < 0.04:
            self._after(self._minutes(), lambda: self._cancel(caller, transfer_id))

    def _minutes(self) -> float:
        """Mostly minutes, now and then hours."""
        return min(self._dice.lognormvariate(6.5, 1.5), 10 * HOUR)

    async def _finish(self, caller: Caller, transfer_id: str) -> None:
        try:
            await finish_transfer(self._tools, caller, transfer_id)
        except Conflict:
            # It was cancelled, has failed or has expired meanwhile.
            return

    async def _cancel(self, caller: Caller, transfer_id: str) -> None:
        try:
            await cancel_transfer(self._tools, caller, transfer_id)
        except Conflict:
            return

    def _job_happens(self, job_id: str, phase: JobPhase) -> None:
        if phase is JobPhase.PENDING:
            self._after(self._dice.uniform(0, 0.9 * self._hours * HOUR), lambda: self._start(job_id))
        elif phase is JobPhase.RUNNING:
            runs = min(self._dice.lognormvariate(5, 1.5), 5 * HOUR)
            for part in (0.25, 0.5, 0.75):
                self._after(runs * part, lambda part=part: self._progress(job_id, part))  # type: ignore[misc]
            self._after(runs, lambda: self._end(job_id))

    def _start(self, job_id: str) -> None:
        job = self._cluster.jobs.get(job_id)
        if job is not None and job.phase is JobPhase.PENDING:
            self._cluster.set_phase(job_id, JobPhase.RUNNING)

    def _progress(self, job_id: str, part: float) -> None:
        job = self._cluster.jobs.get(job_id)
        if job is None or job.phase is not JobPhase.RUNNING:
            return
        directory = self._cluster.requests[job_id].directory
        if f"{directory}/ticket-url" in self._world.files.entries and (ticket := self._world.nodes.ticket(directory)):
            content = {"version": 1, "transfer_id": ticket["transfer_id"], "bytes_done": int(10 * part)}
            self._world.store.follow("PUT", str(ticket["progress_url"]), json.dumps(content).encode())

    def _end(self, job_id: str) -> None:
        job = self._cluster.jobs.get(job_id)
        if job is None or job.phase is not JobPhase.RUNNING:
            return
        fate = self._dice.random()
        if fate < 0.02:
            # Put back into the queue by the scheduler; it runs again.
            self._cluster.set_phase(job_id, JobPhase.PENDING)
        elif fate < 0.05:
            ways = [JobPhase.FAILED, JobPhase.TIMEOUT, JobPhase.NODE_FAIL, JobPhase.OUT_OF_MEMORY, JobPhase.CANCELLED]
            self._cluster.set_phase(job_id, self._dice.choice(ways))
        else:
            self._world.nodes.run(job_id)
            transfer_id, user = self._cluster.requests[job_id].directory.rpartition("/")[2], job.user
            if "/down" in str(self._cluster.requests[job_id]) or self._dice.random() < 0.9:
                self._after(self._minutes(), lambda: self._finish_download(Caller(user), transfer_id))

    async def _finish_download(self, caller: Caller, transfer_id: str) -> None:
        transfer = await self._world.get(transfer_id)
        if transfer.state is State.STAGED:
            await self._finish(caller, transfer_id)

    def _forget_old_jobs(self) -> None:
        """Neither fakes nor a scheduler keep what ended long ago."""
        now = self._seconds()
        for job_id, job in list(self._cluster.jobs.items()):
            if job.phase.is_final and job.end_time is None:
                self._cluster.jobs[job_id] = replace(job, end_time=int(now))
            elif job.phase.is_final and now - (job.end_time or 0) > FORGOTTEN_AFTER_SECONDS:
                self._cluster.forget(job_id)
                del self._cluster.requests[job_id]

    async def _remove_tree(self, username: str, path: str) -> None:
        entries: Tree = self._world.files.entries  # type: ignore[assignment]
        for inside in list(entries.inside.get(path, ())):
            await self._remove_tree(username, inside)
        if path in entries:
            del entries[path]

    async def _count(self, *conditions: Any) -> int:
        async with self._world.engine.connect() as connection:
            query = select(func.count()).select_from(transfers).where(*conditions)
            return int((await connection.execute(query)).scalar_one())

    async def _next_happening(self) -> float | None:
        """Seconds until something happens or is due; None when nothing ever will."""
        async with self._world.engine.connect() as connection:
            due = (await connection.execute(select(func.min(transfers.c.next_check_at)))).scalar_one()
        moments = [self._events[0][0] - self._seconds()] if self._events else []
        moments += [(due - self._clock.time).total_seconds()] if due is not None else []
        return min(moments, default=None)

    async def _count_open(self) -> int:
        return await self._count(transfers.c.ended_at.is_(None))

    async def _judge(self) -> None:
        figures = self.figures
        async with self._world.engine.connect() as connection:
            rows = await connection.execute(select(transfers.c.state, func.count()).group_by(transfers.c.state))
            figures.ends = {row[0]: row[1] for row in rows}
            ended = transfer_history.c.state == State.DONE.value
            query = select(transfer_history.c.transfer_id, func.count()).where(ended).group_by(transfer_history.c.transfer_id)
            figures.done_twice = sum(number > 1 for _, number in await connection.execute(query))
        figures.not_ended = await self._count(transfers.c.ended_at.is_(None) | transfers.c.cleaned.is_(False))
        figures.left = self._world.left_outside()
        figures.submitted_twice = sum(number > 1 for number in self._cluster.submissions.values())
        figures.asks = self._cluster.asks
        others = {name: calls.total for name, calls in self._asked.by_name.items() if name != "reports"}
        figures.scheduler_calls = {**others, "looks at one job": self._cluster.looks_at_one.total}
        figures.jobs_asked_for = self._cluster.jobs_asked_for
        figures.store_calls, figures.most_store_calls_a_minute = self._store.all.total, self._store.all.most_in_a_minute
        figures.ended_after_hours = self._seconds() / HOUR


async def a_day(count: int, workers: int, hours: float, directory: Path) -> Figures:
    """The figures of such a day, on ``DATABASE_URL`` or in ``directory``."""
    url = os.environ.get("DATABASE_URL", "")
    if not url.startswith("postgresql"):
        path = directory / "day.db"
        await migrated_database(path)
        url = f"sqlite+aiosqlite:///{path}"
    engine = open_engine(url, 20)
    try:
        return await Day(engine, count, workers, hours).live()
    finally:
        await engine.dispose()


def main() -> None:
    """For the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transfers", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--hours", type=float, default=24.0, help="how long the queue is")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as directory:
        print(asyncio.run(a_day(arguments.transfers, arguments.workers, arguments.hours, Path(directory))).text())


if __name__ == "__main__":
    main()
