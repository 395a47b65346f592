"""Slurm itself for users' own jobs, by its commands over SSH and by slurmrestd. Needs the testbed."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tests.contract.compute_contract import WAITS, ComputeContract, ComputeUnderTest
from tests.contract.ssh_testbed import directory_of, open_pool, read_testbed, system_settings

from stagecoach.clusters.remote_files import RemoteFiles
from stagecoach.clusters.slurm_compute import SlurmCompute
from stagecoach.clusters.slurm_rest import SlurmRest
from stagecoach.core.errors import InvalidRequest, JobNotFound, PermissionRefused, SubmissionRefused, SystemUnavailable
from stagecoach.ports.compute import JobDescription, WantedJobs
from stagecoach.ports.scheduler import JobPhase
from stagecoach.settings.systems import RestSettings


def rest_settings(**more: object) -> RestSettings:
    found = read_testbed()
    values = {"url": found["SLURMRESTD_URL"], "jwt_key_file": found["SLURM_JWT_KEY"], **more}
    return RestSettings.model_validate(values)


@asynccontextmanager
async def by_commands() -> AsyncIterator[ComputeUnderTest]:
    found = read_testbed()
    settings = system_settings(found)
    with directory_of("alice", found["ALICE_HOME"]) as directory:
        async with open_pool(settings) as pool:
            files = RemoteFiles(settings, pool)
            yield ComputeUnderTest(SlurmCompute(settings, pool, files), files, "alice", directory)


@asynccontextmanager
async def by_rest(settings: RestSettings | None = None) -> AsyncIterator[ComputeUnderTest]:
    async with by_commands() as over_ssh:
        rest = SlurmRest("testbed", settings or rest_settings(), over_ssh.compute, over_ssh.files)
        try:
            yield replace(over_ssh, compute=rest)
        finally:
            await rest.aclose()


class SlurmContract(ComputeContract):
    """What Slurm does whoever asks it."""

    async def test_somebody_elses_job(self, under_test: ComputeUnderTest) -> None:
        compute = under_test.compute
        job_id = await under_test.submit(WAITS)
        await under_test.until(job_id, JobPhase.RUNNING)
        assert job_id not in {job.report.job_id for job in await compute.list_jobs("bob", WantedJobs())}
        [seen] = await compute.show_job("bob", job_id, of_everyone=True)
        assert seen.report.user == "alice"
        with pytest.raises(JobNotFound):
            await compute.show_job("bob", job_id, of_everyone=False)
        for asked in (
            compute.show_papers("bob", job_id),
            compute.cancel("bob", job_id),
            compute.attach("bob", job_id, "touch /tmp/f2-pwned"),
        ):
            with pytest.raises((PermissionRefused, JobNotFound)):
                await asked
        await under_test.let_end()
        assert (await under_test.until(job_id)).report.phase is JobPhase.COMPLETED

    async def test_slurms_own_words_refuse(self, under_test: ComputeUnderTest) -> None:
        for more, words in (
            ({"partition": "nope"}, "partition"),
            ({"account": "no-such-account"}, "account"),
            ({"reservation": "no-such-reservation"}, "reservation"),
            ({"constraints": "no-such-feature"}, "feature"),
        ):
            with pytest.raises(SubmissionRefused, match=f"(?i){words}"):
                await under_test.submit("#!/bin/sh\ntrue\n", **more)

    async def test_accounts_and_partitions(self, under_test: ComputeUnderTest) -> None:
        assert [(one.name, one.is_default) for one in await under_test.compute.accounts("alice") or []] == [("proj", True)]
        job_id = await under_test.submit("#!/bin/sh\ntrue\n", account="proj", partition="short")
        job = await under_test.until(job_id)
        assert (job.report.account, job.report.partition, job.limit_seconds) == ("proj", "short", 60)
        found = await under_test.compute.list_jobs("alice", WantedJobs(account="proj"))
        assert job_id in {one.report.job_id for one in found}

    async def test_an_array_is_all_its_tasks(self, under_test: ComputeUnderTest) -> None:
        script = '#!/bin/sh\n#SBATCH --array=0-2\n#SBATCH --time=1\nexit "$SLURM_ARRAY_TASK_ID"\n'
        job_id = await under_test.submit(script)
        deadline = time.monotonic() + 60
        while True:
            jobs = await under_test.compute.show_job("alice", job_id, of_everyone=False)
            # FirecREST's client looks at the first.
            if jobs[0].report.phase.is_final:
                break
            assert time.monotonic() < deadline, jobs
            await asyncio.sleep(0.3)
        assert len(jobs) == 3
        assert sorted(str(job.report.phase) for job in jobs) == ["completed", "failed", "failed"]

    @pytest.mark.parametrize("option", ["--wait", "-W", "--test-only", "--export=NONE"])
    async def test_options_that_a_request_cannot_give_are_refused_in_words(
        self, under_test: ComputeUnderTest, option: str
    ) -> None:
        script = f"#!/bin/sh\n#SBATCH {option}\nsleep 60\n"
        path = f"{under_test.directory}/script"
        await under_test.files.write_file("alice", path, script.encode(), 0o600)
        named = JobDescription(under_test.directory, script_path=path, environment={"A": "1"})
        for job in (named, replace(named, script=script, script_path=None)):
            with pytest.raises(InvalidRequest, match="(?i)" + {"-W": "--wait"}.get(option, option.partition("=")[0])) as refused:
                await under_test.compute.submit("alice", job)
            assert type(refused.value) is InvalidRequest
        open_jobs = [job for job in await under_test.compute.list_jobs("alice", WantedJobs()) if not job.report.phase.is_final]
        assert not [job for job in open_jobs if job.directory == under_test.directory]

    @pytest.mark.parametrize(
        ("script", "words"), [("#!/bin/sh\r\ntrue\r\n", "DOS line breaks"), ("#!/bin/sh\n\0true\n", "NULL character")]
    )
    async def test_a_script_that_no_shell_would_run_is_refused(
        self, under_test: ComputeUnderTest, script: str, words: str
    ) -> None:
        with pytest.raises(SubmissionRefused, match=words):
            await under_test.submit(script)

    async def test_a_script_says_itself_which_variables_its_job_gets(self, under_test: ComputeUnderTest) -> None:
        job_id = await under_test.submit('#!/bin/sh\n#SBATCH --export=ALL,F7_OWN=yes\necho "[$F7_OWN]"\n', output_path="out")
        await under_test.until(job_id)
        assert await under_test.text("out") == "[yes]\n"

    async def test_a_hostile_name_forges_no_job(self, under_test: ComputeUnderTest) -> None:
        name = "x|\n999999|999999|RUNNING|0|root|root|p|debug|n1|1|0|0|0|1|1|1|None|/|forged|\n"
        job_id = await under_test.submit("#!/bin/sh\ntrue\n", name=name)
        await under_test.until(job_id)
        found = await under_test.compute.list_jobs("alice", WantedJobs(of_everyone=True))
        assert "999999" not in {job.report.job_id for job in found}
        assert job_id in {job.report.job_id for job in found}


class TestSlurmByCommands(SlurmContract):
    @pytest.fixture
    async def under_test(self) -> AsyncIterator[ComputeUnderTest]:
        async with by_commands() as made:
            yield made

    async def test_accounting_tells_of_what_the_controller_has_forgotten(self, under_test: ComputeUnderTest) -> None:
        script = "#!/bin/sh\nexit 7\n"
        job_id = await under_test.submit(script, name="forgotten")
        await under_test.until(job_id)
        compute = under_test.compute
        assert isinstance(compute, SlurmCompute)
        deadline = time.monotonic() + 20
        while True:
            rows = await compute._accounting("alice", user="alice", job_id=job_id)
            # Until it knows of this one, it may tell of a job that had its number before the controller lost its memory.
            if rows and rows[0][1].report.name == "forgotten":
                break
            assert time.monotonic() < deadline, rows
            await asyncio.sleep(0.5)
        [(_, job)] = rows
        assert (job.report.name, job.report.phase, job.report.exit_code) == ("forgotten", JobPhase.FAILED, 7)
        assert (job.directory, job.node_count, job.limit_seconds) == (under_test.directory, 1, 300)

    async def test_the_environment_is_the_users_login(self, under_test: ComputeUnderTest) -> None:
        job_id = await under_test.submit("#!/bin/sh\nenv\n", output_path="out", environment={"PATH": "/of/the/job:/usr/bin:/bin"})
        await under_test.until(job_id)
        lines = (await under_test.text("out")).splitlines()
        assert "PATH=/of/the/job:/usr/bin:/bin" in lines
        names = {line.split("=", 1)[0] for line in lines}
        assert {"HOME", "USER", "SLURM_JOB_ID"} <= names
        assert not names & {"SSH_CONNECTION", "SSH_CLIENT", "SLURM_GET_USER_ENV"}

    async def test_a_reservation_is_seen(self, under_test: ComputeUnderTest) -> None:
        found = read_testbed()
        environment = {"SLURM_CONF": found["SLURM_CONF"], "PATH": "/usr/bin:/bin"}
        create = "create reservation reservationname=f2course nodes=n2 users=bob starttime=now+1hour duration=10"
        subprocess.run(["scontrol", *create.split()], env=environment, check=True, capture_output=True)
        try:
            made = [one for one in await under_test.compute.reservations("alice") if one.name == "f2course"]
            async with by_rest() as rest:
                made += [one for one in await rest.compute.reservations("alice") if one.name == "f2course"]
        finally:
            subprocess.run(["scontrol", "delete", "reservation=f2course"], env=environment, check=True, capture_output=True)
        assert [(one.nodes, one.end_time - one.start_time) for one in made] == [("n2", 600), ("n2", 600)]
        assert all(abs(one.start_time - time.time() - 3600) < 120 for one in made)

    async def test_missing_binaries_are_named(self, under_test: ComputeUnderTest) -> None:
        settings = system_settings(read_testbed(), scheduler={"binaries": "/opt/none"})
        async with open_pool(settings) as pool:
            plug = partial(SlurmCompute, settings, pool, RemoteFiles(settings, pool))
            for ask in (
                lambda: plug().submit("alice", JobDescription("/", script="#!/bin/sh\n")),
                lambda: plug().list_jobs("alice", WantedJobs()),
                lambda: plug().attach("alice", "1", "true"),
            ):
                with pytest.raises(SystemUnavailable, match=r"scheduler\.binaries"):
                    await ask()


class TestSlurmByRest(SlurmContract):
    @pytest.fixture
    async def under_test(self) -> AsyncIterator[ComputeUnderTest]:
        async with by_rest() as made:
            yield made

    async def test_a_server_that_is_not_there_and_a_key_that_is_not_slurms(self, tmp_path: Path) -> None:
        key = tmp_path / "key"
        key.write_bytes(b"x" * 32)
        for settings in (
            rest_settings(url="http://127.0.0.1:9"),
            rest_settings(jwt_key_file=str(key)),
            rest_settings(jwt_key_file=str(tmp_path / "none")),
            rest_settings(api_version="v0.0.99"),
        ):
            async with by_rest(settings) as made:
                with pytest.raises(SystemUnavailable):
                    await made.compute.list_jobs("alice", WantedJobs())
                with pytest.raises(SystemUnavailable):
                    await made.compute.ping("alice")
