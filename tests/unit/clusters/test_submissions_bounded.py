"""A scheduler that is down refuses submissions at once, for a while, and to nobody for one user's own trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest
from tests.unit.clusters.test_slurm_over_ssh_answers import DOWN, HOST_KEY, OK, PreparedPool

from stagecoach.clusters.slurm_over_ssh import SlurmOverSsh
from stagecoach.clusters.ssh_pool import AnswerLate, AnswerLost, CommandResult, SshPool
from stagecoach.core.errors import SubmissionRefused, SubmissionUncertain, SystemUnavailable
from stagecoach.ports.scheduler import JobKey, JobRequest, ReportsIncomplete
from stagecoach.settings import SystemSettings

REQUEST = JobRequest("n", "/w/job.sh", "/w", "/w/out", "/w/err", held=True)
SUBMITTED = CommandResult(0, "7\n", "")
FROZEN = CommandResult(1, "", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n")
REFUSED = CommandResult(1, "", "sbatch: error: Batch job submission failed: Invalid account\n")
NO_ACCOUNTING_NOW = CommandResult(1, "", "sacct: error: Problem talking to the database: Connection refused\n")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def slurm(pool: object, clock: Clock, **scheduler: object) -> SlurmOverSsh:
    ssh = {"host": "h", "host_keys": [HOST_KEY], "credentials": {"key_file": "/k"}, "queue_timeout_seconds": 0.2}
    values = {"name": "daint", "file_systems": [{"path": "/home"}], "scheduler": scheduler, "ssh": ssh}
    return SlurmOverSsh(SystemSettings.model_validate(values), cast(SshPool, pool), clock=clock)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (DOWN, SystemUnavailable),
        (FROZEN, SubmissionUncertain),
        (AnswerLate("A command took longer than 20 s."), SubmissionUncertain),
    ],
    ids=["dead", "frozen", "hangs"],
)
async def test_a_dead_scheduler_is_asked_by_two_and_then_by_nobody_until_its_rest_is_over(
    clock: Clock, answer: CommandResult | SystemUnavailable, failure: type[SystemUnavailable]
) -> None:
    pool = PreparedPool(sbatch=answer)
    scheduler = slurm(pool, clock)
    for user in ("alice", "bob"):
        scheduler.require_answering(user)
        with pytest.raises(failure):
            await scheduler.submit(user, REQUEST)
    for user in ("alice", "carol", "dave"):
        with pytest.raises(SystemUnavailable, match="tried again within 5 s"):
            scheduler.require_answering(user)
        with pytest.raises(SystemUnavailable) as refusal:
            await scheduler.submit(user, REQUEST)
        # Nothing was submitted, and that is certain.
        assert not isinstance(refusal.value, SubmissionUncertain)
        assert refusal.value.data["retry_after_seconds"] == 5
    assert len(pool.asked) == 2
    clock.now += 5
    pool.answers["sbatch"] = SUBMITTED
    for user in ("carol", "alice", "bob"):
        assert await scheduler.submit(user, REQUEST) == "7"


async def test_the_workers_own_questions_close_and_open_it_as_well(clock: Clock) -> None:
    pool = PreparedPool(squeue=DOWN, sbatch=SUBMITTED)
    scheduler = slurm(pool, clock)
    for user in ("alice", "bob"):
        with pytest.raises(ReportsIncomplete):
            await scheduler.reports([JobKey("7", "n", user)])
    with pytest.raises(SystemUnavailable):
        scheduler.require_answering("carol")
    pool.answers["squeue"] = CommandResult(0, "7|RUNNING|0|0|alice|a|p|n1|100|101|102|None|n|\n", "")
    await scheduler.reports([JobKey("7", "n", "alice")])
    assert await scheduler.submit("carol", REQUEST) == "7"


async def test_one_users_own_trouble_closes_it_to_nobody_else(clock: Clock) -> None:
    def answer(user: str, _: Sequence[str]) -> CommandResult | SystemUnavailable:
        return AnswerLate("A command took longer than 20 s.") if user == "alice" else SUBMITTED

    scheduler = slurm(PreparedPool(sbatch=answer), clock)
    for _ in range(3):
        with pytest.raises(SystemUnavailable):
            await scheduler.submit("alice", REQUEST)
        assert await scheduler.submit("bob", REQUEST) == "7"


@pytest.mark.parametrize(
    "answer",
    [AnswerLost("The connection was lost."), SystemUnavailable("daint cannot be reached."), REFUSED],
    ids=["connection lost", "unreachable", "refused"],
)
async def test_trouble_on_the_way_and_refusals_say_nothing_of_the_scheduler(
    clock: Clock, answer: CommandResult | SystemUnavailable
) -> None:
    scheduler = slurm(PreparedPool(sbatch=answer), clock)
    for user in ("alice", "bob", "carol"):
        with pytest.raises((SystemUnavailable, SubmissionRefused)):
            await scheduler.submit(user, REQUEST)
        scheduler.require_answering(user)


async def test_accounting_that_is_down_does_not_keep_jobs_from_being_submitted(clock: Clock) -> None:
    scheduler = slurm(PreparedPool(squeue=OK, sacct=NO_ACCOUNTING_NOW, sbatch=SUBMITTED), clock)
    for user in ("alice", "bob", "carol"):
        with pytest.raises(ReportsIncomplete):
            await scheduler.reports([JobKey("7", "n", user)])
    assert await scheduler.submit("dave", REQUEST) == "7"


class SlowPool:
    """Each command takes until ``go``."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.running = self.most = 0

    async def run(self, username: str, argv: Sequence[str]) -> CommandResult:
        self.running += 1
        self.most = max(self.most, self.running)
        await self.go.wait()
        self.running -= 1
        return SUBMITTED


async def test_submissions_at_once_are_bounded_and_waiting_for_one_ends(clock: Clock) -> None:
    pool = SlowPool()
    scheduler = slurm(pool, clock, max_submissions_at_once=3)
    waiting = [asyncio.create_task(scheduler.submit(f"user{n}", REQUEST)) for n in range(5)]
    late, still = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
    while len(late) < 2:
        more, still = await asyncio.wait(still, return_when=asyncio.FIRST_EXCEPTION)
        late |= more
    for task in late:
        with pytest.raises(SystemUnavailable, match=r"busy with earlier submissions.*No job was submitted"):
            task.result()
    pool.go.set()
    assert await asyncio.gather(*still) == ["7"] * 3
    assert pool.most == 3
