"""``/compute/{system}/jobs/{jobId}`` for staging jobs: answered from the transfer, so never by a busy scheduler."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from stagecoach.api.access import CurrentCaller, Tools
from stagecoach.api.firecrest.transfer import SystemName
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.core.transfer import Direction, State, Transfer
from stagecoach.flows.show_transfers import show_job
from stagecoach.wire import firecrest as wire

router = APIRouter(prefix="/compute/{system}", tags=["compute"], responses=PROBLEM_ANSWERS)


@router.get("/jobs/{job_id}", summary="Show a transfer's staging job")
async def get_job(
    system: SystemName,
    job_id: Annotated[str, Path(pattern="^[a-zA-Z0-9]+$", max_length=64)],
    caller: CurrentCaller,
    tools: Tools,
) -> wire.JobsAnswer:
    """One job. Its state is final only when the transfer is settled: a finished job with an unproved file is RUNNING."""
    return wire.JobsAnswer(jobs=[_job(await show_job(tools, caller, system, job_id))])


def job_state(transfer: Transfer) -> str:
    """The transfer's state in the words that FirecREST's client knows (it matches by substring: no other word is safe)."""
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


def _job(transfer: Transfer) -> wire.Job:
    state = job_state(transfer)
    start = int(transfer.created_at.timestamp())
    end = int(transfer.ended_at.timestamp()) if transfer.ended_at else None
    if transfer.direction is Direction.DOWNLOAD and transfer.state is State.STAGED:
        end = int(transfer.changed_at.timestamp())
    elapsed = max(0, (end or int(transfer.updated_at.timestamp())) - start)
    exit_code = {"COMPLETED": 0, "FAILED": transfer.job_exit_code or 1}.get(state)
    return wire.Job(
        job_id=transfer.job_id or "",
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
