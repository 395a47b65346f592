"""Slurm's JSON, on answers recorded from 22.05.8 and 24.05.8."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stagecoach.clusters.slurm_json import number
from stagecoach.clusters.slurm_rest_answers import accounted_job, queued_job
from stagecoach.ports.scheduler import JobPhase, JobReport

RECORDED = Path(__file__).parent / "recorded"
NOW = 1_900_000_000
P = JobPhase


def jobs_in(version: str, name: str) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = json.loads((RECORDED / version / f"{name}.json").read_text(encoding="utf-8"))["jobs"]
    return jobs


def accounted(version: str, name: str) -> list[JobReport]:
    return [accounted_job(job)[1].report for job in jobs_in(version, f"sacct-{name}")]


def queued(version: str, name: str, command: str = "squeue") -> list[JobReport]:
    return [queued_job(job, NOW)[1].report for job in jobs_in(version, f"{command}-{name}")]


ENDS = {
    "ok": (P.COMPLETED, 0, None),
    "exit7": (P.FAILED, 7, None),
    "exit137": (P.FAILED, 137, None),
    "segv": (P.FAILED, None, 11),
    "badout": (P.FAILED, None, 53),
    "pend": (P.HELD, None, None),
    "run": (P.RUNNING, None, None),
    "nolimit": (P.RUNNING, None, None),
}


@pytest.mark.parametrize(("name", "end"), [*ENDS.items(), ("timeout", (P.TIMEOUT, None, None))])
def test_accounting_of_24_05(name: str, end: tuple[JobPhase, int | None, int | None]) -> None:
    [job] = accounted("24.05", name)
    assert (job.phase, job.exit_code, job.signal) == end
    assert (job.name, job.user, job.account) == (name, "alice", "proj")
    assert (job.end_time is not None) == job.phase.is_final


# 22.05 says SUCCESS, 0 of every failure: such a 0 is not shown.
@pytest.mark.parametrize(
    ("name", "end"), [*(ENDS | {"exit7": (P.FAILED, None, None), "exit137": (P.FAILED, None, None)}).items()]
)
def test_accounting_of_22_05(name: str, end: tuple[JobPhase, int | None, int | None]) -> None:
    [job] = accounted("22.05", name)
    assert (job.phase, job.exit_code, job.signal) == end
    assert (job.name, job.user) == (name, "alice")


@pytest.mark.parametrize("version", ["22.05", "24.05"])
def test_a_cancelled_job_never_shows_exit_code_0(version: str) -> None:
    [job] = accounted(version, "cancel")
    assert (job.phase, job.exit_code) == (P.CANCELLED, None)


@pytest.mark.parametrize("version", ["22.05", "24.05"])
def test_tasks_of_an_array(version: str) -> None:
    found = [accounted_job(job) for job in jobs_in(version, "sacct-array")]
    assert {array for array, _ in found} in ({"63"}, {"9"})
    assert len({job.report.job_id for _, job in found}) == 2


def test_the_queue_of_22_05_holds_everything_whatever_was_asked() -> None:
    found = [queued_job(job, NOW) for job in jobs_in("22.05", "squeue-run")]
    jobs = {job.report.name: job.report for array, job in found if array != "63"}
    assert {name: (job.phase, job.exit_code, job.signal) for name, job in jobs.items()} == {
        **ENDS,
        "cancel": (P.CANCELLED, None, 15),
        "timeout": (P.RUNNING, None, None),
        "s.sh": (P.CANCELLED, None, None),
    }
    assert jobs["exit7"].job_id == "56"
    assert jobs["exit7"].reason == "NonZeroExitCode"
    assert jobs["run"].end_time is None


def test_the_queue_of_24_05_holds_what_lives() -> None:
    assert queued("24.05", "ok") == []
    assert [(job.job_id, job.phase, job.end_time) for job in queued("24.05", "run")] == [("10", P.RUNNING, None)]
    [held] = queued("24.05", "pend")
    assert (held.phase, held.reason, held.start_time) == (P.HELD, "JobHeldUser", None)
    [endless] = queued("24.05", "nolimit")
    assert endless.phase is P.RUNNING


@pytest.mark.parametrize(
    ("name", "end"), [*ENDS.items(), ("cancel", (P.CANCELLED, None, 15)), ("timeout", (P.TIMEOUT, None, 15))]
)
def test_scontrol_of_24_05(name: str, end: tuple[JobPhase, int | None, int | None]) -> None:
    [job] = queued("24.05", name, "scontrol")
    assert (job.phase, job.exit_code, job.signal) == end
    assert (job.name, job.user) == (name, "alice")


def test_a_job_that_is_cancelled_and_completing_has_not_ended() -> None:
    [answer] = jobs_in("24.05", "scontrol-cancel")
    job = queued_job({**answer, "job_state": ["CANCELLED", "COMPLETING"]}, NOW)[1].report
    assert (job.phase, job.state, job.end_time, job.signal) == (P.RUNNING, "CANCELLED,COMPLETING", None, None)


def test_numbers() -> None:
    assert number(5) == 5
    assert number(None) is None
    assert number({"set": True, "infinite": False, "number": 7}) == 7
    assert number({"set": False, "infinite": False, "number": 0}) is None
    assert number({"set": True, "infinite": True, "number": 0}) is None
    assert number(True) is None
    assert number("5") is None
