"""Slurm's command lines, built from plain values. Pure: running them is somebody else's job, so is quoting."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stagecoach.core.errors import AccountRequired, InvalidRequest
from stagecoach.core.job_scripts import ONE_TASK, TaskLayout
from stagecoach.core.names import is_account_name
from stagecoach.ports.scheduler import JobRequest

# Times come as epoch seconds on every version, so nobody needs to know the login node's time zone. A user's own
# SQUEUE_* and SBATCH_* variables could hide our jobs or turn a submission into something else.
FOR_QUESTIONS = (
    "env",
    *(
        word
        for name in ("ACCOUNT", "LICENSES", "NAMES", "PARTITION", "QOS", "SORT", "STATES", "USERS")
        for word in ("-u", f"SQUEUE_{name}")
    ),
    "SLURM_TIME_FORMAT=%s",
)
FOR_SUBMITTING = (
    "env",
    *(
        word
        for name in (
            "SBATCH_ARRAY_INX",
            "SBATCH_WAIT",
            "SBATCH_WRAP",
            "SSH_CLIENT",
            "SSH_CONNECTION",
            "SSH_TTY",
            "SSH_AUTH_SOCK",
            "SSH_ORIGINAL_COMMAND",
        )
        for word in ("-u", name)
    ),
)
# The name stands last: it is the one field that may hold the separator.
QUEUE_FIELDS = (
    "JobArrayID",
    "State",
    "exit_code",
    "restartcnt",
    "UserName",
    "Account",
    "Partition",
    "NodeList",
    "SubmitTime",
    "StartTime",
    "EndTime",
    "Reason",
    "Name",
)
ACCOUNTING_FIELDS = (
    "JobIDRaw",
    "State",
    "ExitCode",
    "User",
    "Account",
    "Partition",
    "NodeList",
    "Submit",
    "Start",
    "End",
    "Reason",
    "JobName",
)
_ACCOUNT_OPTION = re.compile(r"(--account(=|$)|-A)")
_JOB_ID = re.compile(r"[0-9]{1,18}")
_JOB_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def program(binaries: str | None, name: str) -> str:
    """Where a Slurm command is."""
    return f"{binaries.rstrip('/')}/{name}" if binaries else name


def checked_job_id(job_id: str) -> str:
    """``job_id`` when it is one; Slurm would read ``9_1`` or ``1,2`` as other jobs. Raises InvalidRequest."""
    if not _JOB_ID.fullmatch(job_id):
        raise InvalidRequest(f"{job_id!r} is not a job id.")
    return job_id


def _checked_name(name: str) -> str:
    # squeue and sacct take a list of names, with commas.
    if not _JOB_NAME.fullmatch(name):
        raise InvalidRequest(f"{name!r} cannot be the name of a job.")
    return name


def log_pattern(path: str) -> str:
    """``path`` so that sbatch takes it literally: a backslash anywhere switches %-patterns off, else % is doubled."""
    return path.replace("\\", "\\\\") if "\\" in path else path.replace("%", "%%")


def filled_directives(directives: Sequence[str], account: str | None) -> list[str]:
    """The system's directives with ``{account}`` in its place; an account no directive speaks of gets its own option.

    Raises:
        InvalidRequest: the account holds what no account name holds.
        AccountRequired: a directive needs an account and none was given.
    """
    if account is not None and not is_account_name(account):
        raise InvalidRequest("The account may hold letters, digits, '_', '.' and '-', at most 64 of them.")
    if account is None and any("{account}" in directive for directive in directives):
        raise AccountRequired("This system needs an account: name the project that the staging job is charged to.")
    filled = [directive.replace("{account}", account or "") for directive in directives]
    if account is not None and not any(_ACCOUNT_OPTION.match(directive) for directive in directives):
        filled.append(f"--account={account}")
    return filled


def _layout_options(layout: TaskLayout) -> list[str]:
    """Nothing for one task: the site's own directives then say what a job is."""
    if layout.tasks == 1:
        return []
    return [f"--nodes={layout.nodes}", f"--ntasks={layout.tasks}", f"--ntasks-per-node={layout.tasks_per_node}"]


