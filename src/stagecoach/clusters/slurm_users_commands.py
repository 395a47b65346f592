"""Slurm's command lines for users' own jobs and for what the cluster has. Pure, as ``slurm_commands.py`` is."""

from __future__ import annotations

from collections.abc import Sequence

from stagecoach.clusters.slurm_commands import FOR_QUESTIONS, FOR_SUBMITTING, checked_job_id, program
from stagecoach.core.errors import InvalidRequest
from stagecoach.core.names import is_account_name
from stagecoach.ports.compute import ATTACH_SECONDS, JobDescription

# The whole command is one argument of the login shell, which Linux bounds at 128 KiB.
MAX_WORDS_BYTES = 100_000
SEEN_QUEUE_FIELDS = (
    "JobID",
    "ArrayJobID",
    "State",
    "exit_code",
    "UserName",
    "GroupName",
    "Account",
    "Partition",
    "NodeList",
    "NumNodes",
    "SubmitTime",
    "StartTime",
    "EndTime",
    "TimeLimit",
    "TimeUsed",
    "PriorityLong",
    "Reason",
    "WorkDir",
    "Name",
)
SEEN_ACCOUNTING_FIELDS = (
    "JobIDRaw",
    "JobID",
    "State",
    "ExitCode",
    "User",
    "Group",
    "Account",
    "Partition",
    "NodeList",
    "NNodes",
    "Submit",
    "Start",
    "End",
    "TimelimitRaw",
    "ElapsedRaw",
    "Suspended",
    "Priority",
    "Reason",
    "WorkDir",
    "JobName",
)
# sbatch's options come first, up to a word "--", then the job's variables. The program is found before they are set, because
# PATH may be one of them, and set by env: a shell has variables of its own, and names that it refuses. So the program goes
# behind the variables, and then each option. --export with names instead would make slurmd log in as the user (see
# slurm_commands.sbatch).
_WITH_VARIABLES = (
    'command -v "$0" >/dev/null || exit 127; set -- "$@" "$(command -v "$0")"; '
    'while [ "$1" != -- ]; do set -- "$@" "$1"; shift; done; shift; exec env -- "$@"'
)
# Runs srun and says on its own output, which the command in the job cannot write to, how far it came. What goes on after
# the wait has no stream of ours left, so the SSH session ends without it; and of all that it ever prints no more than the
# end is kept, in memory, until it ends too.
_WAIT_A_LITTLE = (
    'left=$1; shift; command -v "$1" >/dev/null || { echo "stagecoach: no srun"; exit; }; '
    "own=$(mktemp -d) || exit; "
    '{ { "$@" </dev/null >"$own/begun"; echo "$?" >"$own/status"; } 2>&1 | tail -c 4096 >"$own/errors"; } '
    "</dev/null >/dev/null 2>/dev/null & child=$!; "
    'while [ "$left" -gt 0 ] && kill -0 "$child" 2>/dev/null; do sleep 0.5; left=$((left - 1)); done; '
    'if kill -0 "$child" 2>/dev/null; then rm -rf "$own"; echo "stagecoach: goes on"; exit; fi; '
    'if [ -s "$own/begun" ]; then began=begun; else began="not begun"; fi; '
    'cat "$own/errors" >&2; echo "stagecoach: $began $(cat "$own/status")"; rm -rf "$own"'
)
# The step's first word tells that it has begun; what the command itself prints goes nowhere.
_IN_THE_JOB = 'echo begun; exec >/dev/null; exec sh -c "$1"'


def sbatch(binaries: str | None, job: JobDescription) -> list[str]:
    """Submit; a script that is no path is given on standard input. Raises InvalidRequest."""
    if job.account is not None and not is_account_name(job.account):
        raise InvalidRequest("The account may hold letters, digits, '_', '.' and '-', at most 64 of them.")
    options = {
        "job-name": job.name,
        "account": job.account,
        "partition": job.partition,
        "reservation": job.reservation,
        "constraint": job.constraints,
        "input": job.input_path,
        "output": job.output_path,
        "error": job.error_path,
    }
    for name in job.environment:
        if name.startswith(("SBATCH_", "SLURM_")):
            raise InvalidRequest(f"The variable {name} is the scheduler's own; say it in the script, as an #SBATCH line.")
    words = [
        *FOR_SUBMITTING,
        "sh",
        "-c",
        _WITH_VARIABLES,
        program(binaries, "sbatch"),
        # Without variables of the request's, what the script itself says of them is heeded.
        *(["--export=ALL"] if job.environment else []),
        "--parsable",
        f"--chdir={job.directory}",
        *(f"--{name}={value}" for name, value in options.items() if value is not None),
        *([job.script_path] if job.script_path is not None else []),
        "--",
        *(f"{name}={value}" for name, value in job.environment.items()),
    ]
    if sum(len(word.encode("utf-8", "surrogateescape")) + 3 for word in words) > MAX_WORDS_BYTES:
        raise InvalidRequest("The job's variables are too long together; put them into the script, or into a file it reads.")
    return words


