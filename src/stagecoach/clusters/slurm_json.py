"""Slurm's JSON answers (squeue, scontrol, sacct; slurmrestd speaks the same) made into our words. Pure.

Shapes of 22.05 and of 24.05: a state is a word or a list, a number plain, null or ``{set, infinite, number}``, an exit
code a raw wait status or an object. Jobs that were not asked for may be in the answer: the caller filters.
"""

from __future__ import annotations

import json
from typing import Any

from stagecoach.clusters.slurm_answers import report_of
from stagecoach.clusters.slurm_states import exit_of_wait_status
from stagecoach.core.errors import SystemUnavailable
from stagecoach.ports.scheduler import JobReport


def queue_reports_from_json(text: str) -> list[JobReport]:
    """Jobs in ``squeue --json`` or ``scontrol show job --json``.

    Raises:
        SystemUnavailable: not JSON, or ``errors`` has entries, which happens with exit status 0 and ``jobs: []``.
    """
    return [_queued(job) for job in _jobs(text)]


def accounting_reports_from_json(text: str) -> list[JobReport]:
    """Jobs in ``sacct --json``. Up to 22.05 a failed job shows exit code 0 there; it is left out."""
    return [_accounted(job) for job in _jobs(text)]


def _jobs(text: str) -> list[dict[str, Any]]:
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise SystemUnavailable("The scheduler's answer is not JSON.") from error
    if not isinstance(answer, dict):
        raise SystemUnavailable("The scheduler's answer has an unknown shape.")
    if errors := answer.get("errors"):
        first = errors[0] if isinstance(errors, list) else errors
        words = str(first.get("description") or first.get("error") or first) if isinstance(first, dict) else str(first)
        raise SystemUnavailable(f"The scheduler answered with an error: {words[:400]}.")
    jobs = answer.get("jobs")
    if not isinstance(jobs, list):
        raise SystemUnavailable("The scheduler's answer has no jobs in it.")
    return [job for job in jobs if isinstance(job, dict)]


def _queued(job: dict[str, Any]) -> JobReport:
    task, array_id = number(job.get("array_task_id")), number(job.get("array_job_id"))
    return report_of(
        # A task of an array has a number of its own, but its name in the queue is 9_1.
        job_id=f"{array_id}_{task}" if task is not None and array_id else str(job.get("job_id", "")),
        name=str(job.get("name") or ""),
        states=_words(job.get("job_state")),
        reason=str(job.get("state_reason") or ""),
        exit_=_exit(job.get("exit_code")),
        user=str(job.get("user_name") or ""),
        account=str(job.get("account") or ""),
        partition=str(job.get("partition") or ""),
        nodes=str(job.get("nodes") or ""),
        times=_times(job.get("submit_time"), job.get("start_time"), job.get("end_time")),
        restarts=number(job.get("restart_cnt")) or 0,
    )


def _accounted(job: dict[str, Any]) -> JobReport:
    state, time, array = (_object(job.get(key)) for key in ("state", "time", "array"))
    task, array_id = number(array.get("task_id")), number(array.get("job_id"))
    return report_of(
        job_id=f"{array_id}_{task}" if task is not None and array_id else str(job.get("job_id", "")),
        name=str(job.get("name") or ""),
        states=_words(state.get("current")),
        reason=str(state.get("reason") or ""),
        exit_=_exit(job.get("exit_code")),
        user=str(_object(job.get("association")).get("user") or job.get("user") or ""),
        account=str(job.get("account") or ""),
        partition=str(job.get("partition") or ""),
        nodes=str(job.get("nodes") or ""),
        times=_times(time.get("submission"), time.get("start"), time.get("end")),
        restarts=number(job.get("restart_cnt")) or 0,
    )


def number(value: object) -> int | None:
    """A number, plain or wrapped in ``{set, infinite, number}``; None when unset or endless."""
    if isinstance(value, dict):
        if not value.get("set") or value.get("infinite"):
            return None
        value = value.get("number")
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _exit(value: object) -> tuple[int | None, int | None]:
    if isinstance(value, dict):
        signal = value.get("signal")
        # 24.05: signal {id: {set, …}}; older: signal {signal_id: 9, name}.
        signal_id = number(signal.get("id", signal.get("signal_id"))) if isinstance(signal, dict) else None
        return number(value.get("return_code")), signal_id or None
    status = number(value)
    return exit_of_wait_status(status) if status is not None else (None, None)


def _words(value: object) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list) else [str(value or "")]


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _times(submit: object, start: object, end: object) -> tuple[int | None, int | None, int | None]:
    return number(submit) or None, number(start) or None, number(end) or None
