"""What Slurm's commands answer as text, made into our words. Pure; every pattern here was seen on a real cluster.

Text and not JSON carries the daily questions: it is the same on 22.05 and 24.05, honours ``--jobs`` on both, has the
exit code on both, and is 100 bytes a job where JSON is 4,000 to 10,000 (10,000 jobs: 1 MB against 36–100 MB). And
24.05's ``scontrol --json`` answers the same for a dead controller as for an unknown job.
"""

from __future__ import annotations

import re

from stagecoach.clusters.slurm_commands import ACCOUNTING_FIELDS, QUEUE_FIELDS
from stagecoach.clusters.slurm_states import exit_of_pair, exit_of_wait_status, exit_that_counts, phase_of
from stagecoach.core.errors import (
    JobNotFound,
    PermissionRefused,
    StagecoachError,
    SubmissionRefused,
    SubmissionUncertain,
    SystemUnavailable,
)
from stagecoach.ports.scheduler import JobReport

MAX_WORDS_LENGTH = 400
_PREFIX = re.compile(r"^(?:(?:sbatch|squeue|sacct|scontrol|scancel|srun|sacctmgr): )?(?:(?:error|fatal): )?")
UNKNOWN_JOB = re.compile(r"Invalid job id specified|invalid job id|couldn't find job|No job found", re.IGNORECASE)
NOT_OURS = re.compile(r"Access/permission denied|Invalid user id", re.IGNORECASE)
ENDED = re.compile(
    r"already finished|already completing or completed|no longer pending|not pending|Job is not (?:currently )?held",
    re.IGNORECASE,
)
ACCOUNTING_OFF = re.compile(r"accounting storage is disabled", re.IGNORECASE)
# The request may have arrived although its answer did not: a frozen controller creates the job later.
_ANSWER_LOST = re.compile(
    r"timed out|zero bytes|connection reset|broken pipe|transport endpoint|communication shutdown|unexpected message"
    r"|(?:send|receive|shutdown) failure|(?:munge|credential) decode|protocol authentication",
    re.IGNORECASE,
)
# The request cannot have arrived.
NOT_REACHED = re.compile(
    r"unable to contact slurm controller|connect failure|connection refused|munge encode|standby mode"
    r"|temporarily unable|could not establish a configuration source|i/o error writing|unable to resolve"
    r"|problem talking to the database|slurm_persist_conn_open|unable to process configuration file",
    re.IGNORECASE,
)
# The same in a line of sbatch's own, where nothing that the user wrote can stand before it.
_SBATCH_REACHED_NOBODY = re.compile(
    r"^sbatch: (?:error|fatal): (?:Batch job submission failed: |\w+: )?(?:Unable to contact slurm controller"
    r"|Munge encode|could not establish a configuration source)",
    re.IGNORECASE | re.MULTILINE,
)
NOT_THERE = frozenset({126, 127})
"""How a shell ends that could not run the command."""


def words_of(stdout: str, stderr: str) -> str:
    """The command's own complaint on one line, without its prefixes, short and printable."""
    lines = [line.strip() for line in (stderr if stderr.strip() else stdout).splitlines() if line.strip()]
    # A user's shell start files may talk too: Slurm's own lines, if there are any, are what matters.
    own = [line for line in lines if re.match(r"(sbatch|squeue|sacct|scontrol|scancel|srun|sacctmgr|slurm_\w+)\b", line)] or lines
    text = "; ".join(_PREFIX.sub("", line) for line in own if not line.startswith("Try "))
    return printable(text)


