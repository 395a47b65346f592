"""The Scheduler port on Slurm's own commands, run over SSH as the user.

Where the truth about a job comes from, in this order: the controller (``squeue``: what lives, what ended minutes ago,
with exit codes), then accounting (``sacct``: what the controller has forgotten). ``scontrol show job`` would
read the same memory as ``squeue``, one job at a time, so it is asked only when a release ends in words nobody knows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from stagecoach.clusters import slurm_answers as answers
from stagecoach.clusters import slurm_commands as commands
from stagecoach.clusters.slurm_questions import SlurmQuestions
from stagecoach.clusters.ssh_pool import AnswerLate, AnswerLost, CommandResult, SshPool
from stagecoach.core.breaker import Breaker
from stagecoach.core.errors import StagecoachError, SubmissionUncertain, SystemUnavailable
from stagecoach.core.job_scripts import ONE_TASK
from stagecoach.ports.scheduler import JobKey, JobPhase, JobReport, JobRequest, Reports
from stagecoach.settings import SystemSettings

Answer = TypeVar("Answer")


class SlurmOverSsh:
    """Slurm on one system."""

    def __init__(self, settings: SystemSettings, pool: SshPool, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._binaries = settings.scheduler.binaries
        self._pool = pool
        self._submissions = asyncio.Semaphore(settings.scheduler.max_submissions_at_once)
        # A user's start files may hang, or print whatever they like: one user's trouble closes the scheduler to nobody else.
        self._breaker = Breaker(SystemUnavailable, clock, callers_needed=2)
        self._questions = SlurmQuestions(settings.scheduler, pool.run, self._read_queue, clock)

    def require_answering(self, username: str) -> None:
        self._breaker.require(username)

    async def submit(self, username: str, request: JobRequest) -> str:
        argv = commands.sbatch(self._binaries, self._settings.directives, request)
        async with self._a_submission():
            with self._breaker.gate(username):
                try:
                    return await self._ask_controller(username, argv, answers.submitted_job_id)
                except AnswerLost as error:
                    raise SubmissionUncertain(f"The answer to the submission was lost: {error.message}") from error

    async def find(self, username: str, name: str) -> list[JobReport]:
        queued = await self._queue(username, user=username, name=name)
        found = {job.job_id: job for job in queued if (job.name, job.user) == (name, username)}
        if not any(not job.phase.is_final for job in found.values()):
            try:
                accounted = await self._accounting(username, user=username, name=name) or []
            except SystemUnavailable:
                # "No such job" needs both answers; "here it is" needs one.
                if not found:
                    raise
                accounted = []
            for job in accounted:
                if (job.name, job.user) == (name, username) and job.phase.is_final:
                    found.setdefault(job.job_id, job)
        return sorted(found.values(), key=lambda job: (job.submit_time or 0, len(job.job_id), job.job_id))

    async def list_open_jobs(self, asker: str, name_prefix: str, *, of_everyone: bool) -> list[JobReport]:
        jobs = await self._queue(asker, user=None if of_everyone else asker)
        return [job for job in jobs if not job.phase.is_final and job.name.startswith(name_prefix)]

    async def release(self, username: str, job_id: str) -> None:
        result = await self._run(username, commands.scontrol_release(self._binaries, job_id))
        trouble = answers.release_trouble(result.exit_status, result.stdout, result.stderr, job_id)
        if isinstance(trouble, SystemUnavailable):
            shown = await self._run(username, commands.scontrol_show_job(self._binaries, job_id))
            job = answers.shown_job(shown.exit_status, shown.stdout, shown.stderr)
            if job is not None and job.phase is not JobPhase.HELD:
                return
        if trouble is not None:
            raise trouble

    async def cancel(self, username: str, job_id: str) -> None:
        result = await self._run(username, commands.scancel(self._binaries, job_id))
        trouble = answers.cancel_trouble(result.exit_status, result.stdout, result.stderr, job_id)
        if trouble is not None:
            raise trouble

    async def reports(self, jobs: Sequence[JobKey]) -> Reports:
        return await self._questions.reports(jobs)

    async def try_directives(self, username: str, account: str | None) -> None:
        layout = self._settings.parallel.layout if self._settings.parallel else ONE_TASK
        result = await self._run(username, commands.sbatch_test(self._binaries, self._settings.directives, account, layout))
        if result.exit_status != 0:
            # The words of a refused submission, which this is.
            answers.submitted_job_id(result.exit_status, result.stdout, result.stderr)

    async def ping(self, username: str) -> str:
        version, ping = await asyncio.gather(
            self._run(username, commands.scontrol_version(self._binaries)),
            self._run(username, commands.scontrol_ping(self._binaries)),
        )
        if version.exit_status != 0 or ping.exit_status != 0:
            failed = ping if version.exit_status == 0 else version
            words = answers.words_of(failed.stdout, failed.stderr)
            raise SystemUnavailable(f"Slurm on {self._settings.name} does not answer: {words or 'no words'}.")
        lines = [version.stdout.strip().splitlines()[-1:], ping.stdout.strip().splitlines()[:1]]
        return ", ".join(line.strip() for each in lines for line in each)

    async def _queue(
        self, asker: str, *, user: str | None, job_ids: Sequence[str] = (), name: str | None = None
    ) -> list[JobReport]:
        argv = commands.squeue(self._binaries, job_ids=job_ids, user=user, name=name)
        return await self._ask_controller(asker, argv, answers.queue_reports)

    async def _ask_controller(self, username: str, argv: Sequence[str], read: Callable[[int, str, str], Answer]) -> Answer:
        """A command that the controller answers: whether it did, is noted for the submissions to come.

        Trouble on the way to the login node says nothing of the controller, and has a breaker of its own.
        """
        return self._noted(username, await self._run_for_controller(username, argv), read)

    async def _run_for_controller(self, username: str, argv: Sequence[str]) -> CommandResult:
        try:
            return await self._run(username, argv)
        except AnswerLate as late:
            self._breaker.broke(late, username)
            raise

    def _read_queue(self, username: str, result: CommandResult) -> list[JobReport]:
        return self._noted(username, result, answers.queue_reports)

    def _noted(self, username: str, result: CommandResult, read: Callable[[int, str, str], Answer]) -> Answer:
        try:
            answer = read(result.exit_status, result.stdout, result.stderr)
        except SystemUnavailable as failure:
            self._breaker.broke(failure, username)
            raise
        except StagecoachError:
            self._breaker.worked(username)
            raise
        self._breaker.worked(username)
        return answer

    @asynccontextmanager
    async def _a_submission(self) -> AsyncIterator[None]:
        """One of the submissions that may be under way at once; waiting for it ends in SystemUnavailable."""
        limit = self._settings.ssh.queue_timeout_seconds if self._settings.ssh else None
        try:
            async with asyncio.timeout(limit):
                await self._submissions.acquire()
        except TimeoutError as error:
            raise SystemUnavailable(
                f"{self._settings.name} is busy with earlier submissions; none of "
                f"{self._settings.scheduler.max_submissions_at_once} ended within {limit:g} s. No job was submitted."
            ) from error
        try:
            yield
        finally:
            self._submissions.release()

    async def _accounting(
        self, asker: str, *, user: str | None, job_ids: Sequence[str] = (), name: str | None = None
    ) -> list[JobReport] | None:
        result = await self._run(asker, commands.sacct(self._binaries, job_ids=job_ids, user=user, name=name))
        return answers.accounting_reports(result.exit_status, result.stdout, result.stderr)

    async def _run(self, username: str, argv: Sequence[str]) -> CommandResult:
        return await self._pool.run(username, argv)
