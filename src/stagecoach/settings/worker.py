"""Settings of the worker: how often it looks, how much it takes, when it gives up."""

from __future__ import annotations

from pydantic import Field

from stagecoach.core.polling import QUESTIONS_AN_ASK
from stagecoach.settings.values import Section


class WorkerSettings(Section):
    """How the worker keeps transfers moving."""

    run_in_api: bool = Field(
        True, description="Whether the API process runs a worker too; false where `stagecoach work` runs on its own."
    )
    poll_min_seconds: float = Field(0.5, gt=0, le=60, description="Shortest time between two looks at one transfer.")
    poll_max_seconds: float = Field(
        300.0,
        gt=0,
        le=3600,
        description=(
            "Longest time between two looks at a transfer in which nothing happens; it grows to a tenth of the quiet time, "
            "and a job is asked about every 30 seconds at least."
        ),
    )
    scheduler_asks_per_minute: int = Field(
        12,
        ge=QUESTIONS_AN_ASK,
        le=600,
        description=(
            "Questions (squeue, sacct) about the state of jobs that one system's Slurm gets in any minute, by all workers "
            "together, however many jobs there are."
        ),
    )
    lease_seconds: float = Field(
        30.0, ge=5, le=3600, description="How long a worker owns the transfers it took; another takes over after that."
    )
    batch_size: int = Field(100, ge=1, le=10000, description="Transfers a worker takes at once.")
    job_lost_seconds: float = Field(
        120.0,
        ge=5,
        description="How long a job may be unknown to queue, accounting and store before its transfer fails.",
    )
    max_resubmissions: int = Field(
        3,
        ge=0,
        le=100,
        description="How often another job goes on where one ended for a reason that passes (its node failed, it was preempted).",
    )
    preparing_seconds: float = Field(
        180.0, ge=10, description="How old a transfer may be whose request never ended; it is cleaned up then."
    )
    keep_ended_days: float = Field(
        90.0, ge=0, description="Days an ended transfer and its history are remembered after nothing is left of it; 0, for ever."
    )
