"""What every plug behind ``ports/scheduler.py`` must do. A plug's test file subclasses ``SchedulerContract``."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, replace

import pytest

from stagecoach.core.errors import JobNotFound, SubmissionRefused
from stagecoach.ports.files import Files
from stagecoach.ports.scheduler import JobKey, JobPhase, JobReport, JobRequest, Scheduler

PATIENCE_SECONDS = 40


@dataclass
class SchedulerUnderTest:
    """A plug, whose user it acts for, and a directory of that user that is fresh for this test."""

    scheduler: Scheduler
    files: Files
    username: str
    directory: str

    async def request(self, script: str, *, held: bool = False, subdirectory: str = "", account: str | None = None) -> JobRequest:
        """A request for a new script in the directory."""
        directory = f"{self.directory}/{subdirectory}" if subdirectory else self.directory
        await self.files.make_directory(self.username, directory)
        name = f"stagecoach-{secrets.token_hex(8)}"
        path = f"{directory}/{name}.sh"
        await self.files.write_file(self.username, path, script.encode(), 0o700)
        return JobRequest(
            name=name,
            script_path=path,
            directory=directory,
            output_path=f"{directory}/{name}.out",
            error_path=f"{directory}/{name}.err",
            held=held,
            account=account,
        )

    def key(self, job_id: str, request: JobRequest) -> JobKey:
        return JobKey(job_id=job_id, name=request.name, user=self.username)

    async def report(self, job_id: str, request: JobRequest) -> JobReport | None:
        return (await self.scheduler.reports([self.key(job_id, request)])).get(job_id)

    async def until(self, job_id: str, request: JobRequest, *phases: JobPhase) -> JobReport:
        """The job's report once it is in one of ``phases``, or in any end when none is given."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        report = None
        while time.monotonic() < deadline:
            report = await self.report(job_id, request)
            if report is not None and (report.phase in phases or (not phases and report.phase.is_final)):
                return report
            await asyncio.sleep(0.1)
        raise AssertionError(f"job {job_id} is {report}")

    async def text(self, path: str) -> str:
        content = await self.files.read_file(self.username, path, 100_000)
        return "" if content is None else content.decode()


