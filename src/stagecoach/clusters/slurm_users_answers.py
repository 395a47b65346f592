"""What Slurm's commands say of users' own jobs, made into our words. Pure.

Names and directories may hold anything, a line break that looks like the next job included. So fields are told apart by
a separator that is new for each question, and records by the number of fields, never by lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from stagecoach.clusters.slurm_answers import (
    ACCOUNTING_OFF,
    ENDED,
    NOT_OURS,
    UNKNOWN_JOB,
    epoch,
    not_there,
    printable,
    report_of,
    require_answer,
    words_of,
)
from stagecoach.clusters.slurm_states import exit_of_pair, exit_of_wait_status
from stagecoach.clusters.slurm_users_commands import SEEN_ACCOUNTING_FIELDS, SEEN_QUEUE_FIELDS
from stagecoach.core.errors import CommandFailed, Conflict, PermissionRefused, StagecoachError, SystemUnavailable
from stagecoach.ports.compute import JobPapers, SeenJob, job_not_found

_ATTACHED = re.compile(r"^stagecoach: (?P<how>no srun|goes on|begun|not begun)(?: (?P<status>\d+))?\n\Z", re.MULTILINE)
_BAD_STEP = re.compile(r"srun: error: (?!.*\b(?:Exited with exit code|Terminated|Killed)\b)", re.IGNORECASE)


def queued_jobs(exit_status: int, stdout: str, stderr: str, separator: str) -> list[tuple[str, SeenJob]]:
    """Each job behind the id of its array, which is its own where it is in none. Raises SystemUnavailable."""
    require_answer(exit_status, stdout, stderr, "squeue")
    found = []
    for row in _records(stdout, separator, SEEN_QUEUE_FIELDS):
        code = row["exit_code"].strip()
        report = report_of(
            job_id=row["JobID"].strip(),
            name=row["Name"],
            states=[row["State"]],
            reason=row["Reason"],
            exit_=exit_of_wait_status(int(code)) if code.isdigit() else exit_of_pair(code),
            user=row["UserName"],
            account=known(row["Account"]),
            partition=row["Partition"],
            nodes=row["NodeList"],
            times=(epoch(row["SubmitTime"]), epoch(row["StartTime"]), epoch(row["EndTime"])),
        )
        job = SeenJob(
            report=report,
            directory=row["WorkDir"],
            group=known(row["GroupName"]) or None,
            node_count=whole_number(row["NumNodes"]) or 0,
            elapsed_seconds=duration_seconds(row["TimeUsed"]),
            limit_seconds=duration_seconds(row["TimeLimit"]),
            priority=whole_number(row["PriorityLong"]),
        )
        found.append((row["ArrayJobID"].strip(), job))
    return found


def accounted_jobs(exit_status: int, stdout: str, stderr: str, separator: str) -> list[tuple[str, SeenJob]]:
    """As :func:`queued_jobs`; only those that have ended: the last row of any other comes late, or never."""
    if ACCOUNTING_OFF.search(stderr) or ACCOUNTING_OFF.search(stdout):
        return []
    require_answer(exit_status, stdout, stderr, "sacct")
    found = []
    for row in _records(stdout, separator, SEEN_ACCOUNTING_FIELDS):
        report = report_of(
            job_id=row["JobIDRaw"].strip(),
            name=row["JobName"],
            states=[row["State"]],
            reason=row["Reason"],
            exit_=exit_of_pair(row["ExitCode"]),
            user=row["User"],
            account=row["Account"],
            partition=row["Partition"],
            nodes=row["NodeList"],
            times=(epoch(row["Submit"]), epoch(row["Start"]), epoch(row["End"])),
        )
        minutes = whole_number(row["TimelimitRaw"])
        job = SeenJob(
            report=report,
            directory=row["WorkDir"],
            group=row["Group"] or None,
            node_count=whole_number(row["NNodes"]) or 0,
            elapsed_seconds=whole_number(row["ElapsedRaw"]),
            suspended_seconds=duration_seconds(row["Suspended"]),
            limit_seconds=None if minutes is None else 60 * minutes,
            priority=whole_number(row["Priority"]),
        )
        if report.phase.is_final:
            found.append((row["JobID"].partition("_")[0].strip(), job))
    return found


def job_papers(job_id: str, script: str, shown: str) -> JobPapers:
    """From ``scontrol write batch_script`` and ``scontrol show job``, whose last lines tell the streams."""

    def value(key: str) -> str | None:
        found = re.findall(rf"^   {key}=(.*)$", shown, re.MULTILINE)
        return found[-1] or None if found else None

    return JobPapers(job_id, script.rstrip("\0"), value("StdIn"), value("StdOut"), value("StdErr"))


def accounted_script(exit_status: int, stdout: str) -> str | None:
    """From ``sacct --batch-script``: two lines of heading, then the script; None where none is kept."""
    found = re.match(r"Batch Script for \S+\n-+\n(.*)\Z", stdout, re.DOTALL)
    script = found[1] if exit_status == 0 and found else ""
    return None if script.strip() in {"", "NONE"} else script


def own_job_trouble(exit_status: int, stdout: str, stderr: str, command: str) -> StagecoachError | None:
    """None when ``command`` did what it should with a job; what has ended is not the user's own trouble."""
    said = stdout if command == "scancel" else ""
    if UNKNOWN_JOB.search(stderr + said):
        return job_not_found()
    if NOT_OURS.search(stderr + said):
        return PermissionRefused("Permission denied: this job belongs to somebody else.")
    if exit_status == 0 or ENDED.search(stderr + said):
        return None
    return not_there(exit_status, stderr, command) or SystemUnavailable(
        f"The scheduler did not do this: {words_of('', stderr) or 'no words'}."
    )


