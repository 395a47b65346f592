"""What every plug behind ``ports/compute.py`` must do. A plug's test file subclasses ``ComputeContract``."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from dataclasses import dataclass, replace

import pytest

from stagecoach.core.errors import CommandFailed, Conflict, JobNotFound, NotAFile, StagecoachError, SubmissionRefused
from stagecoach.ports.compute import Compute, JobDescription, NodeState, SeenJob, WantedJobs
from stagecoach.ports.files import Files
from stagecoach.ports.scheduler import JobPhase

PATIENCE_SECONDS = 60
# Ends when its file `end` appears, or after a minute.
WAITS = "#!/bin/sh\necho begun\nn=0\nwhile [ ! -e end ] && [ $n -lt 300 ]; do sleep 0.2; n=$((n+1)); done\n"


@dataclass
class ComputeUnderTest:
    """A plug, whose user it acts for, and a directory of that user that is fresh for this test."""

    compute: Compute
    files: Files
    username: str
    directory: str

    async def submit(self, script: str, **more: object) -> str:
        """A job of that script in the directory."""
        job = replace(JobDescription(self.directory, script=script), **more)  # type: ignore[arg-type]
        return await self.compute.submit(self.username, job)

    async def show(self, job_id: str) -> SeenJob:
        [job] = await self.compute.show_job(self.username, job_id, of_everyone=False)
        return job

    async def until(self, job_id: str, *phases: JobPhase) -> SeenJob:
        """The job once it is in one of ``phases``, or in any end when none is given."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            job = await self.show(job_id)
            if job.report.phase in phases or (not phases and job.report.phase.is_final):
                return job
            assert time.monotonic() < deadline, job
            await asyncio.sleep(0.2)

    async def text(self, name: str) -> str:
        content = await self.files.read_file(self.username, f"{self.directory}/{name}", 100_000)
        return "" if content is None else content.decode()

    async def text_holds(self, name: str, words: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while words not in await self.text(name):
            assert time.monotonic() < deadline, f"{name} holds {await self.text(name)!r}"
            await asyncio.sleep(0.2)

    async def let_end(self) -> None:
        await self.files.write_file(self.username, f"{self.directory}/end", b"", 0o600)


class ComputeContract:
    """Subclasses give a fixture ``under_test``."""

    async def test_a_script_runs_in_its_directory_with_its_environment(self, under_test: ComputeUnderTest) -> None:
        value = 'it\'s $HOME, "a" `id` \\ é\nline two; x=1'
        script = '#!/bin/sh\npwd\nprintf "[%s]" "$F2_VALUE"\necho oops >&2\n# $(touch pwned) \'quoted\' "é"\n'
        before = int(time.time()) - 2
        job_id = await under_test.submit(
            script, environment={"F2_VALUE": value}, name="f2 job's name", output_path="out of %j", error_path="err"
        )
        job = await under_test.until(job_id)
        assert job.report.phase is JobPhase.COMPLETED, job
        assert (job.report.job_id, job.report.exit_code, job.report.user) == (job_id, 0, under_test.username)
        assert (job.report.name, job.directory, job.node_count) == ("f2 job's name", under_test.directory, 1)
        assert job.report.start_time is not None
        assert job.report.end_time is not None
        assert before <= job.report.start_time <= job.report.end_time <= time.time() + 2
        assert job.elapsed_seconds is not None
        assert await under_test.text(f"out of {job_id}") == f"{under_test.directory}\n[{value}]"
        assert await under_test.text("err") == "oops\n"
        assert await under_test.files.status(under_test.username, under_test.directory + "/pwned", follow_symlinks=False) is None

    async def test_variables_may_have_any_name(self, under_test: ComputeUnderTest) -> None:
        variables = {"program": "/usr/bin/touch", "OPTIND": "abc", "left": "3", "F6_LAST": "1"}
        script = "#!/bin/bash\ntr '\\0' '\\n' < /proc/$$/environ > environment\n"
        job = await under_test.until(await under_test.submit(script, environment=variables))
        assert job.report.phase is JobPhase.COMPLETED, job
        lines = (await under_test.text("environment")).splitlines()
        assert {f"{name}={value}" for name, value in variables.items()} <= set(lines)

    async def test_both_streams_go_to_one_file_unless_told_otherwise(self, under_test: ComputeUnderTest) -> None:
        await under_test.files.write_file(under_test.username, under_test.directory + "/in put", b"given\n", 0o600)
        job_id = await under_test.submit("#!/bin/sh\ncat\necho oops >&2\n", input_path="in put")
        await under_test.until(job_id)
        assert sorted((await under_test.text(f"slurm-{job_id}.out")).splitlines()) == ["given", "oops"]

    async def test_a_script_on_the_system(self, under_test: ComputeUnderTest) -> None:
        path = f"{under_test.directory}/it's my script"
        await under_test.files.write_file(under_test.username, path, b"#!/bin/sh\necho from file\n", 0o600)
        job_id = await under_test.compute.submit(
            under_test.username, JobDescription(under_test.directory, script_path=path, output_path="out")
        )
        assert (await under_test.until(job_id)).report.phase is JobPhase.COMPLETED
        assert await under_test.text("out") == "from file\n"

    async def test_a_script_that_is_none_or_not_there_is_refused(self, under_test: ComputeUnderTest) -> None:
        with pytest.raises(SubmissionRefused):
            await under_test.submit("echo no shebang\n")
        missing = JobDescription(under_test.directory, script_path=under_test.directory + "/missing")
        with pytest.raises(StagecoachError, match=r"(?i)no such file|unable to open"):
            await under_test.compute.submit(under_test.username, missing)

    async def test_a_script_that_is_no_file_is_refused(self, under_test: ComputeUnderTest) -> None:
        fifo = f"{under_test.directory}/fifo"
        os.mkfifo(fifo, 0o666)
        for path in (fifo, "/dev/zero", under_test.directory):
            with pytest.raises((NotAFile, SubmissionRefused), match=r"not a regular file|Is a directory"):
                await under_test.compute.submit(under_test.username, JobDescription(under_test.directory, script_path=path))

    async def test_a_running_job_shows_no_end(self, under_test: ComputeUnderTest) -> None:
        job_id = await under_test.submit(WAITS)
        job = await under_test.until(job_id, JobPhase.RUNNING)
        assert (job.report.end_time, job.report.exit_code) == (None, None)
        assert job.report.nodes
        await under_test.let_end()
        assert (await under_test.until(job_id)).report.phase is JobPhase.COMPLETED

    async def test_a_failed_job_tells_its_exit_code(self, under_test: ComputeUnderTest) -> None:
        job = await under_test.until(await under_test.submit("#!/bin/sh\nexit 7\n"))
        assert (job.report.phase, job.report.exit_code) == (JobPhase.FAILED, 7)

    async def test_jobs_are_listed(self, under_test: ComputeUnderTest) -> None:
        name = f"f2-{secrets.token_hex(6)}"
        ended = await under_test.submit("#!/bin/sh\ntrue\n", name=name)
        await under_test.until(ended)
        running = await under_test.submit(WAITS, name=name)
        other = await under_test.submit("#!/bin/sh\ntrue\n", name=name + "-other")
        ask = under_test.compute.list_jobs
        found = await ask(under_test.username, WantedJobs(name=name))
        assert [job.report.job_id for job in found] == [ended, running]
        everybody = {job.report.job_id for job in await ask(under_test.username, WantedJobs(of_everyone=True))}
        assert {ended, running, other} <= everybody
        assert await ask(under_test.username, WantedJobs(account="f2-nobodys")) == []
        assert {ended, running, other} <= {job.report.job_id for job in await ask(under_test.username, WantedJobs())}
        await under_test.let_end()
        await under_test.until(running)

    async def test_a_job_that_ended_before_the_window_is_left_out(self, under_test: ComputeUnderTest) -> None:
        job_id = await under_test.submit("#!/bin/sh\ntrue\n")
        job = await under_test.until(job_id)
        while time.time() < (job.report.end_time or 0) + 3:
            await asyncio.sleep(0.2)
        found = await under_test.compute.list_jobs(under_test.username, WantedJobs(window_seconds=1))
        assert job_id not in {job.report.job_id for job in found}

    async def test_the_papers_of_a_job(self, under_test: ComputeUnderTest) -> None:
        script = "#!/bin/sh\n# it's é & <x>\ntrue\n"
        job_id = await under_test.submit(script, output_path="o-%j", name="papers")
        papers = await under_test.compute.show_papers(under_test.username, job_id)
        assert papers.job_id == job_id
        assert (papers.script or "").rstrip("\0") == script
        assert papers.input_path == "/dev/null"
        assert papers.output_path == papers.error_path == f"{under_test.directory}/o-{job_id}"

    async def test_a_job_is_cancelled(self, under_test: ComputeUnderTest) -> None:
        job_id = await under_test.submit(WAITS, output_path="out")
        await under_test.until(job_id, JobPhase.RUNNING)
        await under_test.text_holds("out", "begun")
        await under_test.compute.cancel(under_test.username, job_id)
        assert (await under_test.until(job_id)).report.phase is JobPhase.CANCELLED
        await under_test.compute.cancel(under_test.username, job_id)

    async def test_a_command_is_attached_to_a_running_job(self, under_test: ComputeUnderTest) -> None:
        job_id = await under_test.submit(WAITS, output_path="out", name="attach")
        await under_test.until(job_id, JobPhase.RUNNING)
        await under_test.text_holds("out", "begun")
        attach = under_test.compute.attach
        await attach(under_test.username, job_id, "echo 'it worked' \"$PWD\" > attached; echo lost")
        assert await under_test.text("attached") == f"it worked {under_test.directory}\n"
        with pytest.raises(CommandFailed, match=r"exit status:3 .*so bad"):
            await attach(under_test.username, job_id, "echo so bad >&2; exit 3")
        begun = time.monotonic()
        await attach(under_test.username, job_id, "sleep 14; echo later > later")
        assert time.monotonic() - begun < 13
        assert await under_test.text("later") == ""
        await under_test.text_holds("later", "later")
        await under_test.let_end()
        await under_test.until(job_id)
        with pytest.raises(Conflict):
            await attach(under_test.username, job_id, "true")

    @pytest.mark.parametrize(
        ("command", "words"),
        [
            ("head -c 40000000 /dev/zero | tr '\\0' x >&2; exit 3", "exit status:3"),
            ("echo 'srun: error: x' >&2; exit 4", "exit status:4"),
            ("echo Invalid job id specified >&2; exit 5", "exit status:5 .*Invalid job id"),
            ("echo Access/permission denied >&2; exit 6", "exit status:6 .*denied"),
            ("echo stagecoach: no srun >&2; echo stagecoach: begun 0; exit 127", "exit status:127"),
        ],
    )
    async def test_what_an_attached_command_says_is_only_words(
        self, under_test: ComputeUnderTest, command: str, words: str
    ) -> None:
        job_id = await under_test.submit(WAITS, output_path="out")
        await under_test.until(job_id, JobPhase.RUNNING)
        await under_test.text_holds("out", "begun")
        with pytest.raises(CommandFailed, match=words):
            await under_test.compute.attach(under_test.username, job_id, command)
        await under_test.let_end()
        await under_test.until(job_id)

    @pytest.mark.parametrize(
        "job_id", ["99999999", "nope", "1a", "0", "00", "²", "4294967293", "4294967294", "4294967296", "9" * 18, "9" * 64]
    )
    async def test_unknown_jobs(self, under_test: ComputeUnderTest, job_id: str) -> None:
        compute, username = under_test.compute, under_test.username
        for asked in (
            compute.show_job(username, job_id, of_everyone=False),
            compute.show_papers(username, job_id),
            compute.cancel(username, job_id),
            compute.attach(username, job_id, "true"),
        ):
            with pytest.raises(JobNotFound, match="Job not found"):
                await asked

    async def test_a_job_has_one_spelling(self, under_test: ComputeUnderTest) -> None:
        job_id = await under_test.submit(WAITS)
        compute, username, odd = under_test.compute, under_test.username, f"0{job_id}"
        await under_test.until(job_id, JobPhase.RUNNING)
        for asked in (
            compute.show_job(username, odd, of_everyone=False),
            compute.show_papers(username, odd),
            compute.cancel(username, odd),
            compute.attach(username, odd, "true"),
        ):
            with pytest.raises(JobNotFound, match="Job not found"):
                await asked
        await under_test.let_end()
        assert (await under_test.until(job_id)).report.phase is JobPhase.COMPLETED

    async def test_what_the_cluster_has(self, under_test: ComputeUnderTest) -> None:
        compute, username = under_test.compute, under_test.username
        nodes = await compute.nodes(username)
        partitions = await compute.partitions(username, with_hidden=True)
        assert nodes
        assert all(node.name and node.cpus >= 1 and node.states and NodeState.UNKNOWN not in node.states for node in nodes)
        names = {partition.name for partition in partitions}
        assert all(node.partitions and set(node.partitions) <= names for node in nodes)
        assert any(partition.state == "UP" and (partition.cpus or 0) >= 1 and partition.node_count for partition in partitions)
        assert isinstance(await compute.reservations(username), list)
        assert await compute.ping(username)
