"""``/compute/{system}/jobs``: users' own jobs, from the scheduler; and transfers' staging jobs, from the transfer.

A staging job is never answered for by a busy scheduler: FirecREST's client believes in no error (docs/decisions/0006).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response

from stagecoach.api.access import JobOrTransferReader, JobOrTransferWriter, JobsReader, JobsWriter, Tools
from stagecoach.api.audit_trail import CurrentTrail
from stagecoach.api.firecrest.transfer import SystemName
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.core.audit_log import Act
from stagecoach.core.transfer import Direction, State, Transfer
from stagecoach.flows import users_jobs
from stagecoach.ports.compute import JobDescription, SeenJob, WantedJobs
from stagecoach.ports.scheduler import JobPhase
from stagecoach.wire import compute as wire

router = APIRouter(prefix="/compute/{system}", tags=["compute"], responses=PROBLEM_ANSWERS)
JobId = Annotated[str, Path(pattern="^[a-zA-Z0-9]+$", max_length=64)]
WINDOW_SECONDS = {"1h": 3600, "8h": 8 * 3600, "24h": 24 * 3600, "3d": 3 * 24 * 3600, "7d": 7 * 24 * 3600}
# FirecREST's client looks for these words inside a state, and for single letters: no other word is safe.
STATE_WORDS = {
    JobPhase.HELD: "PENDING",
    JobPhase.PENDING: "PENDING",
    JobPhase.RUNNING: "RUNNING",
    JobPhase.COMPLETED: "COMPLETED",
    JobPhase.FAILED: "FAILED",
    JobPhase.CANCELLED: "CANCELLED",
    JobPhase.TIMEOUT: "TIMEOUT",
    JobPhase.NODE_FAIL: "FAILED",
    JobPhase.OUT_OF_MEMORY: "FAILED",
    JobPhase.PREEMPTED: "CANCELLED",
}


@router.post("/jobs", status_code=201, summary="Submit a job")
async def post_job(
    system: SystemName, request: wire.SubmitRequest, caller: JobsWriter, tools: Tools, trail: CurrentTrail
) -> wire.SubmitAnswer:
    """The script reaches the scheduler as it is. Where the answer to the submission is lost (503), look for the job by its
    name before you submit again."""
    asked = request.job
    job = JobDescription(
        directory=asked.working_directory,
        script=asked.script or None,
        script_path=asked.script_path,
        name=asked.name,
        account=asked.account,
        partition=asked.partition,
        reservation=asked.reservation,
        constraints=asked.constraints,
        input_path=asked.standard_input,
        output_path=asked.standard_output,
        error_path=asked.standard_error,
        environment=asked.variables,
    )
    async with trail.of(Act.JOB_SUBMITTED, system=system, directory=job.directory) as noted:
        noted.target = await users_jobs.submit_job(tools, caller, system, job)
    return wire.SubmitAnswer(job_id=noted.target)


@router.get("/jobs", summary="List jobs", response_model=wire.JobsAnswer)
async def get_jobs(
    system: SystemName,
    caller: JobsReader,
    tools: Tools,
    allusers: Annotated[bool, Query(description="All jobs that the scheduler shows you, not only your own.")] = False,
    account: Annotated[str | None, Query(max_length=64, description="Only jobs charged to it.")] = None,
    name: Annotated[str | None, Query(max_length=235, description="Only jobs of exactly this name.")] = None,
    time_window: Annotated[
        Literal["1h", "8h", "24h", "3d", "7d"],
        Query(description="How long ago a job may have ended; those that have not are always listed."),
    ] = "24h",
) -> Response:
    """Open jobs, and those that ended lately. Equal questions within a second or two get one answer."""
    wanted = WantedJobs(allusers, account or None, name or None, WINDOW_SECONDS[time_window])
    jobs = await users_jobs.list_jobs(tools, caller, system, wanted)
    # A long queue takes its time to write down; others are served meanwhile.
    return Response(await asyncio.to_thread(_written, system, jobs), media_type="application/json")


@router.get("/jobs/{job_id}", summary="Show a job")
async def get_job(
    system: SystemName,
    job_id: JobId,
    caller: JobOrTransferReader,
    tools: Tools,
    allusers: Annotated[bool, Query(description="Also somebody else's, where the scheduler shows it.")] = False,
) -> wire.JobsAnswer:
    """One job; of an array all its tasks. A staging job's state is final only when its transfer is settled: a finished job
    with an unproved file is RUNNING."""
    found = await users_jobs.show_job(tools, caller, system, job_id, of_everyone=allusers)
    if isinstance(found, Transfer):
        return wire.JobsAnswer(jobs=[staging_job(found, job_id)])
    return wire.JobsAnswer(jobs=[seen_job(system, job) for job in found])


@router.get("/jobs/{job_id}/metadata", summary="Show a job's script and streams")
async def get_job_metadata(system: SystemName, job_id: JobId, caller: JobsReader, tools: Tools) -> wire.PapersAnswer:
    """Of a job of your own."""
    papers = await users_jobs.show_papers(tools, caller, system, job_id)
    return wire.PapersAnswer(
        jobs=[
            wire.JobPapers(
                job_id=papers.job_id,
                script=_text(papers.script),
                standard_input=_text(papers.input_path),
                standard_output=_text(papers.output_path),
                standard_error=_text(papers.error_path),
            )
        ]
    )


@router.delete("/jobs/{job_id}", status_code=204, summary="Cancel a job")
async def delete_job(system: SystemName, job_id: JobId, caller: JobOrTransferWriter, tools: Tools, trail: CurrentTrail) -> None:
    """One that has ended stays as it is. A staging job is cancelled with its transfer."""
    async with trail.of(Act.JOB_CANCELLED, job_id, system=system) as noted:
        transfer = await users_jobs.cancel_job(tools, caller, system, job_id)
        if transfer is not None:
            noted.detail["transfer"] = transfer.id


@router.put("/jobs/{job_id}/attach", status_code=204, summary="Run a command in a job")
async def put_job_attach(
    system: SystemName, job_id: JobId, request: wire.AttachRequest, caller: JobsWriter, tools: Tools, trail: CurrentTrail
) -> None:
    """Beside what the job does, on its nodes; the job must run."""
    async with trail.of(Act.JOB_ATTACHED, job_id, system=system):
        await users_jobs.attach_to_job(tools, caller, system, job_id, request.command)


def _written(system: str, jobs: Sequence[SeenJob]) -> str:
    return wire.JobsAnswer(jobs=[seen_job(system, job) for job in jobs]).model_dump_json(by_alias=True)


def seen_job(system: str, job: SeenJob) -> wire.Job:
    """As FirecREST shows it. What of the scheduler's own word is lost in the state stands in the reason."""
    report = job.report
    state = STATE_WORDS[report.phase]
    words: Sequence[str] = [report.state] if state not in report.state else []
    return wire.Job(
        job_id=report.job_id,
        name=report.name,
        status=wire.JobStatus(
            state=state,
            state_reason=": ".join([*words, *([report.reason] if report.reason else [])]) or "None",
            exit_code=report.exit_code,
            interrupt_signal=report.signal or 0,
        ),
        time=wire.JobTime(
            elapsed=job.elapsed_seconds,
            start=report.start_time,
            end=report.end_time,
            suspended=job.suspended_seconds,
            limit=job.limit_seconds,
        ),
        account=report.account or None,
        allocation_nodes=job.node_count,
        cluster=system,
        group=job.group,
        nodes=report.nodes,
        partition=report.partition,
        user=report.user,
        working_directory=_text(job.directory) or "",
        priority=job.priority,
    )