def script_of_own_job(exit_status: int, stdout: str, stderr: str) -> str:
    """From ``scontrol write batch_script``. Raises JobNotFound, PermissionRefused, SystemUnavailable."""
    if trouble := own_job_trouble(exit_status, stdout, stderr, "scontrol"):
        raise trouble
    return stdout


def shown(exit_status: int, stdout: str, stderr: str) -> str:
    """What ``scontrol show`` prints. Raises SystemUnavailable."""
    require_answer(exit_status, stdout, stderr, "scontrol")
    return stdout


def require_cancelled(exit_status: int, stdout: str, stderr: str) -> None:
    """Raises JobNotFound, PermissionRefused, SystemUnavailable."""
    if trouble := own_job_trouble(exit_status, stdout, stderr, "scancel"):
        raise trouble


def attach_trouble(stdout: str, stderr: str) -> StagecoachError | None:
    """None when the command ended well, or still runs. ``stdout`` is our own, ``stderr`` srun's and, once the step had
    begun, whatever the command says."""
    ending = _ATTACHED.search(stdout)
    if ending is None:
        return SystemUnavailable(f"The command was not started in the job: {words_of('', stderr) or 'no words'}.")
    if ending["how"] == "no srun":
        return not_there(127, stderr, "srun")
    exit_status = int(ending["status"] or 0)
    if exit_status == 0:
        return None
    if ending["how"] == "not begun":
        own = "\n".join(line for line in stderr.splitlines() if line.startswith("srun: "))
        if ENDED.search(own) or re.search(r"Job is pending execution|not running", own, re.IGNORECASE):
            return Conflict("The job does not run, so nothing can be attached to it.")
        if UNKNOWN_JOB.search(own):
            return job_not_found()
        if NOT_OURS.search(own):
            return PermissionRefused("Permission denied: this job belongs to somebody else.")
        if _BAD_STEP.search(own):
            return SystemUnavailable(f"The command was not started in the job: {words_of('', own)}.")
    said = "; ".join(line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("srun: "))
    return CommandFailed(CommandFailed.words(exit_status, printable(said)))


def duration_seconds(text: str) -> int | None:
    """``5:00``, ``01:02:03``, ``1-02:03:04``; None for ``UNLIMITED``, ``NOT_SET`` and the like."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)(?:\.\d+)?", text.strip())
    if not found:
        return None
    days, hours, minutes, seconds = (int(piece or 0) for piece in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _records(text: str, separator: str, fields: Sequence[str]) -> Iterator[dict[str, str]]:
    values = text.split(separator)
    for start in range(0, len(values) - len(fields) + 1, len(fields)):
        record = values[start : start + len(fields)]
        # Whatever start files have printed stands before the first of them.
        record[0] = record[0].rpartition("\n")[2]
        yield dict(zip(fields, record, strict=True))


def known(text: str) -> str:
    """Empty for Slurm's words for nothing."""
    return "" if text in {"(null)", "N/A", "None"} else text


def whole_number(text: str) -> int | None:
    """None for anything else."""
    return int(text) if text.strip().isdigit() else None
