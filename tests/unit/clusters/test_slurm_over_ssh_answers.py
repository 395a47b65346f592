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


BOBS, CAROLS = JobKey("8", "m", "bob"), JobKey("9", "o", "carol")


def option(argv: Sequence[str], name: str) -> str | None:
    return next((word.partition("=")[2] for word in argv if word.startswith(f"--{name}=")), None)


class Site:
    """Jobs as rows, shown to whom the site shows them."""

    def __init__(self, *, private: bool, queue: Sequence[tuple[str, str, str, str]] = (), ended: Sequence[str] = ()) -> None:
        self.private, self.rows, self.ended = private, queue, ended
        self.refused: set[str] = set()

    def pool(self) -> PreparedPool:
        return PreparedPool(squeue=self._squeue, sacct=self._sacct)

    def _visible(self, username: str, argv: Sequence[str], owner: str) -> bool:
        return option(argv, "user") in {None, owner} and (not self.private or username == owner)

    def _squeue(self, username: str, argv: Sequence[str]) -> Answer:
        if username in self.refused:
            return PermissionRefused(f"no key of {username}")
        ids = option(argv, "jobs")
        asked = ids.split(",") if ids else [row[0] for row in self.rows]
        return text(
            "".join(
                queued(job_id, state, name, user)
                for job_id, state, name, user in self.rows
                if job_id in asked and self._visible(username, argv, user)
            )
        )

    def _sacct(self, username: str, argv: Sequence[str]) -> Answer:
        return text("".join(row for row in self.ended if self._visible(username, argv, row.split("|")[3])))


ALL_RUN = [("7", "RUNNING", "n", "alice"), ("8", "RUNNING", "m", "bob"), ("9", "RUNNING", "o", "carol")]


async def test_one_owner_s_login_asks_for_everybody_where_the_site_shows_it_all() -> None:
    pool = Site(private=False, queue=ALL_RUN).pool()
    assert set(await slurm(pool).reports([KEY, BOBS, CAROLS])) == {"7", "8", "9"}
    assert [(asker, name) for asker, name, _ in pool.asked] == [("alice", "squeue")]


async def test_a_bad_login_hides_nobody_else_s_jobs_and_its_owner_hears_why() -> None:
    site = Site(private=True, queue=ALL_RUN)
    site.refused = {"alice"}
    pool = site.pool()
    with pytest.raises(ReportsIncomplete) as incomplete:
        await slurm(pool).reports([KEY, BOBS])
    assert set(incomplete.value.reports) == {"8"}
    assert incomplete.value.unanswered == {"7"}
    assert "alice" in incomplete.value.causes["7"].message
    assert incomplete.value.causes["7"].retryable


async def test_where_jobs_are_private_owners_are_asked_in_turn_and_none_is_called_unknown() -> None:
    pool = Site(private=True, queue=ALL_RUN).pool()
    plug = slurm(pool)
    with pytest.raises(ReportsIncomplete) as incomplete:
        await plug.reports([KEY, BOBS, CAROLS])
    assert (set(incomplete.value.reports), incomplete.value.unanswered) == ({"7", "8"}, set())
    assert incomplete.value.not_asked == {"9"}
    assert incomplete.value.questions == len(pool.asked) == 3
    pool.asked.clear()
    # From now on nobody asks for others.
    assert set(await plug.reports([CAROLS, KEY, BOBS])) == {"7", "8", "9"}
    assert [(asker, option(argv, "user")) for asker, _, argv in pool.asked] == [
        (each, each) for each in ("carol", "alice", "bob")
    ]


async def test_hundreds_of_owners_of_private_jobs_all_have_their_turn() -> None:
    rows = [(str(number), "RUNNING", f"n{number}", f"u{number}") for number in range(1, 101)]
    pool = Site(private=True, queue=rows).pool()
    plug, told, failed = slurm(pool), set[str](), list[str]()
    waiting = [JobKey(job_id, name, user) for job_id, _, name, user in rows]
    for _ in range(40):
        before = len(pool.asked)
        try:
            reports = dict(await plug.reports(waiting))
        except ReportsIncomplete as error:
            reports, failed = error.reports, [*failed, *error.unanswered]
        assert len(pool.asked) - before <= 3
        told |= set(reports)
        waiting = [key for key in waiting if key.job_id not in reports]
        if not waiting:
            break
    assert (len(told), failed) == (100, [])


