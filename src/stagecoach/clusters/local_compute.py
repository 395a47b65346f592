"""The Compute port without a scheduler: users' jobs are child processes of this machine, beside the staging jobs.

One machine is one node in one partition; there are no reservations and no accounts. ``#SBATCH`` lines are comments here.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stagecoach.clusters.local import LocalScheduler, read_json
from stagecoach.clusters.local_job import stream_path, write_whole
from stagecoach.core.errors import CommandFailed, Conflict, SubmissionRefused
from stagecoach.ports.compute import (
    ATTACH_SECONDS,
    MAX_SCRIPT_BYTES,
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

PARTITION = "local"
MAX_WORDS_BYTES = 400
_LOOK_SECONDS = 0.1


class LocalCompute:
    """Over the same jobs as ``scheduler``."""

    def __init__(self, scheduler: LocalScheduler, clock: Callable[[], float] = time.time) -> None:
        self._scheduler = scheduler
        self._clock = clock

    async def submit(self, username: str, job: JobDescription) -> str:
        return await asyncio.to_thread(self._submit, username, job)

    async def list_jobs(self, username: str, wanted: WantedJobs) -> list[SeenJob]:
        return await asyncio.to_thread(self._list, username, wanted)

    async def show_job(self, username: str, job_id: str, *, of_everyone: bool) -> list[SeenJob]:
        found = await asyncio.to_thread(self._list, username, WantedJobs(of_everyone, window_seconds=10**9))
        if not (jobs := [job for job in found if job.report.job_id == job_id]):
            raise job_not_found()
        return jobs

    async def show_papers(self, username: str, job_id: str) -> JobPapers:
        return await asyncio.to_thread(self._papers, username, job_id)

    async def cancel(self, username: str, job_id: str) -> None:
        await asyncio.to_thread(self._own, username, job_id)
        await self._scheduler.cancel(username, job_id)

    async def attach(self, username: str, job_id: str, command: str) -> None:
        job = await asyncio.to_thread(self._own, username, job_id)
        path = await asyncio.to_thread(self._ask_to_attach, job, command)
        # The job's runner finds it there; the job's end is the end of what is attached to it.
        give_up_at = time.monotonic() + ATTACH_SECONDS
        while time.monotonic() < give_up_at:
            ending = await asyncio.to_thread(read_json, path.with_name(f"{path.name}.exit"))
            if ending is not None:
                if ending["code"] != 0:
                    with path.with_name(f"{path.name}.err").open("rb") as errors:
                        words = errors.read(MAX_WORDS_BYTES)
                    said = " ".join(words.decode("utf-8", "replace").split())
                    raise CommandFailed(CommandFailed.words(ending["code"], said))
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def nodes(self, username: str) -> list[Node]:
        cpus, load = os.cpu_count() or 1, os.getloadavg()[0]
        running = await asyncio.to_thread(
            lambda: any(report.phase is JobPhase.RUNNING for _, report in self._all(None)),
        )
        state = NodeState.MIXED if running else NodeState.IDLE
        host = socket.gethostname()
        return [Node(host, cpus, (state,), cpu_load=load, address="localhost", hostname=host, partitions=(PARTITION,))]

    async def partitions(self, username: str, *, with_hidden: bool) -> list[Partition]:
        return [Partition(PARTITION, "UP", os.cpu_count() or 1, 1)]

    async def reservations(self, username: str) -> list[Reservation]:
        return []

    async def accounts(self, username: str) -> list[ProjectAccount] | None:
        return None

    async def ping(self, username: str) -> str:
        return await self._scheduler.ping(username)

    def _submit(self, username: str, job: JobDescription) -> str:
        if job.script is not None:
            script = job.script.encode("utf-8", "surrogateescape")
        else:
            try:
                # Opening a FIFO would wait for its writer.
                with open(job.script_path or "", "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
                    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                        raise SubmissionRefused(f"The job script {job.script_path!r} is not a regular file.")
                    script = file.read(MAX_SCRIPT_BYTES + 1)
            except OSError as error:
                raise SubmissionRefused(f"Unable to open the job script: {error.strerror}.") from error
            if len(script) > MAX_SCRIPT_BYTES:
                raise SubmissionRefused(f"The job script is larger than {MAX_SCRIPT_BYTES} bytes.")
        asked = {
            "is_users_own": True,
            "name": job.name or (os.path.basename(job.script_path) if job.script_path else "sbatch"),
            "account": job.account,
            "directory": job.directory,
            "output_path": job.output_path or "slurm-%j.out",
            "error_path": job.error_path,
            "input_path": job.input_path,
            "environment": dict(job.environment),
        }
        return self._scheduler.keep(username, asked, script, held=False)

    def _all(self, username: str | None) -> list[tuple[dict[str, Any], JobReport]]:
        found = []
        for path in self._scheduler.jobs():
            asked, report = read_json(path / "request"), self._scheduler.look(path)
            if asked is not None and report is not None and username in {None, report.user}:
                found.append((asked, report))
        return sorted(found, key=lambda pair: int(pair[1].job_id))

    def _list(self, username: str, wanted: WantedJobs) -> list[SeenJob]:
        now = self._clock()
        return [
            _seen(asked, report, now)
            for asked, report in self._all(None if wanted.of_everyone else username)
            if wanted.account in {None, report.account}
            and wanted.name in {None, report.name}
            and (report.end_time is None or report.end_time >= now - wanted.window_seconds)
        ]

    def _papers(self, username: str, job_id: str) -> JobPapers:
        job = self._own(username, job_id)
        asked = read_json(job / "request") or {}
        script = (job / "script").read_bytes().decode("utf-8", "surrogateescape")
        stdin, stdout, stderr = (stream_path(asked, name, job_id) for name in ("input_path", "output_path", "error_path"))
        return JobPapers(job_id, script, stdin or "/dev/null", stdout, stderr or stdout)

    def _own(self, username: str, job_id: str) -> Path:
        job = self._scheduler.own(username, job_id) if job_id.isascii() and job_id.isdigit() else None
        if job is None:
            raise job_not_found()
        return job

    def _ask_to_attach(self, job: Path, command: str) -> Path:
        report = self._scheduler.look(job)
        if report is None or report.phase is not JobPhase.RUNNING:
            raise Conflict(f"Job {job.name} does not run, so nothing can be attached to it.")
        path = job / f"attach-{secrets.randbits(48)}"
        write_whole(str(path), {"command": command})
        return path


def _seen(asked: dict[str, Any], report: JobReport, now: float) -> SeenJob:
    begun = report.start_time
    return SeenJob(
        report=report,
        directory=asked["directory"],
        node_count=1,
        elapsed_seconds=0 if begun is None else max(0, int(report.end_time or now) - begun),
        suspended_seconds=0,
    )
