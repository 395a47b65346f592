"""What the files of a local job say together. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stagecoach.ports.scheduler import JobPhase, JobReport


def local_report(
    job_id: str,
    asked: Mapping[str, Any],
    started: Mapping[str, Any] | None,
    ending: Mapping[str, Any] | None,
    *,
    alive: bool,
    released: bool,
    cancelled_at: float | None,
) -> JobReport:
    """The report; ``alive`` says whether some process of the job still holds its lock."""
    reason, end_time = "", None
    code = ended_by = None
    if ending is not None:
        code, ended_by, reason, end_time = ending["code"], ending["signal"], str(ending["reason"]), int(ending["time"])
        phase = JobPhase.COMPLETED if code == 0 else JobPhase.FAILED
        if ending["cancelled"]:
            phase = JobPhase.CANCELLED
    elif alive:
        phase = JobPhase.RUNNING if started is not None else JobPhase.PENDING
    elif cancelled_at is not None:
        phase, end_time = JobPhase.CANCELLED, int(cancelled_at)
    elif started is not None:
        # The lock is free and nobody wrote how it ended: a reboot, or the processes were killed.
        phase, reason = JobPhase.NODE_FAIL, "its processes are gone"
    else:
        phase = JobPhase.PENDING if released else JobPhase.HELD
    return JobReport(
        job_id=job_id,
        name=asked["name"],
        phase=phase,
        state=phase.value.upper(),
        reason=reason,
        exit_code=code,
        signal=ended_by,
        user=asked["user"],
        account=asked["account"] or "",
        nodes="localhost",
        submit_time=int(asked["time"]),
        start_time=int(started["time"]) if started is not None else None,
        end_time=end_time,
    )