class SchedulerContract:
    """Subclasses give a fixture ``under_test``."""

    async def test_a_job_runs_in_its_directory_and_its_log_is_kept(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/bash\npwd\necho oops >&2\n")
        await under_test.files.write_file(under_test.username, request.output_path, b"before\n", 0o600)
        before = int(time.time()) - 2
        job_id = await under_test.scheduler.submit(under_test.username, request)
        report = await under_test.until(job_id, request)
        assert report.phase is JobPhase.COMPLETED, report
        assert (report.job_id, report.name, report.user) == (job_id, request.name, under_test.username)
        assert report.exit_code == 0
        assert report.signal is None
        assert report.submit_time is not None
        assert report.start_time is not None
        assert report.end_time is not None
        assert before <= report.submit_time <= report.start_time <= report.end_time <= time.time() + 2
        assert await under_test.text(request.output_path) == f"before\n{request.directory}\n"
        assert await under_test.text(request.error_path) == "oops\n"

    async def test_a_held_job_waits_for_its_release(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/sh\necho ran\n", held=True)
        job_id = await under_test.scheduler.submit(under_test.username, request)
        report = await under_test.until(job_id, request, JobPhase.HELD)
        assert (report.exit_code, report.start_time, report.end_time) == (None, None, None)
        await asyncio.sleep(0.5)
        assert (await under_test.until(job_id, request, JobPhase.HELD)).phase is JobPhase.HELD
        await under_test.scheduler.release(under_test.username, job_id)
        await under_test.scheduler.release(under_test.username, job_id)
        assert (await under_test.until(job_id, request)).phase is JobPhase.COMPLETED
        await under_test.scheduler.release(under_test.username, job_id)
        assert await under_test.text(request.output_path) == "ran\n"

    async def test_a_running_job_shows_no_end_and_no_exit(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/sh\nsleep 2\n")
        job_id = await under_test.scheduler.submit(under_test.username, request)
        report = await under_test.until(job_id, request, JobPhase.RUNNING)
        assert (report.exit_code, report.signal, report.end_time) == (None, None, None)
        await under_test.scheduler.release(under_test.username, job_id)
        assert (await under_test.until(job_id, request)).phase is JobPhase.COMPLETED

    async def test_a_failed_job_tells_its_exit_code(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/sh\nexit 7\n")
        job_id = await under_test.scheduler.submit(under_test.username, request)
        report = await under_test.until(job_id, request)
        assert (report.phase, report.exit_code, report.signal) == (JobPhase.FAILED, 7, None)

    async def test_a_job_killed_by_a_signal_has_failed(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/sh\nkill -9 $$\n")
        job_id = await under_test.scheduler.submit(under_test.username, request)
        report = await under_test.until(job_id, request)
        assert (report.phase, report.exit_code, report.signal) == (JobPhase.FAILED, None, 9)

    async def test_a_log_that_cannot_be_written_fails_the_job(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/sh\ntrue\n")
        missing = JobRequest(
            name=request.name,
            script_path=request.script_path,
            directory=request.directory,
            output_path=f"{request.directory}/not/there.out",
            error_path=request.error_path,
            held=False,
        )
        job_id = await under_test.scheduler.submit(under_test.username, missing)
        report = await under_test.until(job_id, request)
        assert report.phase is JobPhase.FAILED
        assert report.exit_code != 0

    async def test_a_held_job_can_be_cancelled_and_never_runs(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/sh\necho ran\n", held=True)
        job_id = await under_test.scheduler.submit(under_test.username, request)
        await under_test.scheduler.cancel(under_test.username, job_id)
        report = await under_test.until(job_id, request)
        assert (report.phase, report.exit_code) == (JobPhase.CANCELLED, None)
        await under_test.scheduler.cancel(under_test.username, job_id)
        await under_test.scheduler.release(under_test.username, job_id)
        await asyncio.sleep(0.5)
        assert (await under_test.until(job_id, request)).phase is JobPhase.CANCELLED
        assert await under_test.text(request.output_path) == ""

    async def test_a_running_job_can_be_cancelled_and_may_tidy_up(self, under_test: SchedulerUnderTest) -> None:
        script = "#!/bin/bash\ntrap 'echo tidied; exit 3' TERM\necho begun\nsleep 60 & wait\n"
        request = await under_test.request(script)
        job_id = await under_test.scheduler.submit(under_test.username, request)
        await under_test.until(job_id, request, JobPhase.RUNNING)
        deadline = time.monotonic() + 10
        while "begun" not in await under_test.text(request.output_path) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        await under_test.scheduler.cancel(under_test.username, job_id)
        report = await under_test.until(job_id, request)
        assert report.phase is JobPhase.CANCELLED
        assert report.exit_code != 0

    async def test_a_job_that_ignores_the_request_to_stop_is_killed(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/bash\ntrap '' TERM\nfor i in {1..60}; do sleep 1; done\n")
        job_id = await under_test.scheduler.submit(under_test.username, request)
        await under_test.until(job_id, request, JobPhase.RUNNING)
        await under_test.scheduler.cancel(under_test.username, job_id)
        assert (await under_test.until(job_id, request)).phase is JobPhase.CANCELLED

    async def test_a_finished_job_stays_completed_when_it_is_cancelled(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/sh\ntrue\n")
        job_id = await under_test.scheduler.submit(under_test.username, request)
        assert (await under_test.until(job_id, request)).phase is JobPhase.COMPLETED
        await under_test.scheduler.cancel(under_test.username, job_id)
        assert (await under_test.until(job_id, request)).phase is JobPhase.COMPLETED

    async def test_unknown_jobs(self, under_test: SchedulerUnderTest) -> None:
        scheduler, username = under_test.scheduler, under_test.username
        await scheduler.cancel(username, "99999999")
        with pytest.raises(JobNotFound):
            await scheduler.release(username, "99999999")
        assert await scheduler.find(username, f"stagecoach-{secrets.token_hex(8)}") == []
        assert await scheduler.reports([]) == {}
        assert await scheduler.reports([JobKey("99999999", "stagecoach-x", username)]) == {}
        many = [JobKey(str(90_000_000 + number), "stagecoach-x", username) for number in range(5000)]
        assert await scheduler.reports(many) == {}

    async def test_a_job_with_the_same_id_and_another_name_or_owner_is_not_the_one(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/sh\ntrue\n", held=True)
        job_id = await under_test.scheduler.submit(under_test.username, request)
        await under_test.until(job_id, request, JobPhase.HELD)
        assert await under_test.scheduler.reports([JobKey(job_id, "stagecoach-other", under_test.username)]) == {}
        both = [JobKey("99999999", "stagecoach-other", under_test.username), under_test.key(job_id, request)]
        assert set(await under_test.scheduler.reports(both)) == {job_id}
        await under_test.scheduler.cancel(under_test.username, job_id)

    async def test_a_job_is_found_by_its_name(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/sh\nexit 4\n", held=True)
        longer = JobRequest(
            name=f"{request.name}-longer",
            script_path=request.script_path,
            directory=request.directory,
            output_path=request.output_path,
            error_path=request.error_path,
            held=True,
        )
        job_id = await under_test.scheduler.submit(under_test.username, request)
        other_id = await under_test.scheduler.submit(under_test.username, longer)
        assert int(other_id) > int(job_id)
        found = await under_test.scheduler.find(under_test.username, request.name)
        assert [(job.job_id, job.phase) for job in found] == [(job_id, JobPhase.HELD)]
        await under_test.scheduler.cancel(under_test.username, other_id)
        await under_test.scheduler.release(under_test.username, job_id)
        await under_test.until(job_id, request)
        found = await under_test.scheduler.find(under_test.username, request.name)
        assert [(job.job_id, job.phase, job.exit_code) for job in found] == [(job_id, JobPhase.FAILED, 4)]

    async def test_open_jobs_are_listed_by_the_beginning_of_their_names(self, under_test: SchedulerUnderTest) -> None:
        scheduler, username = under_test.scheduler, under_test.username
        request = await under_test.request("#!/bin/sh\ntrue\n", held=True)
        ended = replace(request, name=f"{request.name}-2", held=False)
        other = replace(request, name=f"x{request.name}")
        job_id, ended_id, other_id = [await scheduler.submit(username, each) for each in (request, ended, other)]
        await under_test.until(job_id, request, JobPhase.HELD)
        await under_test.until(ended_id, ended)
        await under_test.until(other_id, other, JobPhase.HELD)
        for of_everyone in (False, True):
            listed = await scheduler.list_open_jobs(username, request.name, of_everyone=of_everyone)
            assert [(job.job_id, job.name, job.user, job.phase) for job in listed] == [
                (job_id, request.name, username, JobPhase.HELD)
            ]
        for each in (job_id, other_id):
            await scheduler.cancel(username, each)
        await under_test.until(job_id, request)
        assert await scheduler.list_open_jobs(username, request.name, of_everyone=False) == []

    @pytest.mark.parametrize(
        "subdirectory", ["a b", "it's", '"q"', "$(touch pwned)", "50%j", "back\\slash %j", "é", "-n", "a;b&c|d"]
    )
    async def test_a_directory_may_have_any_name(self, under_test: SchedulerUnderTest, subdirectory: str) -> None:
        request = await under_test.request("#!/bin/sh\npwd\n", subdirectory=subdirectory)
        job_id = await under_test.scheduler.submit(under_test.username, request)
        assert (await under_test.until(job_id, request)).phase is JobPhase.COMPLETED
        assert await under_test.text(request.output_path) == request.directory + "\n"
        assert await under_test.text(request.error_path) == ""

    async def test_what_is_not_a_script_is_refused(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("echo no interpreter\n")
        with pytest.raises(SubmissionRefused, match="batch script"):
            await under_test.scheduler.submit(under_test.username, request)
        assert await under_test.scheduler.find(under_test.username, request.name) == []

    async def test_many_jobs_at_once_get_their_own_ids(self, under_test: SchedulerUnderTest) -> None:
        requests = [await under_test.request(f"#!/bin/sh\nexit {number}\n") for number in range(8)]
        ids = await asyncio.gather(*(under_test.scheduler.submit(under_test.username, request) for request in requests))
        assert len(set(ids)) == len(requests)
        ends = await asyncio.gather(*(under_test.until(job_id, request) for job_id, request in zip(ids, requests, strict=True)))
        assert [end.exit_code for end in ends] == list(range(8))

    async def test_ping_names_the_scheduler(self, under_test: SchedulerUnderTest) -> None:
        line = await under_test.scheduler.ping(under_test.username)
        assert line
        assert "\n" not in line
