"""What slurmrestd answers about users' jobs and the cluster, made into our words. Pure.

Shapes of v0.0.38 (Slurm 22.05) and of later ones, where numbers are wrapped and words are lists. An error comes with any
HTTP status, in the scheduler's own words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stagecoach.clusters.slurm_answers import ACCOUNTING_OFF, ENDED, NOT_OURS, NOT_REACHED, UNKNOWN_JOB, printable, report_of
from stagecoach.clusters.slurm_cluster_answers import node_states
from stagecoach.clusters.slurm_json import exit_in, number, object_in, times_of, words_of_state
from stagecoach.core.errors import PermissionRefused, StagecoachError, SubmissionRefused, SystemUnavailable
from stagecoach.ports.compute import JobDescription, Node, Partition, ProjectAccount, Reservation, SeenJob, job_not_found
from stagecoach.ports.scheduler import JobReport

# Accounting's words where nothing fits the question.
NOTHING_FOUND = frozenset({"Nothing found with query", "Jobs description entry not found"})
# Where variables are a list of NAME=value; before, they are an object.
FIRST_VERSION_WITH_LISTS = "v0.0.39"


def submission(job: JobDescription, script: str, environment: Mapping[str, str], api_version: str) -> dict[str, Any]:
    """The body of a submission."""
    asked: dict[str, Any] = {
        "current_working_directory": job.directory,
        "name": job.name,
        "account": job.account,
        "partition": job.partition,
        "reservation": job.reservation,
        "constraints": job.constraints,
        "standard_input": job.input_path,
        "standard_output": job.output_path,
        "standard_error": job.error_path,
        "environment": (
            [f"{name}={value}" for name, value in environment.items()]
            if api_version >= FIRST_VERSION_WITH_LISTS
            else dict(environment)
        ),
    }
    return {"script": script, "job": {name: value for name, value in asked.items() if value is not None}}


def trouble(document: object) -> StagecoachError | None:
    """What the ``errors`` of an answer mean; None without any."""
    errors = object_in(document).get("errors")
    if not errors:
        return None
    first = errors[0] if isinstance(errors, list) else errors
    words = first if not isinstance(first, dict) else first.get("error") or first.get("description") or "an error without words"
    said = printable(str(words))
    if UNKNOWN_JOB.search(said) or ACCOUNTING_OFF.search(said) or said in NOTHING_FOUND:
        return job_not_found()
    if NOT_OURS.search(said):
        return PermissionRefused("Permission denied: this job belongs to somebody else.")
    return SystemUnavailable(f"The scheduler answered with an error: {said}.", data={"scheduler_message": said})


def is_silence(error: StagecoachError) -> bool:
    """Whether it says that slurmrestd reached no controller; its other words may be about what was asked for."""
    return bool(NOT_REACHED.search(str(error.data.get("scheduler_message", ""))))


def has_ended(error: StagecoachError) -> bool:
    """Whether it says no more than that the job has ended."""
    return bool(ENDED.search(error.message))


def refusal(error: StagecoachError) -> StagecoachError:
    """What an error means after a submission: unless nobody was reached, the scheduler said no."""
    words = str(error.data.get("scheduler_message", ""))
    if not words or NOT_REACHED.search(words) or "authentication" in words.lower() or words == "Unspecified error":
        return error
    return SubmissionRefused(f"The scheduler refused the job: {words}.", data={"scheduler_message": words})


def queued_job(job: Mapping[str, Any], now: float) -> tuple[str, SeenJob]:
    """The id of the job's array, or its own; and the job. As the controller has it."""
    report = report_of(
        job_id=str(job.get("job_id", "")),
        name=str(job.get("name") or ""),
        states=words_of_state(job.get("job_state")),
        reason=str(job.get("state_reason") or ""),
        exit_=exit_in(job.get("exit_code")),
        user=str(job.get("user_name") or ""),
        account=str(job.get("account") or ""),
        partition=str(job.get("partition") or ""),
        nodes=str(job.get("nodes") or ""),
        times=times_of(job.get("submit_time"), job.get("start_time"), job.get("end_time")),
    )
    minutes = number(job.get("time_limit"))
    seen = SeenJob(
        report=report,
        directory=str(job.get("current_working_directory") or ""),
        group=str(job.get("group_name") or "") or None,
        node_count=number(job.get("node_count")) or 0,
        elapsed_seconds=_elapsed(report, now),
        limit_seconds=None if minutes is None else 60 * minutes,
        priority=number(job.get("priority")),
    )
    return str(number(job.get("array_job_id")) or report.job_id), seen


