"""FirecREST's own client and command line against the testbed: real Slurm, by its commands and by slurmrestd."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import firecrest.v2
import pytest
from firecrest import FirecrestException
from firecrest.FirecrestException import JobTimeoutException
from tests.contract.ssh_testbed import directory_of
from tests.e2e.testbed import Testbed, wait_until
from tests.integration.firecrest.service import Client, Program, Token, client_of, refusal

SYSTEMS = ("testbed", "testbed-rest")
WAITS = "#!/bin/bash\necho begun\nn=0\nwhile [ ! -e end ] && [ $n -lt 300 ]; do sleep 0.2; n=$((n+1)); done\n"


@pytest.fixture(params=["sync", "async"])
async def client(request: pytest.FixtureRequest, testbed: Testbed) -> AsyncIterator[Client]:
    async with client_of(request.param, testbed.url, testbed.environment["ALICE_TOKEN"]) as made:
        yield made


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def directory(testbed: Testbed) -> Iterator[Path]:
    """Of this test's jobs, in alice's home."""
    with directory_of("alice", str(testbed.alice.home)) as path:
        yield Path(path)


async def begun(directory: Path, job_id: str) -> None:
    """Until the script has written its first line."""
    await asyncio.to_thread(wait_until, lambda: "begun" in read(directory / f"slurm-{job_id}.out"), 60, f"job {job_id} begins")


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def test_a_jobs_life(client: Client, system: str, directory: Path) -> None:
    script = '#!/bin/bash\n# it\'s "quoted" $(touch pwned) é\necho begun\nprintf "%s" "$GIVEN"\npwd\n'
    given = 'it\'s "a" $HOME `id` \\ é, x\nsecond line\n'
    job_id = (await client("submit", system, str(directory), script_str=script, env_vars={"GIVEN": given}))["jobId"]
    (job,) = await client("wait_for_job", system, job_id)
    assert (job["status"]["state"], job["status"]["exitCode"], job["jobId"]) == ("COMPLETED", 0, job_id)
    assert (job["user"], job["account"], job["partition"], job["cluster"]) == ("alice", "proj", "debug", system)
    assert (job["workingDirectory"], job["allocationNodes"]) == (str(directory), 1)
    assert job["time"]["limit"] == 300
    assert job["time"]["start"] <= job["time"]["end"]
    assert read(directory / f"slurm-{job_id}.out") == f"begun\n{given}{directory}\n"
    assert not (directory / "pwned").exists()
    (papers,) = await client("job_metadata", system, job_id)
    output = str(directory / f"slurm-{job_id}.out")
    assert papers == {
        "jobId": job_id,
        "script": script,
        "standardInput": "/dev/null",
        "standardOutput": output,
        "standardError": output,
    }


async def test_directives_count_and_slurm_refuses_in_its_own_words(client: Client, system: str, directory: Path) -> None:
    script = "#!/bin/bash\n#SBATCH --job-name=f2-named\n#SBATCH --output=o-%j\n#SBATCH --time=3\nexit 7\n"
    remote = directory / "it's mine.sh"
    remote.write_text(script)
    os.chown(remote, os.stat(directory).st_uid, -1)
    for options in ({"script_str": script}, {"script_remote_path": str(remote)}):
        job_id = (await client("submit", system, str(directory), account="proj", partition="debug", **options))["jobId"]
        (job,) = await client("wait_for_job", system, job_id)
        assert (job["status"]["state"], job["status"]["exitCode"]) == ("FAILED", 7)
        assert (job["name"], job["time"]["limit"]) == ("f2-named", 180)
        assert (directory / f"o-{job_id}").exists()
    for options, words in (
        ({"partition": "nope"}, "partition"),
        ({"account": "nope"}, "account"),
        ({"reservation": "nope"}, "reservation"),
    ):
        with pytest.raises(FirecrestException) as error:
            await client("submit", system, str(directory), script_str="#!/bin/sh\n", **options)
        status, message = refusal(error)
        assert status == 400
        assert words in message.lower()


async def test_lists(client: Client, system: str, directory: Path, testbed: Testbed) -> None:
    job_id = (await client("submit", system, str(directory), script_str=WAITS))["jobId"]
    for options in ({}, {"allusers": True}, {"account": "proj"}, {"name": "sbatch", "time_window": "1h"}):
        states = {job["jobId"]: job["status"]["state"] for job in await client("job_info", system, **options)}
        assert states[job_id] in {"PENDING", "RUNNING"}, options
        assert set(states.values()) <= {"PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}
    bob = firecrest.v2.Firecrest(testbed.url, authorization=Token(testbed.environment["BOB_TOKEN"]))
    assert job_id not in {job["jobId"] for job in await asyncio.to_thread(bob.job_info, system)}
    assert job_id in {job["jobId"] for job in await asyncio.to_thread(bob.job_info, system, allusers=True)}
    for forbidden in (bob.job_info, bob.job_metadata, bob.cancel_job):
        with pytest.raises(FirecrestException) as error:
            await asyncio.to_thread(forbidden, system, job_id)
        assert refusal(error)[0] in {403, 404}
    (directory / "end").touch()
    (job,) = await client("wait_for_job", system, job_id)
    assert job["status"]["state"] == "COMPLETED"


async def test_attach_and_cancel(client: Client, system: str, directory: Path) -> None:
    job_id = (await client("submit", system, str(directory), script_str=WAITS))["jobId"]
    await begun(directory, job_id)
    await client("attach_to_job", system, job_id, 'echo "Attached with success in $PWD as $SLURM_JOB_ID" > attach.out')
    assert read(directory / "attach.out") == f"Attached with success in {directory} as {job_id}\n"
    with pytest.raises(FirecrestException) as error:
        await client("attach_to_job", system, job_id, "echo why >&2; exit 5")
    assert refusal(error) == (400, "Remote process failed with exit status:5 and error message:why")
    await client("cancel_job", system, job_id)
    (job,) = await client("wait_for_job", system, job_id)
    assert job["status"]["state"] == "CANCELLED"
    with pytest.raises(FirecrestException) as error:
        await client("attach_to_job", system, job_id, "true")
    assert refusal(error)[0] == 409


async def test_a_wait_that_takes_too_long_cancels_the_job(client: Client, system: str, directory: Path) -> None:
    job_id = (await client("submit", system, str(directory), script_str=WAITS))["jobId"]
    with pytest.raises(JobTimeoutException):
        await client("wait_for_job", system, job_id, timeout=1)
    (job,) = await client("wait_for_job", system, job_id)
    assert job["status"]["state"] == "CANCELLED"


async def test_a_job_that_is_not_there(client: Client, system: str) -> None:
    for method in ("job_info", "job_metadata", "cancel_job"):
        with pytest.raises(FirecrestException) as error:
            await client(method, system, "99999999")
        status, message = refusal(error)
        assert (status, message.partition(":")[0]) == (404, "Job not found")


async def test_fifty_jobs_at_once(testbed: Testbed, system: str, directory: Path) -> None:
    made = firecrest.v2.AsyncFirecrest(testbed.url, authorization=Token(testbed.environment["ALICE_TOKEN"]))
    script = "#!/bin/sh\n#SBATCH --time=1\nexit 0\n"
    answers = await asyncio.gather(*(made.submit(system, str(directory), script_str=script) for _ in range(50)))
    ids = {answer["jobId"] for answer in answers}
    assert len(ids) == 50
    shown = await asyncio.gather(*(made.job_info(system, job_id) for job_id in ids))
    assert {jobs[0]["jobId"] for jobs in shown} == ids
    await asyncio.gather(*(made.cancel_job(system, job_id) for job_id in ids))
    await made.close_session()


async def test_what_the_cluster_has(client: Client, system: str) -> None:
    nodes = {node["name"]: node for node in await client("nodes", system)}
    assert set(nodes) == {"n1", "n2"}
    assert (nodes["n1"]["cpus"], set(nodes["n1"]["partitions"])) == (4, {"debug", "short"})
    partitions = {one["name"]: (one["partition"], one["cpus"], one["totalNodes"]) for one in await client("partitions", system)}
    assert partitions == {"debug": ("UP", 8, 2), "short": ("UP", 4, 1), "down": ("DOWN", 4, 1)}
    assert isinstance(await client("reservations", system), list)
    person = await client("userinfo", system)
    account = pwd.getpwnam("alice")
    assert person["user"] == {"id": str(account.pw_uid), "name": "alice"}
    assert person["group"]["id"] == str(account.pw_gid)
    assert person["accounts"] == [{"name": "proj", "default": True}]


async def test_health_is_looked_at_beside_the_requests(client: Client) -> None:
    def health(systems: list[dict[str, Any]]) -> dict[str, bool]:
        (found,) = [system for system in systems if system["name"] == "testbed-rest"]
        return {one["serviceType"]: one["healthy"] for one in found["servicesHealth"]}

    deadline = time.monotonic() + 60
    while set(seen := health(await client("systems"))) != {"filesystem", "scheduler", "ssh", "s3"}:
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.5)
    assert all(seen.values()), seen
    (rest,) = [one for one in await client("systems") if one["name"] == "testbed-rest"]
    assert rest["scheduler"]["version"].startswith("22.05")
    assert rest["scheduler"]["connectionMode"] == "hybrid"
    assert str(await client("server_version")).startswith("2.6")


def test_the_command_line(testbed: Testbed, system: str, directory: Path, tmp_path: Path) -> None:
    said = Program(testbed.url, system, testbed.environment["ALICE_TOKEN"], tmp_path)
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/bash\necho from the command line\n")
    job_id = json.loads(said("submit", "--working-dir", str(directory), str(script)))["jobId"]
    wait_until(lambda: read(directory / f"slurm-{job_id}.out") == "from the command line\n", 60, "the job runs")
    (job,) = json.loads(said("job-info", job_id))
    assert job["jobId"] == job_id
    assert json.loads(said("job-metadata", job_id))[0]["script"] == script.read_text()
    assert "n1" in said("get-nodes")
    assert "debug" in said("get-partitions")
    assert "alice" in said("id")
    missing = said.run("job-info", "99999999")
    assert missing.returncode == 1
    assert "Job not found" in missing.stdout + missing.stderr
