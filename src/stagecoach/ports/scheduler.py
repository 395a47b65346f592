"""What Stagecoach asks of a cluster's scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from stagecoach.core.errors import StagecoachError, SystemUnavailable
from stagecoach.core.job_scripts import ONE_TASK, TaskLayout


class JobPhase(StrEnum):
    """What a job's state means to a transfer, whatever the scheduler calls it."""

    HELD = "held"
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    NODE_FAIL = "node_fail"
    OUT_OF_MEMORY = "out_of_memory"
    PREEMPTED = "preempted"

    @property
    def is_final(self) -> bool:
        """The job will not run (again) by itself."""
        return self not in {JobPhase.HELD, JobPhase.PENDING, JobPhase.RUNNING}


@dataclass(frozen=True, slots=True)
class JobReport:
    """One job as the scheduler tells it. ``state`` and ``reason`` are the scheduler's own words. Times are epoch seconds."""

    job_id: str
    name: str
    phase: JobPhase
    state: str
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    user: str = ""
    account: str = ""
    partition: str = ""
    nodes: str = ""
    submit_time: int | None = None
    start_time: int | None = None
    end_time: int | None = None
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A staging job to submit. ``directory`` exists on the system and holds ``script_path``; logs are written in it.

    ``layout`` is for schedulers of several nodes; a job that gets one task only does all there is to do.
    """

    name: str
    script_path: str
    directory: str
    output_path: str
    error_path: str
    held: bool
    account: str | None = None
    layout: TaskLayout = ONE_TASK


@dataclass(frozen=True, slots=True)
class JobKey:
    """Which job to look for: the id alone is not enough, schedulers use ids again."""

    job_id: str
    name: str
    user: str


class Reports(dict[str, JobReport]):
    """Reports by job id, with the number of questions to the scheduler that they took."""

    def __init__(self, reports: Mapping[str, JobReport], questions: int) -> None:
        super().__init__(reports)
        self.questions = questions


class ReportsIncomplete(SystemUnavailable):
    """Some jobs could not be asked about (an owner's login fails, accounting is down); they must not count as unknown.

    ``reports`` is what was learnt all the same, ``unanswered`` the ids of the others; ``causes`` holds, for those of them
    whose own trouble is another than ``cause``, what it is. Of ``not_asked`` nothing is wrong: their turn comes next time.
    """

    def __init__(
        self,
        reports: Mapping[str, JobReport],
        unanswered: Iterable[str],
        cause: StagecoachError,
        *,
        causes: Mapping[str, StagecoachError] | None = None,
        not_asked: Iterable[str] = (),
        questions: int = 1,
    ) -> None:
        super().__init__(cause.message)
        self.reports = dict(reports)
        self.unanswered = frozenset(unanswered)
        self.causes = dict(causes or {})
        self.not_asked = frozenset(not_asked)
        self.questions = questions


class Scheduler(Protocol):
    """Raises SystemUnavailable when the scheduler cannot be reached or does not answer properly."""

    def require_answering(self, username: str) -> None:
        """Nothing is asked: raises SystemUnavailable, with ``retry_after_seconds``, while a submission would be refused at
        once because the scheduler did not answer a moment ago."""

    async def submit(self, username: str, request: JobRequest) -> str:
        """Submit as ``username``; returns the job id.

        Raises:
            SubmissionRefused: the scheduler said no; no job exists.
            SubmissionUncertain: the answer was lost; a job of this name may exist or come to exist.
        """

    async def find(self, username: str, name: str) -> list[JobReport]:
        """Jobs of ``username`` with exactly this name that the scheduler still knows."""

    async def list_open_jobs(self, asker: str, name_prefix: str, *, of_everyone: bool) -> list[JobReport]:
        """Jobs of ``asker`` (``of_everyone``: of all users) that have not ended and whose name begins so."""

    async def release(self, username: str, job_id: str) -> None:
        """Let a held job run. A job that is not held any more is fine.

        Raises:
            JobNotFound: the scheduler does not know the job.
        """

    async def cancel(self, username: str, job_id: str) -> None:
        """Ask for the job's end. An ended or unknown job is fine."""

    async def reports(self, jobs: Sequence[JobKey]) -> Mapping[str, JobReport]:
        """What is known of ``jobs``, by job id; asked in ``QUESTIONS_AN_ASK`` questions at most, however many there are.

        Where the questions do not suffice, the first of ``jobs`` come first. A job that is missing from the answer is
        unknown to queue and accounting at this moment: that is neither success nor failure (accounting lags, and forgets).

        Raises:
            ReportsIncomplete: some could not be asked about, or not yet; what was learnt of the others is in it.
        """

    async def ping(self, username: str) -> str:
        """One line that names the scheduler and its version."""

    async def try_directives(self, username: str, account: str | None) -> None:
        """Have the scheduler look at a staging job with the system's directives, without creating it.

        Raises:
            SubmissionRefused: in the scheduler's words.
        """
