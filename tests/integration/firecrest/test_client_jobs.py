"""FirecREST's own client from PyPI, both its forms, against the whole application with this machine as the system."""

from __future__ import annotations

import asyncio
import getpass
import os
import time
from pathlib import Path

import firecrest.v2
import httpx
import pytest
from firecrest import FirecrestException
from firecrest.FirecrestException import JobTimeoutException
from tests.integration.firecrest.service import SYSTEM, Client, FirecrestService, Token, refusal

WAITS = "#!/bin/sh\necho begun\nn=0\nwhile [ ! -e end ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n+1)); done\n"


@pytest.fixture
def directory(service: FirecrestService, request: pytest.FixtureRequest) -> Path:
    """Of this test's jobs."""
    path = service.home / f"it's {request.node.name.replace('/', ' ')} é"
    path.mkdir()
    return path


async def test_systems(client: Client) -> None:
    version = await client("server_version")
    assert str(version).startswith("2.6")
    deadline = time.monotonic() + 30
    while True:
        (system,) = await client("systems")
        if {one["serviceType"] for one in system["servicesHealth"]} == {"filesystem", "s3", "scheduler"}:
            break
        assert time.monotonic() < deadline, system
        await asyncio.sleep(0.1)
    health = {one["serviceType"]: one["healthy"] for one in system["servicesHealth"]}
    assert health == {"filesystem": True, "scheduler": True, "s3": False}
    assert system["name"] == SYSTEM


async def test_liveness_needs_no_token(service: FirecrestService) -> None:
    answer = httpx.get(f"{service.url}/status/liveness/")
    assert answer.status_code == 200
    assert set(answer.json()) == {"healthcheckRuns", "lastUpdate"}


async def test_what_the_system_has(client: Client) -> None:
    (node,) = await client("nodes", SYSTEM)
    assert node["cpus"] == os.cpu_count()
    assert [partition["name"] for partition in await client("partitions", SYSTEM)] == node["partitions"]
    assert await client("reservations", SYSTEM) == []
    person = await client("userinfo", SYSTEM)
    assert person["user"] == {"id": str(os.getuid()), "name": getpass.getuser()}
    assert person["group"]["id"] == str(os.getgid())
    with pytest.raises(FirecrestException) as error:
        await client("nodes", "nowhere")
    assert refusal(error)[0] == 404


async def test_a_script_is_submitted_waited_for_and_looked_at(client: Client, directory: Path) -> None:
    script = '#!/bin/bash\n# it\'s "quoted" $(touch pwned) é\nprintf "%s" "$GIVEN"\n'
    given = 'it\'s "a" $HOME `id` \\ é\nsecond line'
    job_id = (await client("submit", SYSTEM, str(directory), script_str=script, env_vars={"GIVEN": given}))["jobId"]
    (job,) = await client("wait_for_job", SYSTEM, job_id, timeout=60)
    assert (job["status"]["state"], job["status"]["exitCode"], job["jobId"]) == ("COMPLETED", 0, job_id)
    assert (job["user"], job["workingDirectory"]) == (getpass.getuser(), str(directory))
    assert (directory / f"slurm-{job_id}.out").read_text() == given
    assert not (directory / "pwned").exists()
    (papers,) = await client("job_metadata", SYSTEM, job_id)
    assert papers == {
        "jobId": job_id,
        "script": script,
        "standardInput": "/dev/null",
        "standardOutput": str(directory / f"slurm-{job_id}.out"),
        "standardError": str(directory / f"slurm-{job_id}.out"),
    }


