"""Users' own jobs at the door: shapes, words, whose they are, and what a busy scheduler does to an answer."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.world import World
from tests.unit.api.answers import problem
from tests.unit.api.conftest import with_token

from stagecoach.core.audit_log import AuditFilter
from stagecoach.core.errors import SystemUnavailable
from stagecoach.database.audit_log import AuditLog
from stagecoach.flows import users_jobs
from stagecoach.ports.scheduler import JobPhase

JOBS = "/compute/alps/jobs"
SCRIPT = "#!/bin/bash\necho hello\n"


async def submitted(client: httpx.AsyncClient, **more: Any) -> str:
    """The id of a new job in the caller's home."""
    home = more.pop("home", "/home/alice")
    answer = await client.post(JOBS, json={"job": {"working_directory": home, "script": SCRIPT, **more}})
    assert answer.status_code == 201, answer.text
    job_id: str = answer.json()["jobId"]
    return job_id


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users_jobs, "PATIENCE_SECONDS", 0.0)


async def test_both_ways_of_writing_a_job(alice: httpx.AsyncClient, world: World) -> None:
    snake = {
        "working_directory": "/home/alice",
        "script": SCRIPT,
        "standard_output": "o",
        "standard_error": "e",
        "standard_input": "i",
        "env": ["A=1=2", "B="],
        "account": "",
        "partition": None,
        "unknown": "key",
    }
    camel = {
        "workingDirectory": "/home/alice",
        "scriptPath": "/home/alice/job.sh",
        "standardOutput": "o",
        "env": {"A": "1=2", "B": ""},
        "name": "it's mine",
        "account": "proj",
        "partition": "debug",
        "reservation": "course",
        "constraints": "gpu&intel",
    }
    for body in (snake, camel):
        assert (await alice.post(JOBS, json={"job": body})).status_code == 201
    first, second = world.compute.descriptions.values()
    assert (first.script, first.script_path, first.account, first.partition) == (SCRIPT, None, None, None)
    assert (first.output_path, first.error_path, first.input_path) == ("o", "e", "i")
    assert first.environment == second.environment == {"A": "1=2", "B": ""}
    assert (second.script, second.script_path, second.name) == (None, "/home/alice/job.sh", "it's mine")
    assert (second.account, second.partition, second.reservation, second.constraints) == ("proj", "debug", "course", "gpu&intel")


@pytest.mark.parametrize(
    "more",
    [
        {"script": None},
        {"script": ""},
        {"script": ["#!/bin/sh"]},
        {"script": {}},
        {"script": None, "scriptPath": ["/x"]},
        {"scriptPath": "/x"},
        {"script": None, "scriptPath": "x"},
        {"env": {"A B": "1"}},
        {"env": {"A": 1}},
        {"env": {"A": "\0"}},
        {"env": ["A"]},
        {"env": {f"A{n}": "" for n in range(600)}},
        {"name": "a\nb"},
        {"account": "x\n#SBATCH --wrap=id"},
        {"standardOutput": "a\nb"},
        {"workingDirectory": ""},
        {"working_directory": "relative"},
        {"working_directory": "/home/alice\0"},
    ],
    ids=repr,
)
async def test_a_job_that_is_none_is_refused(alice: httpx.AsyncClient, world: World, more: dict[str, Any]) -> None:
    answer = await alice.post(JOBS, json={"job": {"working_directory": "/home/alice", "script": SCRIPT, **more}})
    problem(answer, 400)
    assert world.compute.jobs == {}


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/home/alice/missing", 404, "No such file or directory"),
        ("/home/alice/file", 400, "not a directory"),
        ("/home/bob/inside", 403, "ermission"),
    ],
)
async def test_a_working_directory_that_is_none_is_told_before_anything_is_submitted(
    alice: httpx.AsyncClient, world: World, path: str, status: int, words: str
) -> None:
    world.files.add_file("/home/alice/file", "alice", b"")
    answer = await alice.post(JOBS, json={"job": {"workingDirectory": path, "script": SCRIPT}})
    assert words in problem(answer, status)["message"]
    assert world.compute.calls == []


