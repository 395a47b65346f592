"""Which questions tell the state of many jobs of many users: as few as possible, and what no answer may be taken for.

The queue is asked once for everybody's jobs, and accounting once for what the queue has forgotten. With
``scheduler.ask_as`` that is all. Without it some owner's login asks for all; a job that it does not see may be hidden from
it (``PrivateData=jobs``), so only its own owner's login can say that it is unknown. A system that hid a living job is asked
through one owner after the other for an hour, the longest waiting first.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from stagecoach.clusters import slurm_answers as answers
from stagecoach.clusters import slurm_commands as commands
from stagecoach.clusters.ssh_pool import AnswerLost, CommandResult
from stagecoach.core.errors import StagecoachError, SystemUnavailable
from stagecoach.core.polling import QUESTIONS_AN_ASK
from stagecoach.ports.scheduler import JobKey, JobReport, Reports, ReportsIncomplete
from stagecoach.settings.systems import SchedulerSettings

# The whole command is one argument of the login shell, which Linux bounds at 128 KiB.
MAX_IDS_BYTES = 100_000
REMEMBERED_SECONDS = 3600.0

Run = Callable[[str, Sequence[str]], Awaitable[CommandResult]]
ReadQueue = Callable[[str, CommandResult], Sequence[JobReport]]


class SlurmQuestions:
    """Remembers only what saves questions: whose login answered last, and whether jobs are private."""

    def __init__(
        self, settings: SchedulerSettings, run: Run, read_queue: ReadQueue, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._run = run
        self._read_queue = read_queue
        self._clock = clock
        self._spokesman: str | None = None
        self._private_until = clock()
        self._alone_until: dict[str, float] = {}
        """Of owners with a job that the spokesman does not see."""

    async def reports(self, jobs: Sequence[JobKey]) -> Reports:
        """As the port's ``reports``. Raises ReportsIncomplete."""
        ask = _Ask(self._settings.binaries, self._run, self._read_queue, jobs)
        owners = list(dict.fromkeys(job.user for job in jobs))
        if self._settings.ask_as:
            await ask.all_of(self._settings.ask_as, None, set(owners))
        elif len(owners) == 1 or self._clock() < self._private_until:
            for owner in owners:
                if ask.questions_left and ask.trouble is None:
                    await ask.all_of(owner, owner, {owner})
        else:
            await self._one_for_all(ask, owners)
        return ask.outcome()

    async def _one_for_all(self, ask: _Ask, owners: Sequence[str]) -> None:
        for asker in sorted(owners, key=lambda owner: owner != self._spokesman):
            # A broken login must not hide everybody else's jobs.
            if ask.questions_left and ask.trouble is None and await ask.queue(asker, None):
                break
        else:
            return
        self._spokesman = asker
        first = next((job.user for job in ask.open.values()), asker)
        if first != asker and self._clock() < self._alone_until.get(first, 0.0):
            await ask.all_of(first, first, {first})
            return
        if ask.open:
            await ask.accounting(asker, None, {asker})
        hidden = next((job.user for job in ask.open.values() if job.user not in {asker, *ask.refused}), None)
        if hidden is not None and ask.questions_left and ask.trouble is None:
            seen = len(ask.found)
            await ask.queue(hidden, hidden)
            until = self._clock() + REMEMBERED_SECONDS
            if len(ask.found) > seen:
                self._private_until = until
            # What its owner's queue does not show either is asked for in the owner's accounting next time.
            self._alone_until[hidden] = until