async def test_scripts_from_files_here_and_there(client: Client, directory: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here.sh", directory / "there's one.sh"
    here.write_text("#!/bin/sh\necho here\n")
    there.write_text("#!/bin/sh\necho there\n")
    for options, said in (({"script_local_path": str(here)}, "here\n"), ({"script_remote_path": str(there)}, "there\n")):
        job_id = (await client("submit", SYSTEM, str(directory), **options))["jobId"]
        await client("wait_for_job", SYSTEM, job_id, timeout=60)
        assert (directory / f"slurm-{job_id}.out").read_text() == said


async def test_a_failed_job(client: Client, directory: Path) -> None:
    job_id = (await client("submit", SYSTEM, str(directory), script_str="#!/bin/sh\nexit 7\n"))["jobId"]
    (job,) = await client("wait_for_job", SYSTEM, job_id)
    assert (job["status"]["state"], job["status"]["exitCode"]) == ("FAILED", 7)


async def test_waiting_ends_soon_after_the_job(client: Client, directory: Path) -> None:
    job_id = (await client("submit", SYSTEM, str(directory), script_str="#!/bin/sh\nsleep 1\n"))["jobId"]
    begun = time.monotonic()
    await client("wait_for_job", SYSTEM, job_id)
    assert time.monotonic() - begun < 12


async def test_jobs_are_listed(client: Client, directory: Path) -> None:
    job_id = (await client("submit", SYSTEM, str(directory), script_str=WAITS))["jobId"]
    for options in ({}, {"allusers": True}, {"name": "sbatch", "time_window": "1h"}):
        listed = {job["jobId"]: job["status"]["state"] for job in await client("job_info", SYSTEM, **options)}
        assert listed[job_id] in {"PENDING", "RUNNING"}, options
    assert await client("job_info", SYSTEM, account="nobodys") == []
    (directory / "end").touch()
    await client("wait_for_job", SYSTEM, job_id)


async def test_attaching_and_cancelling(client: Client, directory: Path) -> None:
    job_id = (await client("submit", SYSTEM, str(directory), script_str=WAITS))["jobId"]
    deadline = time.monotonic() + 30
    while not (directory / f"slurm-{job_id}.out").exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    await client("attach_to_job", SYSTEM, job_id, "echo 'Attached with success' > attach.out")
    assert (directory / "attach.out").read_text() == "Attached with success\n"
    with pytest.raises(FirecrestException) as error:
        await client("attach_to_job", SYSTEM, job_id, "echo why >&2; exit 5")
    assert refusal(error) == (400, "Remote process failed with exit status:5 and error message:why")
    await client("cancel_job", SYSTEM, job_id)
    (job,) = await client("wait_for_job", SYSTEM, job_id)
    assert job["status"]["state"] == "CANCELLED"
    with pytest.raises(FirecrestException) as error:
        await client("attach_to_job", SYSTEM, job_id, "true")
    assert refusal(error)[0] == 409


async def test_a_wait_that_takes_too_long_cancels_the_job(client: Client, directory: Path) -> None:
    job_id = (await client("submit", SYSTEM, str(directory), script_str=WAITS))["jobId"]
    with pytest.raises(JobTimeoutException):
        await client("wait_for_job", SYSTEM, job_id, timeout=0.5)
    (job,) = await client("wait_for_job", SYSTEM, job_id, timeout=60)
    assert job["status"]["state"] == "CANCELLED"


@pytest.mark.parametrize("method", ["job_info", "job_metadata", "cancel_job"])
async def test_a_job_that_is_not_there(client: Client, method: str) -> None:
    with pytest.raises(FirecrestException) as error:
        await client(method, SYSTEM, "99999999")
    status, message = refusal(error)
    assert status == 404
    assert "Job not found" in message


async def test_what_cannot_be_submitted(client: Client, directory: Path) -> None:
    for where, script, status, words in (
        (directory / "missing", "#!/bin/sh\n", 404, "No such file or directory"),
        (directory, "no shebang\n", 400, "batch script"),
        (Path("relative"), "#!/bin/sh\n", 400, "absolute"),
    ):
        with pytest.raises(FirecrestException) as error:
            await client("submit", SYSTEM, str(where), script_str=script)
        assert refusal(error)[0] == status
        assert words in refusal(error)[1]


async def test_a_token_that_does_not_hold(service: FirecrestService) -> None:
    stranger = firecrest.v2.Firecrest(service.url, authorization=Token("x.y.z"))
    with pytest.raises(FirecrestException) as error:
        await asyncio.to_thread(stranger.systems)
    assert refusal(error)[0] == 401
    assert "x.y.z" not in refusal(error)[1]