def squeue(binaries: str | None, separator: str, *, user: str | None, job_id: str | None = None) -> list[str]:
    """Jobs the controller has in memory, ended ones too; each field is followed by ``separator``."""
    return [
        *FOR_QUESTIONS,
        program(binaries, "squeue"),
        "--noheader",
        "--all",
        "--states=all",
        "--Format=" + ",".join(f"{field}:{separator}" for field in SEEN_QUEUE_FIELDS),
        *([f"--user={user}"] if user else []),
        *([f"--jobs={checked_job_id(job_id)}"] if job_id else []),
    ]


def sacct(
    binaries: str | None, separator: str, *, user: str | None, job_id: str | None = None, window_seconds: int | None = None
) -> list[str]:
    """Jobs that accounting knows; each field is followed by ``separator``. Of ids used again the newest job."""
    return [
        *FOR_QUESTIONS,
        program(binaries, "sacct"),
        "--noheader",
        "--parsable",
        f"--delimiter={separator}",
        "--allocations",
        "--format=" + ",".join(SEEN_ACCOUNTING_FIELDS),
        *([f"--user={user}"] if user else ["--allusers"]),
        *([f"--jobs={checked_job_id(job_id)}"] if job_id else []),
        *([f"--starttime=now-{window_seconds}seconds"] if window_seconds is not None else []),
    ]


def scontrol_write_script(binaries: str | None, job_id: str) -> list[str]:
    """The script of one of the user's own jobs."""
    return [program(binaries, "scontrol"), "write", "batch_script", checked_job_id(job_id), "-"]


def scontrol_show(binaries: str | None, what: str, job_id: str | None = None) -> list[str]:
    """``job`` (several lines), or all nodes, partitions or reservations, one a line."""
    one_line = [] if job_id else ["--oneliner"]
    words = [checked_job_id(job_id)] if job_id else []
    return [*FOR_QUESTIONS, program(binaries, "scontrol"), *one_line, "show", what, *words]


def scontrol_show_partitions(binaries: str | None, *, with_hidden: bool) -> list[str]:
    """All partitions, one a line."""
    return [*FOR_QUESTIONS, program(binaries, "scontrol"), *(["--all"] if with_hidden else []), "--oneliner", "show", "partition"]


def sacct_script(binaries: str | None, job_id: str) -> list[str]:
    """The script of a job that the controller has forgotten, where accounting keeps scripts."""
    return [*FOR_QUESTIONS, program(binaries, "sacct"), "--batch-script", f"--jobs={checked_job_id(job_id)}"]


def scancel(binaries: str | None, job_id: str) -> list[str]:
    """End a job; only when it is talkative does scancel say that there is none."""
    return [program(binaries, "scancel"), "--verbose", checked_job_id(job_id)]


def srun(binaries: str | None, job_id: str, command: str, directory: str) -> list[str]:
    """Run a shell's command line beside what the job does, on one of its nodes and in its directory. After
    ``ATTACH_SECONDS`` it goes on alone."""
    step = ["--overlap", "--nodes=1", "--ntasks=1", "--input=none", "--quiet", f"--chdir={directory}"]
    half_seconds = str(2 * ATTACH_SECONDS)
    srun = [program(binaries, "srun"), f"--jobid={checked_job_id(job_id)}", *step]
    return ["sh", "-c", _WAIT_A_LITTLE, "sh", half_seconds, *srun, "sh", "-c", _IN_THE_JOB, "sh", command]


def sacctmgr_accounts(binaries: str | None, user: str) -> Sequence[str]:
    """What a user's jobs may be charged to: default account and account, a line each."""
    return [
        *FOR_QUESTIONS,
        program(binaries, "sacctmgr"),
        "--noheader",
        "--parsable2",
        "show",
        "user",
        f"name={user}",
        "withassoc",
        "format=defaultaccount,account",
    ]
