"""What the plug for users' own jobs concludes from several answers, with a pool that gives prepared ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
from tests.fakes.systems import MemoryFiles
from tests.unit.clusters.test_slurm_over_ssh_answers import DOWN, HOST_KEY, NO_ACCOUNTING, NO_DATABASE
from tests.unit.clusters.test_slurm_users_answers import ACCOUNTED, QUEUED, SEPARATOR, printed

from stagecoach.clusters.slurm_compute import SlurmCompute, new_separator
from stagecoach.clusters.ssh_pool import AnswerLate, AnswerLost, CommandResult, SshPool
from stagecoach.core.errors import Conflict, JobNotFound, StagecoachError, SubmissionUncertain, SystemUnavailable
from stagecoach.ports.compute import JobDescription, WantedJobs
from stagecoach.ports.scheduler import JobPhase
from stagecoach.settings import SystemSettings

NOW = 1795286500.0
EMPTY = CommandResult(0, "", "")
UNKNOWN = CommandResult(1, "", "slurm_load_jobs error: Invalid job id specified\n")
JOB = JobDescription("/home/alice", script="#!/bin/sh\n# é\n")
COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "srun", "sacctmgr")


class PreparedPool:
    """Answers by command name; ``asked`` holds each command with what came on its input."""

    def __init__(self, **answers: CommandResult | StagecoachError) -> None:
        self.answers: dict[str, CommandResult | StagecoachError] = {**dict.fromkeys(COMMANDS, EMPTY), **answers}
        self.asked: list[tuple[str, Sequence[str], bytes | None]] = []

    async def run(self, username: str, argv: Sequence[str], *, stdin: bytes | None = None, **_: Any) -> CommandResult:
        name = next(word for word in argv if word in COMMANDS)
        self.asked.append((name, argv, stdin))
        answer = self.answers[name]
        if isinstance(answer, StagecoachError):
            raise answer
        return answer

    def names(self) -> list[str]:
        return [name for name, _, _ in self.asked]


def compute(pool: PreparedPool) -> SlurmCompute:
    ssh = {"host": "h", "host_keys": [HOST_KEY], "credentials": {"key_file": "/k"}}
    settings = SystemSettings.model_validate({"name": "daint", "file_systems": [{"path": "/home"}], "ssh": ssh})
    files = MemoryFiles()
    for username in ("alice", "bob"):
        files.add_user(username)
    return SlurmCompute(
        settings, cast(SshPool, pool), files, clock=lambda: 0.0, wall_clock=lambda: NOW, separator=lambda: SEPARATOR
    )


def rows(*given: dict[str, str]) -> CommandResult:
    return CommandResult(0, printed(*given), "")


def test_separators_differ_and_begin_with_no_digit() -> None:
    made = {new_separator() for _ in range(100)}
    assert len(made) == 100
    assert all(not one[0].isdigit() and "," not in one and ":" not in one for one in made)


async def test_the_script_is_all_that_comes_on_input() -> None:
    pool = PreparedPool(sbatch=CommandResult(0, "107\n", ""))
    assert await compute(pool).submit("alice", JOB) == "107"
    [(_, argv, stdin)] = pool.asked
    assert stdin == JOB.script.encode() if JOB.script else False
    assert not any("é" in word for word in argv)
    await compute(pool).submit("alice", JobDescription("/home/alice", script_path="/home/alice/x"))
    assert pool.asked[1][2] is None


async def test_a_submission_whose_answer_is_lost_may_have_made_a_job() -> None:
    with pytest.raises(SubmissionUncertain):
        await compute(PreparedPool(sbatch=AnswerLost("cut"))).submit("alice", JOB)


async def test_the_queue_is_believed_before_accounting() -> None:
    pool = PreparedPool(
        squeue=rows(QUEUED), sacct=rows({**ACCOUNTED, "JobIDRaw": "103"}, {**ACCOUNTED, "JobIDRaw": "99", "JobID": "99"})
    )
    found = await compute(pool).list_jobs("alice", WantedJobs())
    assert [(job.report.job_id, job.report.phase) for job in found] == [("99", JobPhase.CANCELLED), ("103", JobPhase.RUNNING)]


async def test_what_the_queue_remembers_beyond_the_window_is_left_out() -> None:
    ended = {**QUEUED, "State": "COMPLETED", "EndTime": str(int(NOW) - 100)}
    pool = PreparedPool(squeue=rows(ended))
    assert len(await compute(pool).list_jobs("alice", WantedJobs(window_seconds=101))) == 1
    assert await compute(pool).list_jobs("alice", WantedJobs(window_seconds=99)) == []


async def test_only_what_the_queue_has_forgotten_is_asked_of_accounting() -> None:
    pool = PreparedPool(squeue=rows(QUEUED))
    [job] = await compute(pool).show_job("alice", "103", of_everyone=False)
    assert (job.report.phase, pool.names()) == (JobPhase.RUNNING, ["squeue"])
    pool = PreparedPool(squeue=UNKNOWN, sacct=rows(ACCOUNTED))
    [job] = await compute(pool).show_job("alice", "103", of_everyone=False)
    assert (job.report.phase, pool.names()) == (JobPhase.CANCELLED, ["squeue", "sacct"])


async def test_a_job_that_waits_for_two_partitions_is_one_job() -> None:
    waiting = {**QUEUED, "State": "PENDING"}
    pool = PreparedPool(squeue=rows({**waiting, "Partition": "a"}, {**waiting, "Partition": "b"}))
    assert len(await compute(pool).show_job("alice", "103", of_everyone=False)) == 1
    assert len(await compute(pool).list_jobs("alice", WantedJobs())) == 1


async def test_the_unfinished_tasks_of_an_array_come_first() -> None:
    tasks = [
        {**QUEUED, "JobID": "103"},
        {**QUEUED, "JobID": "104", "State": "COMPLETED"},
        {**QUEUED, "JobID": "102", "State": "FAILED"},
    ]
    pool = PreparedPool(squeue=rows(*tasks, {**QUEUED, "JobID": "500", "ArrayJobID": "500"}))
    found = await compute(pool).show_job("alice", "103", of_everyone=False)
    assert [job.report.job_id for job in found] == ["103", "102", "104"]


@pytest.mark.parametrize(
    ("squeue", "sacct", "kind"),
    [
        (UNKNOWN, EMPTY, JobNotFound),
        (UNKNOWN, NO_ACCOUNTING, JobNotFound),
        (UNKNOWN, NO_DATABASE, SystemUnavailable),
        (UNKNOWN, rows({**ACCOUNTED, "State": "RUNNING"}), JobNotFound),
        (rows({**QUEUED, "UserName": "bob"}), rows({**ACCOUNTED, "User": "bob"}), JobNotFound),
        (DOWN, rows(ACCOUNTED), SystemUnavailable),
    ],
)
async def test_unknown_is_not_the_same_as_not_answered(
    squeue: CommandResult, sacct: CommandResult, kind: type[StagecoachError]
) -> None:
    with pytest.raises(kind) as told:
        await compute(PreparedPool(squeue=squeue, sacct=sacct)).show_job("alice", "103", of_everyone=False)
    assert type(told.value) is kind


async def test_the_script_of_a_job_that_the_controller_forgot_comes_from_accounting() -> None:
    forgotten = CommandResult(1, "", "job script retrieval failed: Invalid job id specified\n")
    pool = PreparedPool(scontrol=forgotten, squeue=UNKNOWN, sacct=rows(ACCOUNTED))
    papers = await compute(pool).show_papers("alice", "103")
    assert (papers.script, papers.output_path) == (None, None)
    assert pool.names()[-1] == "sacct"
    with pytest.raises(JobNotFound):
        await compute(PreparedPool(scontrol=forgotten, squeue=UNKNOWN, sacct=rows({**ACCOUNTED, "User": "bob"}))).show_papers(
            "alice", "103"
        )


async def test_nothing_is_attached_to_what_does_not_run() -> None:
    pool = PreparedPool(squeue=rows({**QUEUED, "State": "PENDING"}))
    with pytest.raises(Conflict):
        await compute(pool).attach("alice", "103", "true")
    assert "srun" not in pool.names()


async def test_a_dead_controller_is_asked_once_by_each_of_two_and_then_by_nobody() -> None:
    pool = PreparedPool(squeue=DOWN, scontrol=DOWN)
    plug = compute(pool)
    for username in ("alice", "bob", "carol", "alice"):
        with pytest.raises(SystemUnavailable):
            await plug.nodes(username)
    assert len(pool.asked) == 2


async def test_accounting_that_is_down_closes_nothing() -> None:
    pool = PreparedPool(sacctmgr=NO_DATABASE, squeue=rows(QUEUED))
    plug = compute(pool)
    for username in ("alice", "bob"):
        with pytest.raises(SystemUnavailable):
            await plug.accounts(username)
    assert len(await plug.show_job("alice", "103", of_everyone=False)) == 1


@pytest.mark.parametrize(
    "answer",
    [
        AnswerLate("A command on daint took longer than 20 s."),
        AnswerLost("A command on daint printed more than 33554432 bytes."),
        CommandResult(127, "", "sh: 1: program: not found"),
        CommandResult(0, "", "sbatch: Job 8 to start at 2026-11-22T20:00:00 using 1 processors on nodes n1"),
        CommandResult(1, "", "sbatch: error: invalid partition specified: connection refused\nsbatch: error: no"),
    ],
    ids=["waits", "prints without end", "not found", "test only", "words of his own"],
)
async def test_what_users_do_with_their_submissions_closes_the_scheduler_to_nobody(
    answer: CommandResult | StagecoachError,
) -> None:
    pool = PreparedPool(sbatch=answer, squeue=rows(QUEUED))
    plug = compute(pool)
    for username in ("alice", "bob", "alice", "bob"):
        with pytest.raises(SystemUnavailable):
            await plug.submit(username, JOB)
    assert pool.names() == ["sbatch"] * 4
    assert await plug.list_jobs("carol", WantedJobs(of_everyone=True))


async def test_what_an_attached_command_says_closes_the_scheduler_to_nobody() -> None:
    pool = PreparedPool(
        squeue=rows(QUEUED, {**QUEUED, "UserName": "bob"}),
        srun=CommandResult(1, "", "srun: error: Unable to contact slurm controller"),
    )
    plug = compute(pool)
    for username in ("alice", "alice", "bob"):
        with pytest.raises(StagecoachError):
            await plug.attach(username, "103", "x")
    assert pool.names().count("srun") == 3
    assert await plug.list_jobs("carol", WantedJobs(of_everyone=True))


async def test_a_submission_that_reaches_no_controller_is_remembered_and_nobody_reads_anothers_words() -> None:
    dead = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)\n"
    pool = PreparedPool(sbatch=CommandResult(1, "", "alice's secret start files\n" + dead))
    plug = compute(pool)
    for username in ("alice", "bob"):
        with pytest.raises(SystemUnavailable, match="does not take jobs"):
            await plug.submit(username, JOB)
    with pytest.raises(
        SystemUnavailable, match=r"^The scheduler of daint does not answer\. It is tried again within 5 s\.$"
    ) as told:
        await plug.nodes("carol")
    assert type(told.value) is SystemUnavailable
    assert pool.names() == ["sbatch", "sbatch"]


async def test_a_question_that_takes_too_long_is_remembered_one_on_a_way_that_is_cut_is_not() -> None:
    for answer, asked in ((AnswerLate("late"), 2), (AnswerLost("cut"), 3), (SystemUnavailable("no session"), 3)):
        pool = PreparedPool(scontrol=answer)
        plug = compute(pool)
        for username in ("alice", "bob", "carol"):
            with pytest.raises(SystemUnavailable):
                await plug.nodes(username)
        assert len(pool.asked) == asked


async def test_where_slurm_is_said_wrongly_everybody_reads_so() -> None:
    plug = compute(PreparedPool(scontrol=CommandResult(127, "", "sh: scontrol: not found")))
    for username in ("alice", "bob", "carol"):
        with pytest.raises(SystemUnavailable, match=r"scheduler\.binaries"):
            await plug.nodes(username)