def job_state(transfer: Transfer) -> str:
    """The transfer's state in the words that FirecREST's client knows."""
    if transfer.direction is Direction.DOWNLOAD and transfer.state in {State.STAGED, State.EXPIRED}:
        return "COMPLETED"
    return {
        State.MOVING: "RUNNING",
        State.DONE: "COMPLETED",
        State.FAILED: "TIMEOUT" if transfer.code == "job_timed_out" else "FAILED",
        State.CANCELLING: "CANCELLED",
        State.CANCELLED: "CANCELLED",
        State.EXPIRED: "FAILED",
    }.get(transfer.state, "PENDING")


def staging_job(transfer: Transfer, job_id: str) -> wire.Job:
    """Under the id that was asked for, though another job may have taken over."""
    state = job_state(transfer)
    start = int(transfer.created_at.timestamp())
    end = int(transfer.ended_at.timestamp()) if transfer.ended_at else None
    if transfer.direction is Direction.DOWNLOAD and transfer.state is State.STAGED:
        end = int(transfer.changed_at.timestamp())
    elapsed = max(0, (end or int(transfer.updated_at.timestamp())) - start)
    exit_code = {"COMPLETED": 0, "FAILED": transfer.job_exit_code or 1}.get(state)
    return wire.Job(
        job_id=job_id,
        name=transfer.job_name,
        status=wire.JobStatus(
            state=state,
            state_reason=transfer.reason or transfer.job_reason or "None",
            exit_code=exit_code,
            interrupt_signal=0,
        ),
        time=wire.JobTime(elapsed=elapsed, start=start, end=end),
        account=transfer.account,
        cluster=transfer.system,
        nodes="",
        partition="",
        user=transfer.owner,
        working_directory=transfer.job_directory or "",
    )


def _text(text: str | None) -> str | None:
    """Bytes that are not UTF-8 become replacement characters: an answer is JSON."""
    return None if text is None else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
