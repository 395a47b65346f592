"""Puts the staging job on the system: its directory, its script, its submission, once."""

from __future__ import annotations

import posixpath
from dataclasses import replace

from stagecoach.core import job_scripts
from stagecoach.core.errors import AccountRequired, InvalidRequest, PathRefused, SubmissionUncertain, SystemUnavailable
from stagecoach.core.job_scripts import ONE_TASK, TaskLayout
from stagecoach.core.names import is_account_name
from stagecoach.core.transfer import Direction, Transfer, WaitPolicy
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.flows.write_ticket import write_ticket_url
from stagecoach.ports.scheduler import JobPhase, JobRequest


def checked_account(system: System, account: str | None) -> str | None:
    """``account`` when it is a plausible account name; "" means none.

    Raises:
        AccountRequired: the system's directives need one.
        InvalidRequest: it holds characters that no account has.
    """
    if not account:
        if system.settings.needs_account:
            raise AccountRequired("Account parameter is required on this system.")
        return None
    if not is_account_name(account):
        raise InvalidRequest("The account may hold letters, digits, '_', '.' and '-' only, 64 at most.")
    return account


async def choose_job_directory(system: System, username: str, transfer_id: str) -> str:
    """Where this transfer's job will keep its files, on a cluster. Nothing is made."""
    pattern = system.settings.work_directory
    home = await system.files.home(username) if "{home}" in pattern else ""
    base = pattern.replace("{home}", home).replace("{user}", username)
    if not base.startswith("/") or any(ord(character) < 32 for character in base):
        raise PathRefused("The system's work_directory is not an absolute path for this user; tell the administrators.")
    return posixpath.join(base, transfer_id)


async def job_directory_of(system: System, username: str, transfer_id: str) -> str | None:
    """As :func:`choose_job_directory`; None on a node, whose agent sees to that itself."""
    return None if system.node_id is not None else await choose_job_directory(system, username, transfer_id)


def task_layout(system: System, transfer: Transfer) -> TaskLayout:
    """How many tasks move this transfer: several only where the system says so, for a file above its size.

    A directory is one stream, which is made and unpacked by one task.
    """
    parallel, size_bytes = system.settings.parallel, transfer.size_bytes
    if (
        parallel is None
        or transfer.operation is not None
        or transfer.archive is not None
        or size_bytes is None
        or size_bytes <= parallel.above_bytes
    ):
        return ONE_TASK
    return parallel.layout


async def prepare_job_directory(tools: Toolbox, transfer: Transfer) -> None:
    """Directory, mover, script and ticket URL are in place. Repeating it is fine. A node's agent has all that it needs."""
    if transfer.is_on_node:
        return
    system = tools.system(transfer.system)
    directory, owner = transfer.job_directory or "", transfer.owner
    kind = "operate" if transfer.operation is not None else "fetch" if transfer.direction is Direction.UPLOAD else "put"
    script = job_scripts.job_script(
        kind,
        directory,
        system.settings.python,
        system.settings.environment,
        several_tasks=task_layout(system, transfer).tasks > 1,
        srun=posixpath.join(system.settings.scheduler.binaries or "", "srun"),
    )
    await system.files.make_directory(owner, directory)
    await system.files.write_file(owner, f"{directory}/{job_scripts.MOVER_FILE}", tools.mover_source, 0o600)
    await system.files.write_file(owner, f"{directory}/{job_scripts.SCRIPT_FILE}", script, 0o700)
    if transfer.operation is not None:
        for name, source in tools.operation_sources.items():
            await system.files.write_file(owner, f"{directory}/{name}", source, 0o600)
    await write_ticket_url(tools, transfer)


async def submit_job(tools: Toolbox, transfer: Transfer, *, held: bool) -> Transfer:
    """Submit, or find the job that an earlier submission with a lost answer made. Saves nothing.

    Raises:
        SubmissionRefused, SubmissionUncertain, SystemUnavailable
    """
    system = tools.system(transfer.system)
    directory = transfer.job_directory or ""
    request = JobRequest(
        name=transfer.job_name,
        # What is in a job's directory means nothing to a node, which has none.
        script_path=f"{directory}/{job_scripts.SCRIPT_FILE}",
        directory=directory,
        output_path=f"{directory}/{job_scripts.OUTPUT_FILE}",
        error_path=f"{directory}/{job_scripts.ERROR_FILE}",
        held=held,
        account=transfer.account,
        layout=task_layout(system, transfer),
    )
    try:
        job_id = await system.scheduler.submit(transfer.owner, request)
    except SubmissionUncertain as uncertain:
        try:
            jobs = await system.scheduler.find(transfer.owner, transfer.job_name)
        except SystemUnavailable:
            raise uncertain from None
        found = [job for job in jobs if not job.phase.is_final or job.phase is JobPhase.COMPLETED]
        if not found:
            raise
        job_id = found[0].job_id
    return replace(transfer, job_id=job_id, restarts=0)


def waits_held(transfer: Transfer) -> bool:
    """Whether the job is submitted held: uploads, unless the site's jobs wait by themselves; and what a node sends straight to
    another, which has to open its folder first."""
    if transfer.is_direct:
        return transfer.direction is Direction.DOWNLOAD
    return transfer.direction is Direction.UPLOAD and transfer.wait is WaitPolicy.HELD
