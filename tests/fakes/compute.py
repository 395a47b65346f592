"""A scheduler in memory for users' own jobs, which a test moves by hand; nothing of them ever runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from stagecoach.core.errors import CommandFailed, Conflict, StagecoachError
from stagecoach.ports.compute import (
    JobDescription,
    JobPapers,
    Node,
    NodeState,
    Partition,
    ProjectAccount,
    Reservation,
    SeenJob,
    WantedJobs,
    job_not_found,
)
from stagecoach.ports.scheduler import JobPhase, JobReport


class MemoryCompute:
    """``calls`` holds every call in order: (verb, user). ``trouble`` is raised by each while it is not None."""

    def __init__(self, now: Callable[[], datetime], first_job_id: int = 9001) -> None:
        self.jobs: dict[str, SeenJob] = {}
        self.descriptions: dict[str, JobDescription] = {}
        self.commands: list[tuple[str, str]] = []
        self.calls: list[tuple[str, str]] = []
        self.trouble: StagecoachError | None = None
        self.given_accounts: list[ProjectAccount] | None = [ProjectAccount("proj", True)]
        self._now = now
        self._next_id = first_job_id

    async def submit(self, username: str, job: JobDescription) -> str:
        self._called("submit", username)
        job_id = str(self._next_id)
        self._next_id += 1
        report = JobReport(
            job_id, job.name or "sbatch", JobPhase.PENDING, "PENDING", user=username, account=job.account or "", partition="debug"
        )
        self.jobs[job_id] = SeenJob(report, job.directory, node_count=1)
        self.descriptions[job_id] = job
        return job_id

    async def list_jobs(self, username: str, wanted: WantedJobs) -> list[SeenJob]:
        self._called("list_jobs", username)
        since = self._now().timestamp() - wanted.window_seconds
        return [
            job
            for job in self.jobs.values()
            if (wanted.of_everyone or job.report.user == username)
            and wanted.account in {None, job.report.account}
            and wanted.name in {None, job.report.name}
            and (job.report.end_time is None or job.report.end_time >= since)
        ]

    async def show_job(self, username: str, job_id: str, *, of_everyone: bool) -> list[SeenJob]:
        self._called("show_job", username)
        return [self._job(username, job_id, of_everyone)]

    async def show_papers(self, username: str, job_id: str) -> JobPapers:
        self._called("show_papers", username)
        self._job(username, job_id)
        return JobPapers(job_id, self.descriptions[job_id].script, "/dev/null", "/out", "/out")

    async def cancel(self, username: str, job_id: str) -> None:
        self._called("cancel", username)
        if not self._job(username, job_id).report.phase.is_final:
            self.set_phase(job_id, JobPhase.CANCELLED)

    async def attach(self, username: str, job_id: str, command: str) -> None:
        self._called("attach", username)
        if self._job(username, job_id).report.phase is not JobPhase.RUNNING:
            raise Conflict("The job does not run.")
        self.commands.append((job_id, command))
        if command == "false":
            raise CommandFailed("Remote process failed with exit status:1 and error message:none")

    async def nodes(self, username: str) -> list[Node]:
        self._called("nodes", username)
        return [Node("nid1", 64, (NodeState.IDLE, NodeState.DRAIN), allocated_cpus=4, partitions=("debug",))]

    async def partitions(self, username: str, *, with_hidden: bool) -> list[Partition]:
        self._called("partitions", username)
        return [Partition("debug", "UP", 64, 1), *([Partition("secret", "UP", 64, 1)] if with_hidden else [])]

    async def reservations(self, username: str) -> list[Reservation]:
        self._called("reservations", username)
        return [Reservation("course", "nid1", 1_900_000_000, 1_900_003_600)]

    async def accounts(self, username: str) -> list[ProjectAccount] | None:
        self._called("accounts", username)
        return self.given_accounts

    async def ping(self, username: str) -> str:
        self._called("ping", username)
        return "slurm 22.05.8 answers."

    def set_phase(self, job_id: str, phase: JobPhase, state: str | None = None) -> None:
        """For tests: what the scheduler does with the job."""
        job = self.jobs[job_id]
        end = int(self._now().timestamp()) if phase.is_final else None
        report = replace(job.report, phase=phase, state=state or phase.value.upper(), end_time=end)
        self.jobs[job_id] = replace(job, report=report)

    def count(self, verb: str) -> int:
        """For tests: how often ``verb`` was called."""
        return sum(1 for call in self.calls if call[0] == verb)

    def _called(self, verb: str, username: str) -> None:
        self.calls.append((verb, username))
        if self.trouble is not None:
            raise self.trouble

    def _job(self, username: str, job_id: str, of_everyone: bool = False) -> SeenJob:
        job = self.jobs.get(job_id)
        if job is None or (not of_everyone and job.report.user != username):
            raise job_not_found()
        return job
