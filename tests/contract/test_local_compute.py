"""Users' jobs without a scheduler, through the port."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.contract.compute_contract import WAITS, ComputeContract, ComputeUnderTest

from stagecoach.clusters.local import LocalScheduler
from stagecoach.clusters.local_compute import LocalCompute
from stagecoach.clusters.local_files import LocalFiles
from stagecoach.core.errors import JobNotFound
from stagecoach.ports.compute import WantedJobs
from stagecoach.ports.scheduler import JobPhase


class TestLocalCompute(ComputeContract):
    @pytest.fixture
    def under_test(self, tmp_path: Path) -> ComputeUnderTest:
        directory = os.path.realpath(tmp_path / "jobs")
        os.mkdir(directory)
        return ComputeUnderTest(LocalCompute(LocalScheduler(tmp_path / "state")), LocalFiles(), "me", directory)

    async def test_somebody_elses_job(self, under_test: ComputeUnderTest) -> None:
        compute = under_test.compute
        job_id = await under_test.submit(WAITS)
        await under_test.until(job_id, JobPhase.RUNNING)
        assert await compute.list_jobs("you", WantedJobs()) == []
        assert len(await compute.show_job("you", job_id, of_everyone=True)) == 1
        for asked in (
            compute.show_job("you", job_id, of_everyone=False),
            compute.show_papers("you", job_id),
            compute.cancel("you", job_id),
            compute.attach("you", job_id, "touch pwned"),
        ):
            with pytest.raises(JobNotFound):
                await asked
        await under_test.let_end()
        assert (await under_test.until(job_id)).report.phase is JobPhase.COMPLETED

    async def test_what_is_attached_ends_with_the_job(self, under_test: ComputeUnderTest) -> None:
        job_id = await under_test.submit(WAITS, output_path="out")
        await under_test.until(job_id, JobPhase.RUNNING)
        await under_test.compute.attach(under_test.username, job_id, "sleep 300 & echo $! > pid")
        await under_test.let_end()
        await under_test.until(job_id)
        pid = int(await under_test.text("pid"))
        assert not os.path.exists(f"/proc/{pid}") or Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"