class _Ask:
    """One ask under way: what was found, what is open still, and how many questions are left."""

    def __init__(self, binaries: str | None, run: Run, read_queue: ReadQueue, jobs: Sequence[JobKey]) -> None:
        self._binaries = binaries
        self._run = run
        self._read_queue = read_queue
        self._questions = 0
        self._unreached = 0
        self.open = {(job.job_id, job.name, job.user): job for job in jobs}
        self.found: dict[str, JobReport] = {}
        self.refused: dict[str, StagecoachError] = {}
        """By owner: why nothing could be asked through this login."""
        self.trouble: StagecoachError | None = None
        """Of the system itself: it ends the ask."""

    @property
    def questions_left(self) -> int:
        """How many may still be put."""
        return QUESTIONS_AN_ASK - self._questions

    async def all_of(self, asker: str, user: str | None, sees: set[str]) -> None:
        """Queue, then accounting, through a login that sees all jobs of the owners ``sees``."""
        if await self.queue(asker, user) and any(job.user in sees for job in self.open.values()):
            await self.accounting(asker, user, sees)

    async def queue(self, asker: str, user: str | None) -> bool:
        """Whether there is an answer. ``user`` None: for everybody's jobs."""
        job_ids = [job.job_id for job in self.open.values() if user in {None, job.user}]
        # What is too long to be named is picked out of the whole queue.
        named = job_ids if sum(map(len, job_ids)) + len(job_ids) <= MAX_IDS_BYTES else []
        result = await self._put(asker, commands.squeue(self._binaries, job_ids=named, user=user))
        if result is None:
            return False
        try:
            queued = self._read_queue(asker, result)
        except SystemUnavailable as error:
            self.trouble = error
            return False
        for job in queued:
            self._found(job)
        return True

    async def accounting(self, asker: str, user: str | None, sees: set[str]) -> None:
        """What ended long ago; of the owners ``sees`` the answer is the last word: what it lacks is unknown."""
        jobs = [job for job in self.open.values() if user in {None, job.user}]
        while jobs and self.questions_left:
            some, jobs = _some(jobs)
            command = commands.sacct(self._binaries, job_ids=[job.job_id for job in some], user=user)
            result = await self._put(asker, command)
            if result is None:
                return
            try:
                accounted = answers.accounting_reports(result.exit_status, result.stdout, result.stderr) or []
            except SystemUnavailable as error:
                self.trouble = error
                return
            last = {(job.job_id, job.name, job.user): job for job in accounted}
            for key in [(job.job_id, job.name, job.user) for job in some]:
                # A job that the controller does not know and accounting calls running is neither: its last row comes
                # late, or never, when the controller lost its memory. It is left unknown.
                if key in last and last[key].phase.is_final:
                    self._found(last[key])
                elif key[2] in sees:
                    del self.open[key]

    def outcome(self) -> Reports:
        """What was learnt. Raises ReportsIncomplete when something is open."""
        if not self.open:
            return Reports(self.found, self._questions)
        left = list(self.open.values())
        causes = {job.job_id: self.refused[job.user] for job in left if job.user in self.refused and self.trouble is None}
        unanswered = {job.job_id for job in left} if self.trouble is not None else set(causes)
        first = self.trouble or next(iter(causes.values()), SystemUnavailable("The scheduler is asked about other jobs first."))
        raise ReportsIncomplete(
            self.found,
            unanswered,
            first,
            causes=causes,
            not_asked={job.job_id for job in left} - unanswered,
            questions=self._questions,
        ) from first

    async def _put(self, asker: str, argv: Sequence[str]) -> CommandResult | None:
        self._questions += 1
        try:
            return await self._run(asker, argv)
        except StagecoachError as error:
            self.refused[asker] = SystemUnavailable(error.message)
            if isinstance(error, SystemUnavailable) and not isinstance(error, AnswerLost):
                # One login may be at fault; what two of them do not reach is the system.
                self._unreached += 1
                if self._unreached == 2:
                    self.trouble = error
            return None

    def _found(self, job: JobReport) -> None:
        if self.open.pop((job.job_id, job.name, job.user), None) is not None:
            self.found[job.job_id] = job


def _some(jobs: Sequence[JobKey]) -> tuple[list[JobKey], list[JobKey]]:
    """As many as one command holds, and the rest."""
    size = 0
    for position, job in enumerate(jobs):
        size += len(job.job_id) + 1
        if size > MAX_IDS_BYTES:
            return list(jobs[:position]), list(jobs[position:])
    return list(jobs), []
