"""The Scheduler port on Slurm's own commands, run over SSH as the user.

Where the truth about a job comes from, in this order: the controller (``squeue``: what lives, what ended minutes ago,
with exit codes), then accounting (``sacct``: what the controller has forgotten). ``scontrol show job`` would
read the same memory as ``squeue``, one job at a time, so it is asked only when a release ends in words nobody knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from stagecoach.clusters import slurm_answers as answers
from stagecoach.clusters import slurm_commands as commands
from stagecoach.clusters.ssh_pool import AnswerLost, CommandResult, SshPool
from stagecoach.core.errors import StagecoachError, SubmissionUncertain, SystemUnavailable
from stagecoach.ports.scheduler import JobKey, JobPhase, JobReport, JobRequest, ReportsIncomplete
from stagecoach.settings import SystemSettings

# The whole command is one argument of the login shell, which Linux bounds at 128 KiB.
MAX_IDS_AT_ONCE = 2000
MAX_OWNERS_AT_ONCE = 8


class SlurmOverSsh:
    """Slurm on one system."""

    def __init__(self, settings: SystemSettings, pool: SshPool) -> None:
        self._settings = settings
        self._binaries = settings.scheduler.binaries
        self._ask_as = settings.scheduler.ask_as
        self._pool = pool
        self._owners = asyncio.Semaphore(MAX_OWNERS_AT_ONCE)

    async def submit(self, username: str, request: JobRequest) -> str:
        argv = commands.sbatch(self._binaries, self._settings.directives, request)
        try:
            result = await self._pool.run(username, argv)
        except AnswerLost as error:
            raise SubmissionUncertain(f"The answer to the submission was lost: {error.message}") from error
        return answers.submitted_job_id(result.exit_status, result.stdout, result.stderr)

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

    async def reports(self, jobs: Sequence[JobKey]) -> Mapping[str, JobReport]:
        groups: dict[str, list[JobKey]] = {}
        for job in jobs:
            groups.setdefault(self._ask_as or job.user, []).append(job)
        chunks = [
            (user, keys[start : start + MAX_IDS_AT_ONCE])
            for user, keys in groups.items()
            for start in range(0, len(keys), MAX_IDS_AT_ONCE)
        ]
        outcomes = await asyncio.gather(*(self._chunk(user, keys) for user, keys in chunks), return_exceptions=True)
        reports: dict[str, JobReport] = {}
        unanswered: set[str] = set()
        trouble: StagecoachError | None = None
        for (_, keys), outcome in zip(chunks, outcomes, strict=True):
            if isinstance(outcome, ReportsIncomplete):
                reports.update(outcome.reports)
                unanswered |= outcome.unanswered
                trouble = outcome
            elif isinstance(outcome, StagecoachError):
                unanswered |= {key.job_id for key in keys}
                trouble = outcome
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                reports.update(outcome)
        if trouble is not None:
            raise ReportsIncomplete(reports, unanswered, trouble) from trouble
        return reports

    async def try_directives(self, username: str, account: str | None) -> None:
        result = await self._run(username, commands.sbatch_test(self._binaries, self._settings.directives, account))
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

    async def _chunk(self, asker: str, keys: list[JobKey]) -> dict[str, JobReport]:
        wanted = {(key.job_id, key.name, key.user) for key in keys}
        # Asked for one user's jobs, the controller looks at no others.
        user = None if self._ask_as else asker
        async with self._owners:
            queued = await self._queue(asker, user=user, job_ids=[key.job_id for key in keys])
            reports = {job.job_id: job for job in queued if (job.job_id, job.name, job.user) in wanted}
            missing = [key.job_id for key in keys if key.job_id not in reports]
            if not missing:
                return reports
            try:
                accounted = await self._accounting(asker, user=user, job_ids=missing) or []
            except SystemUnavailable as error:
                raise ReportsIncomplete(reports, missing, error) from error
        runs: dict[str, list[JobReport]] = {}
        for job in accounted:
            if (job.job_id, job.name, job.user) in wanted:
                runs.setdefault(job.job_id, []).append(job)
        for job_id, rows in runs.items():
            # A job that the controller does not know and accounting calls running is neither: its last row comes late,
            # or never, when the controller lost its memory. It is left unknown.
            if rows[-1].phase.is_final:
                reports[job_id] = rows[-1]
        return reports

    async def _queue(
        self, asker: str, *, user: str | None, job_ids: Sequence[str] = (), name: str | None = None
    ) -> list[JobReport]:
        result = await self._run(asker, commands.squeue(self._binaries, job_ids=job_ids, user=user, name=name))
        return answers.queue_reports(result.exit_status, result.stdout, result.stderr)

    async def _accounting(
        self, asker: str, *, user: str | None, job_ids: Sequence[str] = (), name: str | None = None
    ) -> list[JobReport] | None:
        result = await self._run(asker, commands.sacct(self._binaries, job_ids=job_ids, user=user, name=name))
        return answers.accounting_reports(result.exit_status, result.stdout, result.stderr)

    async def _run(self, username: str, argv: Sequence[str]) -> CommandResult:
        return await self._pool.run(username, argv)