def sbatch(binaries: str | None, directives: Sequence[str], request: JobRequest) -> list[str]:
    """Submit. What we need stands after the site's directives, so that it wins.

    ``--export=ALL``: the environment is the one the user's own login gave this command (PATH, HOME, SLURM_CONF, the
    site's proxies); the service sends no variable of its own, and SSH's are taken out. NONE, and any list of names
    (NIL too on 22.05), makes slurmd log in as the user on the compute node first, which takes seconds and *holds* the
    job when it fails. Whether a requeue is allowed is left to the site.
    """
    for path in (request.script_path, request.directory, request.output_path, request.error_path):
        if not path.startswith("/") or "\0" in path:
            raise InvalidRequest("A staging job needs absolute paths.")
    return [
        *FOR_SUBMITTING,
        program(binaries, "sbatch"),
        "--export=ALL",
        *filled_directives(directives, request.account),
        *_layout_options(request.layout),
        "--parsable",
        *(["--hold"] if request.held else []),
        f"--job-name={_checked_name(request.name)}",
        f"--chdir={request.directory}",
        f"--output={log_pattern(request.output_path)}",
        f"--error={log_pattern(request.error_path)}",
        # After a requeue the log of the first run is what tells why.
        "--open-mode=append",
        request.script_path,
    ]


def sbatch_test(binaries: str | None, directives: Sequence[str], account: str | None, layout: TaskLayout = ONE_TASK) -> list[str]:
    """Have the controller look at the site's directives; no job is made."""
    return [
        *FOR_SUBMITTING,
        program(binaries, "sbatch"),
        "--export=ALL",
        *filled_directives(directives, account),
        *_layout_options(layout),
        "--test-only",
        "--wrap=true",
    ]


def squeue(binaries: str | None, *, job_ids: Sequence[str] = (), user: str | None = None, name: str | None = None) -> list[str]:
    """Jobs the controller has in memory, ended ones too. With one user it is asked for that user's jobs only."""
    return [
        *FOR_QUESTIONS,
        program(binaries, "squeue"),
        "--noheader",
        "--all",
        "--states=all",
        "--Format=" + ",".join(f"{field}:|" for field in QUEUE_FIELDS),
        *([f"--user={user}"] if user else []),
        *([f"--name={_checked_name(name)}"] if name else []),
        *(["--jobs=" + ",".join(map(checked_job_id, job_ids))] if job_ids else []),
    ]


def sacct(binaries: str | None, *, job_ids: Sequence[str] = (), user: str | None = None, name: str | None = None) -> list[str]:
    """What accounting knows: of ``job_ids`` ever, of a name in the last week. Duplicates too: ids are used again."""
    return [
        *FOR_QUESTIONS,
        program(binaries, "sacct"),
        "--noheader",
        "--parsable2",
        "--allocations",
        "--duplicates",
        "--format=" + ",".join(ACCOUNTING_FIELDS),
        *([f"--user={user}"] if user else ["--allusers"]),
        *([f"--name={_checked_name(name)}", "--starttime=now-7days"] if name else []),
        *(["--jobs=" + ",".join(map(checked_job_id, job_ids))] if job_ids else []),
    ]


def squeue_json(binaries: str | None, job_ids: Sequence[str]) -> list[str]:
    """The queue as JSON. Up to 22.05 ``--jobs`` is ignored: filter the answer."""
    ids = ",".join(map(checked_job_id, job_ids))
    return [*FOR_QUESTIONS, program(binaries, "squeue"), "--all", "--states=all", "--json", f"--jobs={ids}"]


def sacct_json(binaries: str | None, job_ids: Sequence[str]) -> list[str]:
    """Accounting as JSON; up to 22.05 every exit code in it is 0."""
    ids = ",".join(map(checked_job_id, job_ids))
    return [*FOR_QUESTIONS, program(binaries, "sacct"), "--duplicates", "--json", f"--jobs={ids}"]


def scontrol_show_job(binaries: str | None, job_id: str) -> list[str]:
    """One job, as text on one line: before 23.02 there is no --json; later that cannot tell "down" from "unknown"."""
    return [*FOR_QUESTIONS, program(binaries, "scontrol"), "--oneliner", "show", "job", checked_job_id(job_id)]


def scontrol_release(binaries: str | None, job_id: str) -> list[str]:
    """Let a held job run."""
    return [program(binaries, "scontrol"), "release", checked_job_id(job_id)]


def scancel(binaries: str | None, job_id: str) -> list[str]:
    """End a job."""
    return [program(binaries, "scancel"), checked_job_id(job_id)]


def scontrol_ping(binaries: str | None) -> list[str]:
    """Whether the controller answers."""
    return [program(binaries, "scontrol"), "ping"]


def scontrol_version(binaries: str | None) -> list[str]:
    """Which Slurm this is."""
    return [program(binaries, "scontrol"), "--version"]