async def test_another_s_job_that_is_nowhere_is_unknown_only_when_its_own_owner_was_asked_for_queue_and_accounting() -> None:
    pool = Site(private=False, queue=ALL_RUN[:1]).pool()
    plug = slurm(pool)
    with pytest.raises(ReportsIncomplete) as incomplete:
        await plug.reports([KEY, BOBS])
    assert (incomplete.value.unanswered, incomplete.value.not_asked) == (set(), {"8"})
    reports = await plug.reports([BOBS, KEY])
    assert set(reports) == {"7"}
    assert reports.questions == 3
    assert [(asker, name) for asker, name, _ in pool.asked[-3:]] == [("alice", "squeue"), ("bob", "squeue"), ("bob", "sacct")]


async def test_what_the_queue_forgot_of_all_owners_is_one_question_to_accounting() -> None:
    ended = [accounted("7", "COMPLETED"), accounted("8", "FAILED", "m", "bob", "1:0")]
    pool = Site(private=False, ended=ended).pool()
    reports = await slurm(pool).reports([KEY, BOBS])
    assert {job_id: report.phase for job_id, report in reports.items()} == {"7": JobPhase.COMPLETED, "8": JobPhase.FAILED}
    assert pool.names() == ["squeue", "sacct"]


async def test_a_system_that_two_logins_do_not_reach_is_away_for_all() -> None:
    pool = PreparedPool(squeue=SystemUnavailable("No route."))
    with pytest.raises(ReportsIncomplete) as incomplete:
        await slurm(pool).reports([KEY, BOBS, CAROLS])
    assert incomplete.value.unanswered == {"7", "8", "9"}
    assert len(pool.asked) == 2


@pytest.mark.parametrize(("count", "named"), [(10_000, True), (20_000, False)])
async def test_ten_thousand_jobs_of_many_users_are_one_question(count: int, named: bool) -> None:
    rows = [(str(50_000_000 + number), "RUNNING", f"n{number}", f"u{number % 300}") for number in range(count)]
    answer = text("".join(queued(*row) for row in rows))
    pool = PreparedPool(squeue=answer)
    reports = await slurm(pool, ask_as="service").reports([JobKey(job_id, name, user) for job_id, _, name, user in rows])
    assert (len(reports), reports.questions) == (count, 1)
    [(_, _, argv)] = pool.asked
    assert (option(argv, "jobs") is not None) == named
    assert len(" ".join(argv).encode()) < 128 * 1024 - 1024


async def test_more_forgotten_jobs_than_one_command_can_name_are_asked_for_in_pieces_within_the_budget() -> None:
    keys = [JobKey(str(50_000_000 + number), f"n{number}", "alice") for number in range(30_000)]
    lengths = []

    def sacct(_: str, argv: Sequence[str]) -> Answer:
        ids = (option(argv, "jobs") or "").split(",")
        lengths.append(len(" ".join(argv).encode()))
        return text("".join(accounted(job_id, "COMPLETED", f"n{int(job_id) - 50_000_000}") for job_id in ids))

    pool = PreparedPool(squeue=OK, sacct=sacct)
    with pytest.raises(ReportsIncomplete) as incomplete:
        await slurm(pool, ask_as="service").reports(keys)
    assert pool.names() == ["squeue", "sacct", "sacct"]
    assert max(lengths) < 128 * 1024 - 1024
    assert len(incomplete.value.reports) + len(incomplete.value.not_asked) == 30_000
    assert keys[0].job_id in incomplete.value.reports


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


async def test_open_jobs_of_one_user_are_asked_for_as_that_user_and_of_all_as_who_may() -> None:
    names = [("7", "PENDING", "stagecoach-a"), ("8", "COMPLETED", "stagecoach-b"), ("9", "PENDING", "x")]
    pool = PreparedPool(squeue=text("".join(queued(*each) for each in names)))
    for asker, of_everyone in (("alice", False), ("watcher", True)):
        listed = await slurm(pool).list_open_jobs(asker, "stagecoach-", of_everyone=of_everyone)
        assert [(job.job_id, job.phase, job.submit_time) for job in listed] == [("7", JobPhase.PENDING, 100)]
    (_, _, own), (asked_as, _, all_users) = pool.asked
    assert "--user=alice" in own
    assert asked_as == "watcher"
    assert not any(word.startswith("--user") for word in all_users)


async def test_a_dead_controller_is_not_an_empty_queue() -> None:
    with pytest.raises(SystemUnavailable):
        await slurm(PreparedPool(squeue=DOWN)).list_open_jobs("alice", "stagecoach-", of_everyone=False)