def accounted_job(job: Mapping[str, Any]) -> tuple[str, SeenJob]:
    """The same, as accounting has it. Up to 22.05 a failed job shows exit code 0 there; it is left out."""
    state, time, array = (object_in(job.get(key)) for key in ("state", "time", "array"))
    report = report_of(
        job_id=str(job.get("job_id", "")),
        name=str(job.get("name") or ""),
        states=words_of_state(state.get("current")),
        reason=str(state.get("reason") or ""),
        exit_=exit_in(job.get("exit_code")),
        user=str(object_in(job.get("association")).get("user") or job.get("user") or ""),
        account=str(job.get("account") or ""),
        partition=str(job.get("partition") or ""),
        nodes=str(job.get("nodes") or ""),
        times=times_of(time.get("submission"), time.get("start"), time.get("end")),
    )
    minutes = number(time.get("limit"))
    seen = SeenJob(
        report=report,
        directory=str(job.get("working_directory") or ""),
        group=str(job.get("group") or "") or None,
        node_count=number(job.get("allocation_nodes")) or 0,
        elapsed_seconds=number(time.get("elapsed")),
        suspended_seconds=number(time.get("suspended")),
        limit_seconds=None if minutes is None else 60 * minutes,
        priority=number(job.get("priority")),
    )
    return str(number(array.get("job_id")) or report.job_id), seen


def node(found: Mapping[str, Any]) -> Node:
    """One node."""
    load = number(found.get("cpu_load"))
    return Node(
        name=str(found.get("name") or ""),
        cpus=number(found.get("cpus")) or 0,
        states=node_states([*words_of_state(found.get("state")), *words_of_state(found.get("state_flags") or [])]),
        sockets=number(found.get("sockets")),
        cores=number(found.get("cores")),
        threads=number(found.get("threads")),
        # In hundredths.
        cpu_load=None if load is None else load / 100,
        free_memory_mib=number(found.get("free_memory", found.get("free_mem"))),
        allocated_memory_mib=number(found.get("alloc_memory")),
        allocated_cpus=number(found.get("alloc_cpus")),
        features=_words(found.get("active_features")),
        address=str(found.get("address") or "") or None,
        hostname=str(found.get("hostname") or "") or None,
        partitions=_words(found.get("partitions")),
        weight=number(found.get("weight")),
    )


def partition(found: Mapping[str, Any]) -> Partition:
    """One partition."""
    nodes, cpus = object_in(found.get("nodes")), object_in(found.get("cpus"))
    states = words_of_state(found.get("state") or object_in(found.get("partition")).get("state"))
    return Partition(
        str(found.get("name") or ""),
        ",".join(states),
        number(found.get("total_cpus", cpus.get("total"))),
        number(found.get("total_nodes", nodes.get("total"))),
    )


def reservation(found: Mapping[str, Any]) -> Reservation:
    """One reservation."""
    return Reservation(
        str(found.get("name") or ""),
        str(found.get("node_list") or ""),
        number(found.get("start_time")) or 0,
        number(found.get("end_time")) or 0,
        str(found.get("features") or "") or None,
        ",".join(words_of_state(found.get("flags") or [])) or None,
    )


def accounts(user: Mapping[str, Any]) -> list[ProjectAccount]:
    """Of one user."""
    default = str(object_in(user.get("default")).get("account") or "")
    names = dict.fromkeys(str(object_in(one).get("account") or "") for one in user.get("associations") or [])
    return [ProjectAccount(name, name == default) for name in names if name]


def _elapsed(report: JobReport, now: float) -> int | None:
    if report.start_time is None or report.start_time > now:
        return 0
    return max(0, int(report.end_time or now) - report.start_time)


def _words(value: object) -> tuple[str, ...]:
    words = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(str(word) for word in words if word)
