"""The Compute port on Slurm's own commands, run over SSH as the user."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from stagecoach.clusters import slurm_cluster_answers as cluster
from stagecoach.clusters import slurm_users_answers as answers
from stagecoach.clusters import slurm_users_commands as commands
from stagecoach.clusters.slurm_answers import NOT_THERE, controller_not_reached, submitted_job_id, words_of
from stagecoach.clusters.slurm_commands import scontrol_ping, scontrol_version
from stagecoach.clusters.slurm_directives import require_servable
from stagecoach.clusters.ssh_pool import AnswerLate, AnswerLost, SshPool
from stagecoach.core.breaker import Breaker
from stagecoach.core.errors import Conflict, JobNotFound, StagecoachError, SubmissionUncertain, SystemUnavailable
from stagecoach.ports.compute import (
    ATTACH_SECONDS,
    MAX_SCRIPT_BYTES,
    JobDescription,
    JobPapers,
    Node,
    Partition,
    ProjectAccount,
    Reservation,
    SeenJob,
    WantedJobs,
    job_not_found,
    require_job_id,
)
from stagecoach.ports.files import Files
from stagecoach.ports.scheduler import JobPhase
from stagecoach.settings import SystemSettings

Answer = TypeVar("Answer")


def new_separator() -> str:
    """What no name of a job holds, since nobody knew it when the name was given. Begins with no digit."""
    return f"|{secrets.token_hex(6)}|"


class SlurmCompute:
    """Slurm on one system, for its users. ``files`` are the same system's."""

    def __init__(
        self,
        settings: SystemSettings,
        pool: SshPool,
        files: Files,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        separator: Callable[[], str] = new_separator,
    ) -> None:
        self._name = settings.name
        self._binaries = settings.scheduler.binaries
        self._timeout_seconds = settings.ssh.command_timeout_seconds if settings.ssh is not None else 0.0
        self._pool = pool
        self._files = files
        self._wall_clock = wall_clock
        self._separator = separator
        # As for staging jobs: one user's start files that hang close the scheduler to nobody else. It learns from what
        # Stagecoach itself asks; of what carries a user's own words (a job, a command) from no more than "not reached".
        self._breaker = Breaker(SystemUnavailable, clock, callers_needed=2)

    async def submit(self, username: str, job: JobDescription) -> str:
        argv = commands.sbatch(self._binaries, job)
        script = None if job.script is None else job.script.encode("utf-8", "surrogateescape")
        # What cannot be read as a file may have no end; one that is missing sbatch itself says.
        seen = script if script is not None else await self._files.read_file(username, job.script_path or "", MAX_SCRIPT_BYTES)
        require_servable((seen or b"").decode("utf-8", "replace"), has_variables=bool(job.environment))
        # Not a gate, which lets one caller through after a rest: how long this one takes may be the user's own doing.
        self._breaker.require(username)
        try:
            result = await self._pool.run(username, argv, stdin=script)
        except AnswerLost as error:
            raise SubmissionUncertain(
                f"The answer to the submission was lost: {error.message} Look for the job before you submit it again."
            ) from error
        if controller_not_reached(result.exit_status, result.stderr):
            self._breaker.broke(self._silence(), username)
        job_id = submitted_job_id(result.exit_status, result.stdout, result.stderr)
        self._breaker.worked(username)
        return job_id

    async def list_jobs(self, username: str, wanted: WantedJobs) -> list[SeenJob]:
        user = None if wanted.of_everyone else username
        queued, accounted = await asyncio.gather(
            self._queue(username, user=user), self._accounting(username, user=user, window_seconds=wanted.window_seconds)
        )
        found = {job.report.job_id: job for _, job in [*accounted, *queued]}
        since = self._wall_clock() - wanted.window_seconds
        return sorted(
            (
                job
                for job in found.values()
                if wanted.account in {None, job.report.account}
                and wanted.name in {None, job.report.name}
                and (not job.report.phase.is_final or (job.report.end_time or 0) >= since)
            ),
            key=_by_id,
        )

    async def show_job(self, username: str, job_id: str, *, of_everyone: bool) -> list[SeenJob]:
        require_job_id(job_id)
        found = await self._queue(username, user=None, job_id=job_id)
        jobs = _of(found, job_id, None if of_everyone else username)
        if not jobs:
            found = await self._accounting(username, user=None if of_everyone else username, job_id=job_id)
            jobs = _of(found, job_id, None if of_everyone else username)
        if not jobs:
            raise job_not_found()
        # FirecREST's client looks at the first one only.
        return sorted(jobs, key=lambda job: (job.report.phase.is_final, _by_id(job)))

    async def show_papers(self, username: str, job_id: str) -> JobPapers:
        require_job_id(job_id)
        try:
            script, shown = await asyncio.gather(
                self._ask(username, commands.scontrol_write_script(self._binaries, job_id), answers.script_of_own_job),
                self._ask(username, commands.scontrol_show(self._binaries, "job", job_id), answers.shown),
            )
        except JobNotFound:
            await self.show_job(username, job_id, of_everyone=False)
            kept = await self._pool.run(username, commands.sacct_script(self._binaries, job_id))
            return JobPapers(job_id, answers.accounted_script(kept.exit_status, kept.stdout), None, None, None)
        return answers.job_papers(job_id, script, shown)

    async def cancel(self, username: str, job_id: str) -> None:
        require_job_id(job_id)
        await self._ask(username, commands.scancel(self._binaries, job_id), answers.require_cancelled)

    async def attach(self, username: str, job_id: str, command: str) -> None:
        job = (await self.show_job(username, job_id, of_everyone=False))[0]
        if job.report.phase is not JobPhase.RUNNING:
            raise Conflict("The job does not run, so nothing can be attached to it.")
        argv = commands.srun(self._binaries, job_id, command, job.directory)
        self._breaker.require(username)
        result = await self._pool.run(username, argv, timeout_seconds=self._timeout_seconds + ATTACH_SECONDS)
        if trouble := answers.attach_trouble(result.stdout, result.stderr):
            raise trouble

    async def nodes(self, username: str) -> list[Node]:
        return await self._ask(username, commands.scontrol_show(self._binaries, "node"), cluster.nodes)

    async def partitions(self, username: str, *, with_hidden: bool) -> list[Partition]:
        argv = commands.scontrol_show_partitions(self._binaries, with_hidden=with_hidden)
        return await self._ask(username, argv, cluster.partitions)

    async def reservations(self, username: str) -> list[Reservation]:
        return await self._ask(username, commands.scontrol_show(self._binaries, "reservation"), cluster.reservations)

    async def accounts(self, username: str) -> list[ProjectAccount] | None:
        # Accounting answers, not the controller.
        result = await self._pool.run(username, commands.sacctmgr_accounts(self._binaries, username))
        return cluster.accounts(result.exit_status, result.stdout, result.stderr)

    async def ping(self, username: str) -> str:
        version, ping = await asyncio.gather(
            self._pool.run(username, scontrol_version(self._binaries)), self._pool.run(username, scontrol_ping(self._binaries))
        )
        if version.exit_status != 0 or ping.exit_status != 0 or not re.search(r"is UP", ping.stdout):
            words = words_of(ping.stdout, ping.stderr) or words_of(version.stdout, version.stderr)
            raise SystemUnavailable(f"Slurm on {self._name} does not answer: {words or 'no words'}.")
        return f"{version.stdout.strip()} answers."

    async def _queue(self, asker: str, *, user: str | None, job_id: str | None = None) -> list[tuple[str, SeenJob]]:
        separator = self._separator()
        argv = commands.squeue(self._binaries, separator, user=user, job_id=job_id)
        return await self._ask(asker, argv, partial(answers.queued_jobs, separator=separator))

    async def _accounting(
        self, asker: str, *, user: str | None, job_id: str | None = None, window_seconds: int | None = None
    ) -> list[tuple[str, SeenJob]]:
        separator = self._separator()
        argv = commands.sacct(self._binaries, separator, user=user, job_id=job_id, window_seconds=window_seconds)
        result = await self._pool.run(asker, argv)
        return await asyncio.to_thread(answers.accounted_jobs, result.exit_status, result.stdout, result.stderr, separator)

    async def _ask(self, username: str, argv: Sequence[str], read: Callable[[int, str, str], Answer]) -> Answer:
        """Of the controller: that it does not answer is remembered, so that not everybody waits for it to be found out.

        Trouble on the way to the login node says nothing of the controller, and has a breaker of its own.
        """
        with self._breaker.gate(username):
            try:
                result = await self._pool.run(username, argv)
            except AnswerLate:
                self._breaker.broke(self._silence(), username)
                raise
            try:
                # Ten thousand jobs are megabytes; others are served meanwhile.
                answer = await asyncio.to_thread(read, result.exit_status, result.stdout, result.stderr)
            except SystemUnavailable:
                if result.exit_status not in NOT_THERE:
                    self._breaker.broke(self._silence(), username)
                raise
            except StagecoachError:
                self._breaker.worked(username)
                raise
            self._breaker.worked(username)
            return answer

    def _silence(self) -> SystemUnavailable:
        """What the others are told: nothing of what one user's answer said."""
        return SystemUnavailable(f"The scheduler of {self._name} does not answer.")


def _of(found: Sequence[tuple[str, SeenJob]], job_id: str, user: str | None) -> list[SeenJob]:
    """Those with this id or of this array, of this user. Up to 22.05 some answers hold more than was asked for."""
    jobs = [job for array, job in found if job_id in {array, job.report.job_id} and user in {None, job.report.user}]
    # One that waits for one of several partitions is told once for each.
    return list({job.report.job_id: job for job in jobs}.values())


def _by_id(job: SeenJob) -> int:
    return int(job.report.job_id) if job.report.job_id.isdigit() else 0