@pytest.mark.parametrize(
    ("phase", "scheduler_state", "state", "reason"),
    [
        (JobPhase.HELD, "PENDING", "PENDING", "None"),
        (JobPhase.RUNNING, "RUNNING", "RUNNING", "None"),
        (JobPhase.PENDING, "CONFIGURING", "PENDING", "CONFIGURING"),
        (JobPhase.RUNNING, "COMPLETING", "RUNNING", "COMPLETING"),
        (JobPhase.COMPLETED, "COMPLETED", "COMPLETED", "None"),
        (JobPhase.CANCELLED, "CANCELLED by 1001", "CANCELLED", "None"),
        (JobPhase.NODE_FAIL, "NODE_FAIL", "FAILED", "NODE_FAIL"),
        (JobPhase.OUT_OF_MEMORY, "OUT_OF_MEMORY", "FAILED", "OUT_OF_MEMORY"),
        (JobPhase.PREEMPTED, "PREEMPTED", "CANCELLED", "PREEMPTED"),
        (JobPhase.TIMEOUT, "DEADLINE", "TIMEOUT", "DEADLINE"),
    ],
)
async def test_states_are_words_that_the_client_understands(
    alice: httpx.AsyncClient, world: World, phase: JobPhase, scheduler_state: str, state: str, reason: str
) -> None:
    job_id = await submitted(alice)
    world.compute.set_phase(job_id, phase, scheduler_state)
    (job,) = (await alice.get(f"{JOBS}/{job_id}")).json()["jobs"]
    assert job["status"] == {"state": state, "stateReason": reason, "exitCode": None, "interruptSignal": 0}
    assert (job["cluster"], job["user"], job["workingDirectory"], job["jobId"]) == ("alps", "alice", "/home/alice", job_id)


async def test_jobs_are_listed_by_what_is_asked(alice: httpx.AsyncClient, bob: httpx.AsyncClient, world: World) -> None:
    mine = await submitted(alice, name="n", account="proj")
    other = await submitted(alice)
    bobs = await submitted(bob, home="/home/bob")

    async def listed(**params: Any) -> list[str]:
        answer = await alice.get(JOBS, params=params)
        assert answer.status_code == 200, answer.text
        return [job["jobId"] for job in answer.json()["jobs"]]

    assert await listed() == [mine, other]
    assert await listed(allusers="true") == [mine, other, bobs]
    assert await listed(name="n") == await listed(account="proj") == [mine]
    assert await listed(name="nothing") == []
    world.compute.set_phase(other, JobPhase.COMPLETED)
    world.clock.advance(2 * 3600)
    assert await listed(time_window="1h") == [mine]
    assert await listed(time_window="8h") == [mine, other]
    problem(await alice.get(JOBS, params={"time_window": "1y"}), 400)


