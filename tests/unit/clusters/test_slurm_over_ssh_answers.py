"""What the Slurm plug concludes from several answers, with a pool that gives prepared ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import pytest

from stagecoach.clusters.slurm_over_ssh import SlurmOverSsh
from stagecoach.clusters.ssh_pool import AnswerLost, CommandResult, SshPool
from stagecoach.core.errors import (
    PermissionRefused,
    StagecoachError,
    SubmissionUncertain,
    SystemUnavailable,
)
from stagecoach.ports.scheduler import JobKey, JobPhase, JobRequest, ReportsIncomplete
from stagecoach.settings import SystemSettings

Answer = CommandResult | StagecoachError
OK = CommandResult(0, "", "")
DOWN = CommandResult(1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n")
NO_DATABASE = CommandResult(1, "", "sacct: error: Problem talking to the database: Connection refused\n")
NO_ACCOUNTING = CommandResult(1, "", "Slurm accounting storage is disabled\n")

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGrIWFdTDIZS3I0vDcYMlqFsxK9nwmBbIIVQbqnjEfWx"


class PreparedPool:
    """Answers by command name; a callable sees who asks and the words."""

    def __init__(self, **answers: Answer | Callable[[str, Sequence[str]], Answer]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, Sequence[str]]] = []

    async def run(self, username: str, argv: Sequence[str]) -> CommandResult:
        name = next(word for word in argv if word in {"sbatch", "squeue", "sacct", "scontrol", "scancel"})
        self.asked.append((username, name, argv))
        answer = self.answers[name]
        if callable(answer):
            answer = answer(username, argv)
        if isinstance(answer, StagecoachError):
            raise answer
        return answer

    def names(self) -> list[str]:
        return [name for _, name, _ in self.asked]


def slurm(pool: PreparedPool, ask_as: str | None = None) -> SlurmOverSsh:
    settings = SystemSettings.model_validate(
        {
            "name": "daint",
            "file_systems": [{"path": "/home"}],
            "scheduler": {"ask_as": ask_as},
            "ssh": {
                "host": "h",
                "host_keys": [HOST_KEY],
                "credentials": {"key_file": "/k"},
            },
        }
    )
    return SlurmOverSsh(settings, cast(SshPool, pool))


def queued(job_id: str, state: str, name: str = "n", user: str = "alice", code: int = 0) -> str:
    return f"{job_id}|{state}|{code}|0|{user}|a|p|n1|100|101|102|None|{name}|\n"


def accounted(job_id: str, state: str, name: str = "n", user: str = "alice", code: str = "0:0") -> str:
    return f"{job_id}|{state}|{code}|{user}|a|p|n1|100|101|102|None|{name}\n"


def text(stdout: str) -> CommandResult:
    return CommandResult(0, stdout, "")


KEY = JobKey("7", "n", "alice")


async def test_what_the_controller_knows_is_not_asked_again() -> None:
    pool = PreparedPool(squeue=text(queued("7", "FAILED", code=1792)))
    reports = await slurm(pool).reports([KEY])
    assert (reports["7"].phase, reports["7"].exit_code) == (JobPhase.FAILED, 7)
    assert pool.names() == ["squeue"]


async def test_what_it_has_forgotten_accounting_tells() -> None:
    pool = PreparedPool(squeue=OK, sacct=text(accounted("7", "CANCELLED by 1001")))
    assert (await slurm(pool).reports([KEY]))["7"].phase is JobPhase.CANCELLED
    assert pool.names() == ["squeue", "sacct"]


@pytest.mark.parametrize(
    "rows",
    [
        "",
        accounted("7", "RUNNING"),
        accounted("7", "PENDING", name="allocation"),
        accounted("7", "FAILED", name="allocation"),
        accounted("7", "COMPLETED", name="other"),
        accounted("7", "COMPLETED", user="bob"),
        accounted("7", "NODE_FAIL") + accounted("7", "PENDING"),
    ],
)
async def test_late_stale_and_others_rows_are_no_report(rows: str) -> None:
    assert await slurm(PreparedPool(squeue=OK, sacct=text(rows))).reports([KEY]) == {}


async def test_of_several_runs_the_last_counts() -> None:
    rows = accounted("7", "NODE_FAIL") + accounted("7", "COMPLETED") + accounted("7", "FAILED", name="another")
    assert (await slurm(PreparedPool(squeue=OK, sacct=text(rows))).reports([KEY]))["7"].phase is JobPhase.COMPLETED


@pytest.mark.parametrize("answer", [DOWN, CommandResult(0, "", DOWN.stderr), SystemUnavailable("x"), AnswerLost("x")])
async def test_a_controller_that_is_down_is_never_an_unknown_job(answer: Answer) -> None:
    pool = PreparedPool(squeue=answer, sacct=OK)
    with pytest.raises(SystemUnavailable):
        await slurm(pool).reports([KEY])
    with pytest.raises(SystemUnavailable):
        await slurm(pool).find("alice", "n")
    assert "sacct" not in pool.names()


async def test_a_database_that_is_down_makes_missing_jobs_unanswered_not_unknown() -> None:
    pool = PreparedPool(squeue=text(queued("7", "RUNNING")), sacct=NO_DATABASE)
    assert (await slurm(pool).reports([KEY]))["7"].phase is JobPhase.RUNNING
    with pytest.raises(ReportsIncomplete) as incomplete:
        await slurm(pool).reports([KEY, JobKey("8", "m", "alice")])
    assert set(incomplete.value.reports) == {"7"}
    assert incomplete.value.unanswered == {"8"}
    assert "Connection refused" in incomplete.value.message


async def test_a_site_without_accounting() -> None:
    pool = PreparedPool(squeue=text(queued("7", "COMPLETED")), sacct=NO_ACCOUNTING)
    reports = await slurm(pool).reports([KEY, JobKey("8", "m", "alice")])
    assert {job_id: report.phase for job_id, report in reports.items()} == {"7": JobPhase.COMPLETED}
    assert await slurm(PreparedPool(squeue=OK, sacct=NO_ACCOUNTING)).find("alice", "n") == []


async def test_one_question_for_all_owners_when_somebody_may_ask_for_all() -> None:
    pool = PreparedPool(squeue=text(queued("7", "RUNNING") + queued("8", "RUNNING", "m", "bob")))
    reports = await slurm(pool, ask_as="service").reports([KEY, JobKey("8", "m", "bob")])
    assert set(reports) == {"7", "8"}
    [(asker, _, argv)] = pool.asked
    assert asker == "service"
    assert not any(word.startswith("--user") for word in argv)
    assert argv[-1] == "--jobs=7,8"


async def test_one_question_for_each_owner_otherwise_and_a_bad_login_hides_nobody_else() -> None:
    def squeue(username: str, argv: Sequence[str]) -> Answer:
        assert f"--user={username}" in argv
        return PermissionRefused("no key") if username == "bob" else text(queued("7", "RUNNING"))

    with pytest.raises(ReportsIncomplete) as incomplete:
        await slurm(PreparedPool(squeue=squeue)).reports([KEY, JobKey("8", "m", "bob")])
    assert set(incomplete.value.reports) == {"7"}
    assert incomplete.value.unanswered == {"8"}


async def test_ten_thousand_jobs_are_a_handful_of_questions() -> None:
    keys = [JobKey(str(number), f"n{number}", "alice") for number in range(1, 10_001)]

    def squeue(_: str, argv: Sequence[str]) -> Answer:
        ids = argv[-1].removeprefix("--jobs=").split(",")
        return text("".join(queued(job_id, "RUNNING", f"n{job_id}") for job_id in ids))

    pool = PreparedPool(squeue=squeue)
    assert len(await slurm(pool, ask_as="service").reports(keys)) == 10_000
    assert pool.names() == ["squeue"] * 5


async def test_a_lost_answer_to_a_submission_is_uncertain_and_an_unsent_one_is_not() -> None:
    request = JobRequest("n", "/s", "/d", "/o", "/e", True)
    with pytest.raises(SubmissionUncertain):
        await slurm(PreparedPool(sbatch=AnswerLost("cut"))).submit("alice", request)
    with pytest.raises(SystemUnavailable) as unsent:
        await slurm(PreparedPool(sbatch=SystemUnavailable("dead"))).submit("alice", request)
    assert not isinstance(unsent.value, SubmissionUncertain)


async def test_finding() -> None:
    others = queued("5", "PENDING", "n2") + queued("6", "PENDING", "n", "bob")
    alive = PreparedPool(squeue=text(queued("7", "PENDING") + others), sacct=NO_DATABASE)
    assert [job.job_id for job in await slurm(alive).find("alice", "n")] == ["7"]
    ended = PreparedPool(
        squeue=text(queued("9", "FAILED", code=256)),
        sacct=text(accounted("8", "COMPLETED") + accounted("9", "FAILED", code="1:0") + accounted("4", "RUNNING")),
    )
    assert [job.job_id for job in await slurm(ended).find("alice", "n")] == ["8", "9"]
    with pytest.raises(SystemUnavailable):
        await slurm(PreparedPool(squeue=OK, sacct=NO_DATABASE)).find("alice", "n")


async def test_a_release_in_unknown_words_is_looked_into() -> None:
    shown = "JobId=7 JobName=n UserId=alice(1) JobState=RUNNING Reason=None ExitCode=0:0\n"

    def scontrol(job: str) -> Callable[[str, Sequence[str]], Answer]:
        return lambda _, argv: text(job) if "show" in argv else CommandResult(1, "", "new words of 27.05\n")

    await slurm(PreparedPool(scontrol=scontrol(shown))).release("alice", "7")
    held = shown.replace("RUNNING Reason=None", "PENDING Reason=JobHeldUser")
    with pytest.raises(SystemUnavailable, match="new words"):
        await slurm(PreparedPool(scontrol=scontrol(held))).release("alice", "7")


async def test_ping() -> None:
    def scontrol(_: str, argv: Sequence[str]) -> Answer:
        return text("slurm 24.05.8\n") if "--version" in argv else text("Slurmctld(primary) at c is UP\n")

    assert await slurm(PreparedPool(scontrol=scontrol)).ping("alice") == "slurm 24.05.8, Slurmctld(primary) at c is UP"
    with pytest.raises(SystemUnavailable, match="DOWN"):
        await slurm(PreparedPool(scontrol=CommandResult(1, "Slurmctld(primary) at c is DOWN\n", ""))).ping("alice")
