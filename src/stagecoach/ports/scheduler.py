"""What Stagecoach asks of a cluster's scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from stagecoach.core.errors import StagecoachError, SystemUnavailable


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
    """A staging job to submit. ``directory`` exists on the system and holds ``script_path``; logs are written in it."""

    name: str
    script_path: str
    directory: str
    output_path: str
    error_path: str
    held: bool
    account: str | None = None


@dataclass(frozen=True, slots=True)
class JobKey:
    """Which job to look for: the id alone is not enough, schedulers use ids again."""

    job_id: str
    name: str
    user: str


class ReportsIncomplete(SystemUnavailable):
    """Some jobs could not be asked about (an owner's login fails, accounting is down); they must not count as unknown.

    ``reports`` is what was learnt all the same, ``unanswered`` the ids of the others.
    """

    def __init__(self, reports: Mapping[str, JobReport], unanswered: Iterable[str], cause: StagecoachError) -> None:
        super().__init__(cause.message)
        self.reports = dict(reports)
        self.unanswered = frozenset(unanswered)


class Scheduler(Protocol):
    """Raises SystemUnavailable when the scheduler cannot be reached or does not answer properly."""

    async def submit(self, username: str, request: JobRequest) -> str:
        """Submit as ``username``; returns the job id.

        Raises:
            SubmissionRefused: the scheduler said no; no job exists.
            SubmissionUncertain: the answer was lost; a job of this name may exist or come to exist.
        """

    async def find(self, username: str, name: str) -> list[JobReport]:
        """Jobs of ``username`` with exactly this name that the scheduler still knows."""

    async def release(self, username: str, job_id: str) -> None:
        """Let a held job run. A job that is not held any more is fine.

        Raises:
            JobNotFound: the scheduler does not know the job.
        """

    async def cancel(self, username: str, job_id: str) -> None:
        """Ask for the job's end. An ended or unknown job is fine."""

    async def reports(self, jobs: Sequence[JobKey]) -> Mapping[str, JobReport]:
        """What is known of ``jobs``, by job id; asked in a bounded number of calls however many there are.

        A job that is missing from the answer is unknown to queue and accounting at this moment: that is neither success
        nor failure (accounting lags, and forgets).

        Raises:
            ReportsIncomplete: some could not be asked about; what was learnt of the others is in it.
        """

    async def ping(self, username: str) -> str:
        """One line that names the scheduler and its version."""

    async def try_directives(self, username: str, account: str | None) -> None:
        """Have the scheduler look at a staging job with the system's directives, without creating it.

        Raises:
            SubmissionRefused: in the scheduler's words.
        """