async def test_somebody_elses_job_is_not_there(alice: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
    job_id = await submitted(alice)
    for answer in (
        await bob.get(f"{JOBS}/{job_id}"),
        await bob.get(f"{JOBS}/{job_id}/metadata"),
        await bob.delete(f"{JOBS}/{job_id}"),
        await bob.put(f"{JOBS}/{job_id}/attach", json={"command": "id"}),
    ):
        assert "Job not found" in problem(answer, 404, "job_not_found")["message"]
    assert (await bob.get(f"{JOBS}/{job_id}", params={"allusers": "true"})).json()["jobs"][0]["user"] == "alice"


async def test_metadata_cancel_and_attach(alice: httpx.AsyncClient, world: World) -> None:
    job_id = await submitted(alice)
    assert (await alice.get(f"{JOBS}/{job_id}/metadata")).json() == {
        "jobs": [
            {
                "jobId": job_id,
                "script": SCRIPT,
                "standardInput": "/dev/null",
                "standardOutput": "/out",
                "standardError": "/out",
            }
        ]
    }
    problem(await alice.put(f"{JOBS}/{job_id}/attach", json={"command": "true"}), 409)
    world.compute.set_phase(job_id, JobPhase.RUNNING)
    answer = await alice.put(f"{JOBS}/{job_id}/attach", json={"command": "echo $HOME > 'x y'"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert world.compute.commands == [(job_id, "echo $HOME > 'x y'")]
    failed = await alice.put(f"{JOBS}/{job_id}/attach", json={"command": "false"})
    assert "exit status:1" in problem(failed, 400, "command_failed")["message"]
    answer = await alice.delete(f"{JOBS}/{job_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await alice.get(f"{JOBS}/{job_id}")).json()["jobs"][0]["status"]["state"] == "CANCELLED"
    lines = await AuditLog(world.engine).page(AuditFilter(who="alice"))
    assert [(line.what, line.target, line.result) for line in lines] == [
        ("job.submit", job_id, "done"),
        ("job.attach", job_id, "wrong_state"),
        ("job.attach", job_id, "done"),
        ("job.attach", job_id, "command_failed"),
        ("job.cancel", job_id, "done"),
    ]
    assert "HOME" not in str(lines), "what a command holds is nobody else's business"


async def test_fifty_equal_questions_are_one(alice: httpx.AsyncClient, bob: httpx.AsyncClient, world: World) -> None:
    job_id = await submitted(alice)
    answers = await asyncio.gather(*(alice.get(f"{JOBS}/{job_id}") for _ in range(50)), *(alice.get(JOBS) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert (world.compute.count("show_job"), world.compute.count("list_jobs")) == (1, 1)
    await bob.get(JOBS)
    assert world.compute.count("list_jobs") == 2, "what one may see is not told to another"
    world.compute.set_phase(job_id, JobPhase.RUNNING)
    await alice.delete(f"{JOBS}/{job_id}")
    assert (await alice.get(JOBS)).json()["jobs"][0]["status"]["state"] == "CANCELLED"


async def test_a_scheduler_that_does_not_answer_for_a_moment_is_waited_for(alice: httpx.AsyncClient, world: World) -> None:
    job_id = await submitted(alice)
    world.compute.trouble = SystemUnavailable("Unable to contact slurm controller.")
    asking = asyncio.create_task(alice.get(f"{JOBS}/{job_id}"))
    while world.compute.count("show_job") < 2:
        await asyncio.sleep(0.01)
    world.compute.trouble = None
    assert (await asking).status_code == 200


async def test_a_scheduler_that_is_down_is_said_to_be(alice: httpx.AsyncClient, world: World, impatient: None) -> None:
    job_id = await submitted(alice)
    world.compute.trouble = SystemUnavailable("Unable to contact slurm controller.")
    for answer in (await alice.get(JOBS), await alice.get(f"{JOBS}/{job_id}"), await alice.delete(f"{JOBS}/{job_id}")):
        assert "slurm controller" in problem(answer, 503, "system_unavailable")["message"]


async def begun_upload(alice: httpx.AsyncClient) -> dict[str, Any]:
    body = {"path": "/home/alice/x", "transferDirectives": {"transferMethod": "s3", "fileSize": 3}}
    begun: dict[str, Any] = (await alice.post("/filesystem/alps/transfer/upload", json=body)).json()
    return begun


async def test_a_staging_job_answers_from_its_transfer_whatever_the_scheduler_does(
    alice: httpx.AsyncClient, world: World
) -> None:
    job_id = (await begun_upload(alice))["transferJob"]["jobId"]
    world.compute.trouble = SystemUnavailable("Down.")
    (job,) = (await alice.get(f"{JOBS}/{job_id}", params={"allusers": "false"})).json()["jobs"]
    assert job["status"]["state"] == "PENDING"
    assert world.compute.calls == []


async def test_cancelling_a_staging_job_cancels_its_transfer(alice: httpx.AsyncClient, world: World) -> None:
    begun = await begun_upload(alice)
    job_id = begun["transferJob"]["jobId"]
    assert (await alice.delete(f"{JOBS}/{job_id}")).status_code == 204
    assert (await alice.get(f"/transfers/{begun['transferId']}")).json()["state"] == "cancelled"
    assert world.left_outside() == []
    assert (await alice.delete(f"{JOBS}/{job_id}")).status_code == 204, "as with a job that has ended"
    assert world.compute.calls == []


async def test_an_id_that_was_used_again_is_the_new_jobs_when_its_transfer_ended_long_ago(
    alice: httpx.AsyncClient, world: World
) -> None:
    begun = await begun_upload(alice)
    job_id = begun["transferJob"]["jobId"]
    await alice.delete(f"/transfers/{begun['transferId']}")
    world.compute._next_id = int(job_id)
    assert await submitted(alice, name="mine") == job_id
    assert (await alice.get(f"{JOBS}/{job_id}")).json()["jobs"][0]["status"]["state"] == "CANCELLED"
    world.clock.time += timedelta(days=2)
    assert (await alice.get(f"{JOBS}/{job_id}")).json()["jobs"][0]["name"] == "mine"
    del world.compute.jobs[job_id]
    world.compute.jobs.clear()
    world.tools.asked.forget("alps", "alice")
    assert (await alice.get(f"{JOBS}/{job_id}")).json()["jobs"][0]["status"]["state"] == "CANCELLED"


async def test_what_scopes_open(application: FastAPI, alice: httpx.AsyncClient, world: World) -> None:
    staging_id, job_id = (await begun_upload(alice))["transferJob"]["jobId"], await submitted(alice)

    async def statuses(*scopes: str) -> list[int]:
        made = await alice.post("/tokens", json={"name": "x", "scopes": list(scopes), "expiresInDays": 1})
        async with with_token(application, made.json()["token"]) as program:
            return [
                (await program.get(f"{JOBS}/{staging_id}")).status_code,
                (await program.get(f"{JOBS}/{job_id}")).status_code,
                (await program.get(JOBS)).status_code,
                (await program.post(JOBS, json={"job": {"workingDirectory": "/home/alice", "script": SCRIPT}})).status_code,
                (await program.delete(f"{JOBS}/{job_id}")).status_code,
            ]

    assert await statuses("transfers:read") == [200, 404, 403, 403, 403]
    assert await statuses("transfers:write") == [403, 403, 403, 403, 404]
    assert await statuses("jobs:read") == [200, 200, 200, 403, 403]
    assert await statuses("jobs:write") == [403, 403, 403, 201, 204]
    assert await statuses("files:read") == [403] * 5
