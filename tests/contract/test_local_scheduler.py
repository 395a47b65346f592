"""Jobs without a scheduler, through the port; and that they outlive the service."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.contract.scheduler_contract import SchedulerContract, SchedulerUnderTest

from stagecoach.clusters.local import LocalScheduler
from stagecoach.clusters.local_files import LocalFiles
from stagecoach.core.errors import InvalidRequest, JobNotFound
from stagecoach.ports.scheduler import JobPhase

SERVICE = """
import asyncio, sys, time
from stagecoach.clusters.local import LocalScheduler
from stagecoach.ports.scheduler import JobRequest
state, script, directory = sys.argv[1:]
request = JobRequest("stagecoach-x", script, directory, directory + "/out", directory + "/err", False)
print(asyncio.run(LocalScheduler(state).submit("me", request)), flush=True)
time.sleep(60)
"""


class TestLocalScheduler(SchedulerContract):
    @pytest.fixture
    def state(self, tmp_path: Path) -> Path:
        return tmp_path / "state"

    @pytest.fixture
    def under_test(self, tmp_path: Path, state: Path) -> SchedulerUnderTest:
        directory = os.path.realpath(tmp_path / "jobs")
        return SchedulerUnderTest(LocalScheduler(state), LocalFiles(), "me", directory)

    async def test_a_job_outlives_a_service_that_is_killed(
        self, under_test: SchedulerUnderTest, state: Path, tmp_path: Path
    ) -> None:
        request = await under_test.request("#!/bin/sh\nsleep 1.5\necho done\nexit 5\n")
        source = Path(sys.modules["stagecoach"].__file__ or "").parents[1]
        service = subprocess.Popen(
            [sys.executable, "-c", SERVICE, str(state), request.script_path, str(tmp_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(source)},
            start_new_session=True,
        )
        assert service.stdout is not None
        job_id = service.stdout.readline().decode().strip()
        os.killpg(service.pid, signal.SIGKILL)
        service.wait()
        service.stdout.close()
        [running] = await under_test.scheduler.find("me", "stagecoach-x")
        assert (running.job_id, running.phase) == (job_id, JobPhase.RUNNING)
        deadline = time.monotonic() + 20
        while not (ended := (await under_test.scheduler.find("me", "stagecoach-x"))[0]).phase.is_final:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert (ended.phase, ended.exit_code) == (JobPhase.FAILED, 5)
        assert (tmp_path / "out").read_text() == "done\n"

    async def test_a_job_whose_processes_are_gone(self, under_test: SchedulerUnderTest, state: Path) -> None:
        request = await under_test.request("#!/bin/sh\nsleep 60\n")
        job_id = await under_test.scheduler.submit("me", request)
        await under_test.until(job_id, request, JobPhase.RUNNING)
        os.killpg(json.loads((state / job_id / "started").read_text())["pid"], signal.SIGKILL)
        report = await under_test.until(job_id, request)
        assert (report.phase, report.exit_code) == (JobPhase.NODE_FAIL, None)

    async def test_a_script_that_outlives_its_runner_is_running_and_can_be_ended(
        self, under_test: SchedulerUnderTest, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stagecoach.clusters.local_job.GRACE_SECONDS", -2)
        request = await under_test.request("#!/bin/sh\nsleep 60\n")
        job_id = await under_test.scheduler.submit("me", request)
        await under_test.until(job_id, request, JobPhase.RUNNING)
        await asyncio.sleep(0.3)
        os.kill(json.loads((state / job_id / "started").read_text())["pid"], signal.SIGKILL)
        await asyncio.sleep(0.3)
        report = await under_test.report(job_id, request)
        assert report is not None
        assert report.phase is JobPhase.RUNNING
        await under_test.scheduler.cancel("me", job_id)
        assert (await under_test.until(job_id, request)).phase is JobPhase.CANCELLED

    async def test_a_release_that_was_cut_off_is_made_good(self, under_test: SchedulerUnderTest, state: Path) -> None:
        request = await under_test.request("#!/bin/sh\ntrue\n", held=True)
        job_id = await under_test.scheduler.submit("me", request)
        (state / job_id / "released").touch()  # and here the service was killed
        assert (await under_test.until(job_id, request)).phase is JobPhase.COMPLETED

    async def test_concurrent_releases_run_it_once(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/sh\necho ran\nsleep 0.5\n", held=True)
        job_id = await under_test.scheduler.submit("me", request)
        await asyncio.gather(
            *(under_test.scheduler.release("me", job_id) for _ in range(10)),
            *(under_test.scheduler.reports([under_test.key(job_id, request)]) for _ in range(20)),
        )
        await under_test.until(job_id, request)
        assert await under_test.text(request.output_path) == "ran\n"

    async def test_looking_while_it_starts_never_shows_an_end(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/sh\nsleep 1\n", held=True)
        job_id = await under_test.scheduler.submit("me", request)
        release = asyncio.create_task(under_test.scheduler.release("me", job_id))
        seen = set()
        while not release.done():
            report = await under_test.report(job_id, request)
            assert report is not None
            seen.add(report.phase)
        assert not any(phase.is_final for phase in seen), seen
        assert (await under_test.until(job_id, request)).phase is JobPhase.COMPLETED

    async def test_the_services_secrets_are_not_the_jobs(
        self, under_test: SchedulerUnderTest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STAGECOACH_S3__SECRET_ACCESS_KEY", "hush")
        request = await under_test.request("#!/bin/sh\nenv\n")
        job_id = await under_test.scheduler.submit("me", request)
        await under_test.until(job_id, request)
        printed = await under_test.text(request.output_path)
        assert "hush" not in printed
        assert "PATH=" in printed

    async def test_what_a_script_leaves_behind_ends_with_it(self, under_test: SchedulerUnderTest, state: Path) -> None:
        request = await under_test.request("#!/bin/bash\nsleep 600 &\necho $!\n")
        job_id = await under_test.scheduler.submit("me", request)
        assert (await under_test.until(job_id, request)).phase is JobPhase.COMPLETED
        with open(state / job_id / "lock", "rb") as lock:
            await asyncio.wait_for(asyncio.to_thread(_wait_free, lock.fileno()), 5)

    async def test_another_users_job_is_not_there(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/sh\ntrue\n", held=True)
        job_id = await under_test.scheduler.submit("me", request)
        with pytest.raises(JobNotFound):
            await under_test.scheduler.release("you", job_id)
        await under_test.scheduler.cancel("you", job_id)
        assert (await under_test.until(job_id, request, JobPhase.HELD)).phase is JobPhase.HELD
        with pytest.raises(InvalidRequest):
            await under_test.scheduler.release("me", "../1")

    async def test_old_jobs_are_forgotten_and_their_ids_not_given_again(
        self, under_test: SchedulerUnderTest, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stagecoach.clusters.local.KEEP_ENDED_SECONDS", 0)
        ids = []
        for _ in range(3):
            request = await under_test.request("#!/bin/sh\ntrue\n")
            ids.append(await under_test.scheduler.submit("me", request))
            await under_test.until(ids[-1], request)
            await asyncio.sleep(0.2)
        assert ids == ["1", "2", "3"]
        assert sorted(path.name for path in state.iterdir()) == ["3"]


def _wait_free(descriptor: int) -> None:
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX)
