"""slurmrestd as the plug sees it: who asks, what is sent, and what its answers and silences mean."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fakes.compute import MemoryCompute
from tests.fakes.systems import MemoryFiles
from tests.fakes.world import Clock

from stagecoach.clusters import slurm_rest_answers as answers
from stagecoach.clusters.slurm_rest import SlurmRest
from stagecoach.core.errors import (
    InvalidRequest,
    JobNotFound,
    PermissionRefused,
    SubmissionRefused,
    SubmissionUncertain,
    SystemUnavailable,
)
from stagecoach.ports.compute import JobDescription, NodeState, WantedJobs
from stagecoach.ports.scheduler import JobPhase
from stagecoach.settings.systems import RestSettings

KEY = bytes(range(32))
NOW = 1_900_000_000
JOB = JobDescription("/home/alice", script="#!/bin/sh\ntrue\n")
# As v0.0.38 has a job, and as later versions have it.
OLD = {
    "job_id": 7,
    "array_job_id": 7,
    "array_task_id": None,
    "name": "j",
    "job_state": "RUNNING",
    "state_reason": "None",
    "exit_code": 0,
    "user_name": "alice",
    "group_name": "users",
    "account": "proj",
    "partition": "debug",
    "nodes": "n1",
    "node_count": 1,
    "submit_time": NOW - 60,
    "start_time": NOW - 50,
    "end_time": NOW + 250,
    "time_limit": 5,
    "priority": 3,
    "current_working_directory": "/home/alice",
}
NEW = {
    **OLD,
    "array_job_id": {"set": True, "infinite": False, "number": 0},
    "job_state": ["RUNNING"],
    "exit_code": {"status": ["SUCCESS"], "return_code": {"set": True, "infinite": False, "number": 0}, "signal": {}},
    "node_count": {"set": True, "infinite": False, "number": 1},
    "submit_time": {"set": True, "infinite": False, "number": NOW - 60},
    "start_time": {"set": True, "infinite": False, "number": NOW - 50},
    "end_time": {"set": True, "infinite": False, "number": NOW + 250},
    "time_limit": {"set": True, "infinite": False, "number": 5},
    "priority": {"set": True, "infinite": False, "number": 3},
}


class Restd:
    """Answers as a test says; ``asked`` holds every request."""

    def __init__(self, tmp_path: Path) -> None:
        self.asked: list[httpx.Request] = []
        self.answer: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(200, json={"errors": [], "jobs": []})
        (tmp_path / "key").write_bytes(KEY)
        self.files = MemoryFiles()
        self.files.add_user("alice")
        self.over_ssh = MemoryCompute(Clock().now)
        settings = RestSettings(url="http://slurm.example.org:6820", jwt_key_file=str(tmp_path / "key"))
        self.plug = SlurmRest(
            "alps", settings, self.over_ssh, self.files, transport=httpx.MockTransport(self._handle), wall_clock=lambda: NOW
        )

    def says(self, status: int, **document: Any) -> None:
        self.answer = lambda _: httpx.Response(status, json=document)

    def fails(self, error: Exception) -> None:
        def fail(_: httpx.Request) -> httpx.Response:
            raise error

        self.answer = fail

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answer(request)


@pytest.fixture
def restd(tmp_path: Path) -> Restd:
    return Restd(tmp_path)


def error(words: str) -> list[dict[str, Any]]:
    return [{"description": "x", "error_number": 1, "error": words, "source": "y"}]


async def test_each_question_is_signed_for_its_user(restd: Restd) -> None:
    await restd.plug.list_jobs("alice", WantedJobs())
    for request in restd.asked:
        assert request.headers["X-SLURM-USER-NAME"] == "alice"
        head, body, signature = request.headers["X-SLURM-USER-TOKEN"].split(".")
        good = hmac.new(KEY, f"{head}.{body}".encode(), hashlib.sha256).digest()
        assert base64.urlsafe_b64decode(signature + "==") == good
        assert json.loads(base64.urlsafe_b64decode(body + "==")) == {"iat": NOW, "exp": NOW + 120, "sun": "alice"}
    assert {request.url.path for request in restd.asked} == {"/slurm/v0.0.38/jobs", "/slurmdb/v0.0.38/jobs"}


@pytest.mark.parametrize("username", ["../bob", "root/../alice", "", "a b", "alice\n"])
async def test_a_name_that_no_user_has_is_never_signed(restd: Restd, username: str) -> None:
    with pytest.raises(PermissionRefused):
        await restd.plug.nodes(username)
    assert restd.asked == []


async def test_what_a_submission_sends(restd: Restd) -> None:
    restd.says(200, errors=[], job_id=8, step_id="BATCH")
    job = JobDescription(
        "/home/alice", script="#!/bin/sh\ntrue\n", name="n", account="proj", environment={"A": "é\n", "PATH": "/x"}
    )
    assert await restd.plug.submit("alice", job) == "8"
    body = json.loads(restd.asked[0].content)
    assert body["script"] == job.script
    assert body["job"] == {
        "current_working_directory": "/home/alice",
        "name": "n",
        "account": "proj",
        "environment": {"PATH": "/x", "HOME": "/home/alice", "USER": "alice", "LOGNAME": "alice", "A": "é\n"},
    }
    later = answers.submission(job, "s", {"A": "1=2"}, "v0.0.41")
    assert later["job"]["environment"] == ["A=1=2"]


async def test_a_script_with_directives_goes_to_sbatch(restd: Restd) -> None:
    restd.files.add_file("/home/alice/job.sh", "alice", b"#!/bin/sh\n#SBATCH --time=1\n")
    for job in (
        JobDescription("/home/alice", script="#!/bin/sh\n#SBATCH -n 2\n"),
        JobDescription("/", script_path="/home/alice/job.sh"),
    ):
        await restd.plug.submit("alice", job)
    assert restd.over_ssh.count("submit") == 2
    assert restd.asked == []


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Invalid partition name specified", SubmissionRefused),
        ("Invalid account or account/partition combination specified", SubmissionRefused),
        ("Unable to contact slurm controller (connect failure)", SystemUnavailable),
        ("Protocol authentication error", SystemUnavailable),
        ("Unspecified error", SystemUnavailable),
    ],
)
async def test_who_said_no_to_a_submission(restd: Restd, words: str, kind: type[Exception]) -> None:
    restd.says(500, errors=error(words))
    with pytest.raises(kind, match=words.split("(")[0].strip()) as refused:
        await restd.plug.submit("alice", JOB)
    assert type(refused.value) is kind


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (httpx.ConnectError("no"), SystemUnavailable),
        (httpx.ConnectTimeout("no"), SystemUnavailable),
        (httpx.ReadTimeout("late"), SubmissionUncertain),
        (httpx.RemoteProtocolError("cut"), SubmissionUncertain),
    ],
)
async def test_a_submission_whose_answer_is_lost_may_have_made_a_job(
    restd: Restd, failure: Exception, kind: type[Exception]
) -> None:
    restd.fails(failure)
    with pytest.raises(SystemUnavailable) as lost:
        await restd.plug.submit("alice", JOB)
    assert type(lost.value) is kind


async def test_an_answer_that_names_no_job_is_no_submission(restd: Restd) -> None:
    restd.says(200, errors=[], job_id=0)
    with pytest.raises(SubmissionUncertain):
        await restd.plug.submit("alice", JOB)


@pytest.mark.parametrize("script", ["#!/bin/sh\r\ntrue\r\n", "#!/bin/sh\n\0\n"])
async def test_a_script_that_sbatch_would_refuse_is_refused(restd: Restd, script: str) -> None:
    with pytest.raises(SubmissionRefused):
        await restd.plug.submit("alice", JobDescription("/home/alice", script=script))
    assert restd.asked == []


async def test_a_hostile_account_is_refused_before_anything_is_sent(restd: Restd) -> None:
    with pytest.raises(InvalidRequest):
        await restd.plug.submit("alice", JobDescription("/", script="#!/bin/sh\n", account="x y"))
    assert restd.asked == []


@pytest.mark.parametrize("job", [OLD, NEW], ids=["v0.0.38", "later"])
async def test_a_job_in_both_shapes(restd: Restd, job: dict[str, Any]) -> None:
    restd.says(200, errors=[], jobs=[job])
    [seen] = await restd.plug.show_job("alice", "7", of_everyone=False)
    assert (seen.report.job_id, seen.report.phase, seen.report.exit_code) == ("7", JobPhase.RUNNING, None)
    assert (seen.report.start_time, seen.report.end_time) == (NOW - 50, None)
    assert (seen.elapsed_seconds, seen.limit_seconds, seen.node_count, seen.priority) == (50, 300, 1, 3)
    assert (seen.directory, seen.group) == ("/home/alice", "users")
    with pytest.raises(JobNotFound):
        await restd.plug.show_job("bob", "7", of_everyone=False)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(401, text="Authentication failure"),
        httpx.Response(500, json={"errors": error("Unspecified error")}),
        httpx.Response(200, json={"errors": [], "meta": {}}),
        httpx.Response(200, json=[]),
        httpx.Response(404, text="Not found"),
        httpx.Response(502, text="<html>"),
    ],
    ids=lambda answer: f"{answer.status_code} {answer.text[:20]}",
)
async def test_no_answer_is_not_no_job(restd: Restd, answer: httpx.Response) -> None:
    restd.answer = lambda _: answer
    with pytest.raises(SystemUnavailable):
        await restd.plug.list_jobs("alice", WantedJobs())


async def test_a_server_that_is_down_costs_one_timeout(restd: Restd) -> None:
    restd.fails(httpx.ReadTimeout("late"))
    for _ in range(5):
        with pytest.raises(SystemUnavailable):
            await restd.plug.nodes("alice")
    assert len(restd.asked) == 1


async def test_a_dead_controller_is_asked_once_by_each_of_two_and_nobody_reads_anothers_answer(restd: Restd) -> None:
    restd.says(500, errors=error("Unable to contact slurm controller (connect failure)"))
    for username in ("alice", "bob"):
        with pytest.raises(SystemUnavailable, match="Unable to contact"):
            await restd.plug.nodes(username)
    for ask in (lambda: restd.plug.nodes("carol"), lambda: restd.plug.submit("alice", JOB)):
        with pytest.raises(SystemUnavailable, match=r"^slurmrestd of alps does not answer\. It is tried again") as told:
            await ask()
        assert type(told.value) is SystemUnavailable
    assert len(restd.asked) == 2


@pytest.mark.parametrize("job_id", ["0", "00", "07", "4294967294", "4294967296", "²", "x", ""])
async def test_slurmrestd_is_not_asked_for_what_is_no_job_id(restd: Restd, job_id: str) -> None:
    for ask in (lambda: restd.plug.show_job("alice", job_id, of_everyone=True), lambda: restd.plug.cancel("alice", job_id)):
        with pytest.raises(JobNotFound, match="Job not found"):
            await ask()
    assert restd.asked == []


async def test_a_job_that_accounting_has_no_entry_for_is_not_found(restd: Restd) -> None:
    restd.says(500, errors=error("Jobs description entry not found"))
    with pytest.raises(JobNotFound):
        await restd.plug.show_job("alice", "7", of_everyone=False)


@pytest.mark.parametrize(
    "words", ["Unspecified error", "Protocol authentication error", "Zero Bytes were transmitted or received"]
)
async def test_words_that_may_be_about_what_was_asked_close_it_to_nobody(restd: Restd, words: str) -> None:
    restd.says(500, errors=error(words))
    for username in ("alice", "bob", "carol"):
        with pytest.raises(SystemUnavailable, match=words):
            await restd.plug.cancel(username, "7")
    assert len(restd.asked) == 3


@pytest.mark.parametrize("failure", [httpx.ReadTimeout("late"), httpx.RemoteProtocolError("cut")])
async def test_submissions_whose_answers_are_lost_close_it_to_nobody(restd: Restd, failure: Exception) -> None:
    restd.fails(failure)
    for username in ("alice", "bob", "alice"):
        restd.files.add_user(username)
        with pytest.raises(SubmissionUncertain):
            await restd.plug.submit(username, JOB)
    restd.says(200, errors=[], nodes=[])
    assert await restd.plug.nodes("carol") == []


def test_nodes_and_partitions_in_both_shapes() -> None:
    old = answers.node(
        {"name": "n1", "cpus": 4, "cpu_load": 85, "state": "idle", "state_flags": ["DRAIN"], "active_features": "a,b"}
    )
    new = answers.node(
        {"name": "n1", "cpus": 4, "state": ["IDLE", "DRAIN"], "active_features": ["a", "b"], "partitions": ["debug"]}
    )
    assert old.states == new.states == (NodeState.IDLE, NodeState.DRAIN)
    assert old.features == new.features == ("a", "b")
    assert old.cpu_load == 0.85
    later = {"name": "debug", "partition": {"state": ["UP"]}, "cpus": {"total": 8}, "nodes": {"total": 2}}
    earlier = {"name": "debug", "state": "UP", "total_cpus": 8, "total_nodes": 2}
    assert answers.partition(later) == answers.partition(earlier)
