"""What Stagecoach asks of a cluster for the users' own work: their jobs, and what the cluster has for them.

Staging jobs have a port of their own (``ports/scheduler.py``): they are followed by the thousand, these are asked about
one question at a time. Everything is asked as the user, so the scheduler itself decides what they may see and do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from stagecoach.core.errors import JobNotFound
from stagecoach.ports.scheduler import JobReport

ATTACH_SECONDS = 10
"""A command that is attached to a job is waited for so long; one that runs longer goes on by itself."""
MAX_JOB_ID = 2**32 - 3
"""Slurm's two highest numbers of 32 bits mean "infinite" and "none"."""
MAX_SCRIPT_BYTES = 4 * 1024 * 1024
"""Of a script that lies on the system; Slurm's own bound."""


@dataclass(frozen=True, slots=True)
class JobDescription:
    """A job that a user submits: the ``script`` itself, or the path of one on the system.

    ``directory`` is absolute and exists. The streams are patterns as the scheduler knows them (``%j``), relative to it.
    """

    directory: str
    script: str | None = None
    script_path: str | None = None
    name: str | None = None
    account: str | None = None
    partition: str | None = None
    reservation: str | None = None
    constraints: str | None = None
    input_path: str | None = None
    output_path: str | None = None
    error_path: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WantedJobs:
    """Open jobs, and those that ended within the last ``window_seconds``; the user's, or all that they may see."""

    of_everyone: bool = False
    account: str | None = None
    name: str | None = None
    window_seconds: int = 24 * 3600


@dataclass(frozen=True, slots=True)
class SeenJob:
    """A job as its user sees it. What the scheduler does not tell is None."""

    report: JobReport
    directory: str = ""
    group: str | None = None
    node_count: int = 0
    elapsed_seconds: int | None = None
    suspended_seconds: int | None = None
    limit_seconds: int | None = None
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class JobPapers:
    """The script of a job and where its streams are. What the scheduler does not keep any more is None."""

    job_id: str
    script: str | None
    input_path: str | None
    output_path: str | None
    error_path: str | None


class NodeState(StrEnum):
    """What a node does, in FirecREST's words."""

    IDLE = "IDLE"
    ALLOCATED = "ALLOCATED"
    MIXED = "MIXED"
    DOWN = "DOWN"
    DRAIN = "DRAIN"
    OFFLINE = "OFFLINE"
    RESERVED = "RESERVED"
    COMPLETING = "COMPLETING"
    BUSY = "BUSY"
    POWERING_DOWN = "POWERING_DOWN"
    POWERING_UP = "POWERING_UP"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Node:
    """A compute node. Memory in MiB, as schedulers count it."""

    name: str
    cpus: int
    states: tuple[NodeState, ...]
    sockets: int | None = None
    cores: int | None = None
    threads: int | None = None
    cpu_load: float | None = None
    free_memory_mib: int | None = None
    allocated_memory_mib: int | None = None
    allocated_cpus: int | None = None
    features: tuple[str, ...] = ()
    address: str | None = None
    hostname: str | None = None
    partitions: tuple[str, ...] = ()
    weight: int | None = None


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition and its state (``UP``)."""

    name: str
    state: str
    cpus: int | None = None
    node_count: int | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reservation; times are epoch seconds."""

    name: str
    nodes: str
    start_time: int
    end_time: int
    features: str | None = None
    state: str | None = None


@dataclass(frozen=True, slots=True)
class ProjectAccount:
    """An account that the user may charge."""

    name: str
    is_default: bool


def require_job_id(job_id: str) -> None:
    """Raises JobNotFound for what no job is called; Slurm's tools read ``027`` as 27, and beyond their range what they like."""
    if not re.fullmatch(r"[1-9][0-9]{0,9}", job_id) or int(job_id) > MAX_JOB_ID:
        raise job_not_found()


def job_not_found() -> JobNotFound:
    """The same for a job of somebody else's as for none. FirecREST's client reads its first words."""
    return JobNotFound("Job not found: there is no job with this id among yours.")


class Compute(Protocol):
    """Raises PermissionRefused where the user may not, SystemUnavailable when the scheduler does not answer properly."""

    async def submit(self, username: str, job: JobDescription) -> str:
        """Returns the job id.

        Raises:
            InvalidRequest: a field holds what it cannot.
            SubmissionRefused: the scheduler said no; no job exists.
            SubmissionUncertain: the answer was lost; there may be a job.
        """

    async def list_jobs(self, username: str, wanted: WantedJobs) -> list[SeenJob]:
        """In the order of their ids."""

    async def show_job(self, username: str, job_id: str, *, of_everyone: bool) -> list[SeenJob]:
        """The job; of an array all its tasks, those that have not ended first. Never empty. ``of_everyone``: also
        somebody else's, where the scheduler shows it.

        Raises:
            JobNotFound
        """

    async def show_papers(self, username: str, job_id: str) -> JobPapers:
        """Of a job of the user's own. Raises JobNotFound, PermissionRefused."""

    async def cancel(self, username: str, job_id: str) -> None:
        """End the job; one that has ended is fine while the scheduler remembers it. Raises JobNotFound, PermissionRefused."""

    async def attach(self, username: str, job_id: str, command: str) -> None:
        """Run a shell's command line inside the running job, beside what it does.

        Raises:
            JobNotFound, PermissionRefused
            Conflict: the job does not run.
            CommandFailed: it ended, within ``ATTACH_SECONDS``, with another exit code than 0.
        """

    async def nodes(self, username: str) -> list[Node]:
        """All that the user may see."""

    async def partitions(self, username: str, *, with_hidden: bool) -> list[Partition]:
        """In the scheduler's order."""

    async def reservations(self, username: str) -> list[Reservation]:
        """Present and future ones."""

    async def accounts(self, username: str) -> list[ProjectAccount] | None:
        """What the user's jobs may be charged to; None where the scheduler keeps no accounts."""

    async def ping(self, username: str) -> str:
        """One line that names the scheduler and its version."""
