"""Slurm's state words and exit codes, in ours."""

from __future__ import annotations

import pytest

from stagecoach.clusters.slurm_states import exit_of_pair, exit_of_wait_status, exit_that_counts, phase_of
from stagecoach.ports.scheduler import JobPhase


@pytest.mark.parametrize(
    ("states", "reason", "phase"),
    [
        (["PENDING"], "Priority", JobPhase.PENDING),
        (["PENDING"], "JobHeldUser", JobPhase.HELD),
        (["PENDING"], "JobHeldAdmin", JobPhase.HELD),
        (["PENDING"], "launch failed requeued held", JobPhase.HELD),
        (["PENDING"], "launch_failed_requeued_held", JobPhase.HELD),
        (["PENDING"], "PartitionDown", JobPhase.PENDING),
        (["PENDING"], "BeginTime", JobPhase.PENDING),
        (["PENDING", "REQUEUED"], "", JobPhase.PENDING),
        (["PENDING", "SPECIAL_EXIT"], "", JobPhase.HELD),
        (["REQUEUE_HOLD"], "", JobPhase.HELD),
        (["NODE_FAIL", "REQUEUED"], "", JobPhase.PENDING),
        (["RUNNING"], "", JobPhase.RUNNING),
        (["RUNNING", "RESIZING"], "", JobPhase.RUNNING),
        (["RUNNING", "CONFIGURING"], "", JobPhase.PENDING),
        (["CONFIGURING"], "", JobPhase.PENDING),
        (["SUSPENDED"], "", JobPhase.RUNNING),
        (["COMPLETING"], "", JobPhase.RUNNING),
        (["CANCELLED", "COMPLETING"], "", JobPhase.RUNNING),
        (["COMPLETED", "STAGE_OUT"], "", JobPhase.RUNNING),
        (["COMPLETED"], "", JobPhase.COMPLETED),
        (["CANCELLED by 1001"], "", JobPhase.CANCELLED),
        (["CANCELLED+"], "", JobPhase.CANCELLED),
        (["CANCELLED"], "JobHeldUser", JobPhase.CANCELLED),
        (["REVOKED"], "", JobPhase.CANCELLED),
        (["FAILED"], "NonZeroExitCode", JobPhase.FAILED),
        (["LAUNCH_FAILED"], "", JobPhase.FAILED),
        (["TIMEOUT"], "TimeLimit", JobPhase.TIMEOUT),
        (["TIMEOUT", "UPDATE_DB"], "", JobPhase.TIMEOUT),
        (["DEADLINE"], "", JobPhase.TIMEOUT),
        (["NODE_FAIL"], "", JobPhase.NODE_FAIL),
        (["BOOT_FAIL"], "", JobPhase.NODE_FAIL),
        (["OUT_OF_MEMORY"], "", JobPhase.OUT_OF_MEMORY),
        (["PREEMPTED"], "", JobPhase.PREEMPTED),
        (["A_WORD_OF_TOMORROW"], "", JobPhase.RUNNING),
        ([""], "", JobPhase.RUNNING),
        ([], "", JobPhase.RUNNING),
    ],
)
def test_phases(states: list[str], reason: str, phase: JobPhase) -> None:
    assert phase_of(states, reason) is phase


@pytest.mark.parametrize(
    ("status", "exit_"), [(0, (0, None)), (1792, (7, None)), (35072, (137, None)), (11, (None, 11)), (4021, (None, 53))]
)
def test_wait_statuses(status: int, exit_: tuple[int | None, int | None]) -> None:
    assert exit_of_wait_status(status) == exit_


@pytest.mark.parametrize(
    ("text", "exit_"),
    [
        ("0:0", (0, None)),
        ("7:0", (7, None)),
        ("9:0", (9, None)),
        ("0:53", (None, 53)),
        ("1:15", (1, 15)),
        ("", (None, None)),
        ("x", (None, None)),
    ],
)
def test_exit_pairs(text: str, exit_: tuple[int | None, int | None]) -> None:
    assert exit_of_pair(text) == exit_


def test_an_exit_counts_at_the_end_only_and_zero_only_for_a_completed_job() -> None:
    assert exit_that_counts(JobPhase.RUNNING, 0, None) == (None, None)
    assert exit_that_counts(JobPhase.COMPLETED, 0, None) == (0, None)
    assert exit_that_counts(JobPhase.CANCELLED, 0, 15) == (None, 15)
    assert exit_that_counts(JobPhase.FAILED, 7, None) == (7, None)