def printable(text: str) -> str:
    """Short, and without what would disturb a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)[:MAX_WORDS_LENGTH]


def not_there(exit_status: int, stderr: str, command: str) -> SystemUnavailable | None:
    """What it means that the login node has no such command; None where it has."""
    if exit_status in NOT_THERE:
        return SystemUnavailable(
            f"The command {command} cannot be run on the login node: set scheduler.binaries to Slurm's directory."
        )
    return None


def controller_not_reached(exit_status: int, stderr: str) -> bool:
    """Whether sbatch says by itself that no controller was reached, whatever the user wrote into the job."""
    return exit_status != 0 and _SBATCH_REACHED_NOBODY.search(stderr) is not None


def submitted_job_id(exit_status: int, stdout: str, stderr: str) -> str:
    """The id that ``sbatch --parsable`` printed.

    Raises:
        SubmissionRefused: Slurm said no, in its own words.
        SystemUnavailable: Slurm was not reached; there is no job.
        SubmissionUncertain: there may be a job.
    """
    ids = re.findall(r"^([0-9]+)(?:;[^\s;]*)?\s*$", stdout, re.MULTILINE)
    if exit_status == 0 and ids:
        return str(ids[-1])
    words = words_of("" if ids else stdout, stderr)
    if missing := not_there(exit_status, stderr, "sbatch"):
        raise missing
    # Order matters: "Unable to contact slurm controller (send failure)" is a lost answer, not an unreached controller.
    if exit_status <= 0 or ids or not words or _ANSWER_LOST.search(words):
        raise SubmissionUncertain(f"The scheduler's answer to the submission was lost ({words or 'no words'}).")
    if NOT_REACHED.search(words):
        raise SystemUnavailable(f"The scheduler does not take jobs at the moment: {words}.")
    raise SubmissionRefused(f"The scheduler refused the job: {words}.", data={"scheduler_message": words})


def queue_reports(exit_status: int, stdout: str, stderr: str) -> list[JobReport]:
    """Jobs in an answer to ``squeue``. No job at all is an empty list; no answer raises SystemUnavailable."""
    require_answer(exit_status, stdout, stderr, "squeue")
    reports = []
    for line in stdout.splitlines():
        values = line.split("|", len(QUEUE_FIELDS) - 1)
        if len(values) == len(QUEUE_FIELDS) and values[0][:1].isdigit():
            row = dict(zip(QUEUE_FIELDS, values, strict=True))
            code = row["exit_code"].strip()
            exit_ = exit_of_wait_status(int(code)) if code.isdigit() else exit_of_pair(code)
            reports.append(
                report_of(
                    job_id=row["JobArrayID"].strip(),
                    name=row["Name"].removesuffix("|"),
                    states=[row["State"]],
                    reason=row["Reason"],
                    exit_=exit_,
                    user=row["UserName"],
                    account=row["Account"],
                    partition=row["Partition"],
                    nodes=row["NodeList"],
                    times=(epoch(row["SubmitTime"]), epoch(row["StartTime"]), epoch(row["EndTime"])),
                    restarts=int(row["restartcnt"]) if row["restartcnt"].strip().isdigit() else 0,
                )
            )
    return reports


def accounting_reports(exit_status: int, stdout: str, stderr: str) -> list[JobReport] | None:
    """Jobs in an answer to ``sacct``, in its order; None when the site keeps no accounting.

    ``--duplicates`` lists a requeued job once for each run and other jobs that had its number: the caller picks by name
    and takes the last.
    """
    if ACCOUNTING_OFF.search(stderr) or ACCOUNTING_OFF.search(stdout):
        return None
    require_answer(exit_status, stdout, stderr, "sacct")
    reports = []
    for line in stdout.splitlines():
        values = line.split("|", len(ACCOUNTING_FIELDS) - 1)
        if len(values) == len(ACCOUNTING_FIELDS) and values[0][:1].isdigit():
            row = dict(zip(ACCOUNTING_FIELDS, values, strict=True))
            reports.append(
                report_of(
                    job_id=row["JobIDRaw"],
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
            )
    return reports


def shown_job(exit_status: int, stdout: str, stderr: str) -> JobReport | None:
    """The job in an answer to ``scontrol show job``; None when it is unknown."""
    require_answer(exit_status, stdout, stderr, "scontrol")
    found = re.search(r"^JobId=(\d+) .*?JobName=(.*?) UserId=", stdout, re.MULTILINE | re.DOTALL)
    if not found:
        return None
    # Looked for after the name, which could otherwise pretend to be any of these.
    rest = stdout[found.end(2) :]

    def value(key: str) -> str:
        match = re.search(rf"\s{key}=(\S*)", rest)
        return match[1] if match else ""

    restarts = value("Restarts")
    return report_of(
        job_id=found[1],
        name=found[2].rstrip(),
        states=[value("JobState")],
        reason=value("Reason"),
        exit_=exit_of_pair(value("ExitCode")),
        user=value("UserId").partition("(")[0],
        account=value("Account"),
        partition=value("Partition"),
        nodes=value("NodeList"),
        times=(epoch(value("SubmitTime")), epoch(value("StartTime")), epoch(value("EndTime"))),
        restarts=int(restarts) if restarts.isdigit() else 0,
    )


def release_trouble(exit_status: int, stdout: str, stderr: str, job_id: str) -> StagecoachError | None:
    """None when the job is held no more, whoever did that; otherwise what went wrong."""
    if exit_status == 0 or ENDED.search(stdout + stderr):
        return None
    # A job of somebody else is, to us, no job: the number was used again.
    if UNKNOWN_JOB.search(stdout + stderr) or re.search("Invalid user id", stdout + stderr):
        return JobNotFound(f"The scheduler knows no job {job_id} of this user.")
    if NOT_OURS.search(stdout + stderr):
        return PermissionRefused(f"The scheduler does not let this user release job {job_id}: an operator holds it.")
    return not_there(exit_status, stderr, "scontrol") or SystemUnavailable(
        f"The scheduler did not release job {job_id}: {words_of(stdout, stderr) or 'no words'}."
    )


def cancel_trouble(exit_status: int, stdout: str, stderr: str, job_id: str) -> StagecoachError | None:
    """None when the job will end, has ended or was never there; otherwise what went wrong."""
    if exit_status == 0 or ENDED.search(stdout + stderr) or UNKNOWN_JOB.search(stdout + stderr):
        return None
    if NOT_OURS.search(stdout + stderr):
        return PermissionRefused(f"Job {job_id} belongs to somebody else.")
    return not_there(exit_status, stderr, "scancel") or SystemUnavailable(
        f"The scheduler did not cancel job {job_id}: {words_of(stdout, stderr) or 'no words'}."
    )


def report_of(
    *,
    job_id: str,
    name: str,
    states: list[str],
    reason: str,
    exit_: tuple[int | None, int | None],
    user: str,
    account: str,
    partition: str,
    nodes: str,
    times: tuple[int | None, int | None, int | None],
    restarts: int = 0,
) -> JobReport:
    """One report from Slurm's words. A running job's end time is a guess of Slurm's and is left out."""
    phase = phase_of(states, reason)
    code, signal = exit_that_counts(phase, *exit_)
    return JobReport(
        job_id=job_id,
        name=name,
        phase=phase,
        state=",".join(state.strip() for state in states),
        reason="" if reason in {"None", "(null)"} else reason,
        exit_code=code,
        signal=signal,
        user=user,
        account=account,
        partition=partition,
        nodes="" if nodes in {"None assigned", "(null)", "None"} else nodes,
        submit_time=times[0],
        start_time=times[1],
        end_time=times[2] if phase.is_final else None,
        restarts=restarts,
    )


def epoch(text: str) -> int | None:
    """Seconds of a time printed with SLURM_TIME_FORMAT=%s; None for ``Unknown``, ``N/A``, ``None`` and 0."""
    return int(text) or None if text.strip().isdigit() else None


def require_answer(exit_status: int, stdout: str, stderr: str, command: str) -> None:
    """Raises SystemUnavailable unless the command answered; that there is no such job is an answer."""
    if missing := not_there(exit_status, stderr, command):
        raise missing
    trouble = NOT_REACHED.search(stderr) or _ANSWER_LOST.search(stderr)
    # A single unknown id is an error to squeue and scontrol, several are not.
    if exit_status != 0 and not trouble and UNKNOWN_JOB.search(stderr + stdout):
        return
    if exit_status != 0 or (trouble and not stdout.strip()):
        words = words_of("", stderr) or f"{command} ended with {exit_status}"
        raise SystemUnavailable(f"The scheduler cannot tell the state of jobs at the moment: {words}.")
