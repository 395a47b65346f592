"""Users' own jobs: submitted, shown, cancelled, and commands run in them, as the user; and the jobs of their transfers.

A transfer's staging job answers from the transfer (docs/decisions/0006), every other from the scheduler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from stagecoach.core.access import Caller, Scope
from stagecoach.core.errors import FileMissing, JobNotFound, NotADirectory, PathRefused, SystemUnavailable
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.show_transfers import show_job as show_staging_job
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.ports.compute import JobDescription, JobPapers, SeenJob, WantedJobs, job_not_found
from stagecoach.ports.files import FileKind

# FirecREST's client takes an answer other than 200 and "Job not found" for no change at all, and fails where it is the
# first: a controller that is started anew just then is waited for.
PATIENCE_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.5
# Schedulers use ids again, after a loss of their memory: a job that bears the id of a transfer's that ended long ago.
ENDED_LONG_AGO = timedelta(days=1)

Answer = TypeVar("Answer")


async def list_jobs(tools: Toolbox, caller: Caller, system_name: str, wanted: WantedJobs) -> Sequence[SeenJob]:
    """Raises SystemNotFound, PermissionRefused, SystemUnavailable."""
    system, username = tools.system_for(caller.username, system_name), caller.username
    return await tools.asked.ask(system_name, username, wanted, lambda: _list(system, username, wanted))


async def _list(system: System, username: str, wanted: WantedJobs) -> Sequence[SeenJob]:
    return await system.compute.list_jobs(username, wanted)


async def show_job(
    tools: Toolbox, caller: Caller, system_name: str, job_id: str, *, of_everyone: bool
) -> Transfer | Sequence[SeenJob]:
    """The transfer whose staging job this is, or what the scheduler says.

    Raises:
        JobNotFound, SystemNotFound, PermissionRefused, SystemUnavailable
    """
    transfer = await _transfer_of(tools, caller, system_name, job_id)
    if transfer is not None and not _ended_long_ago(tools, transfer):
        return transfer
    if not caller.holds(Scope.JOBS_READ):
        if transfer is None:
            raise job_not_found()
        return transfer
    try:
        jobs = await _ask_for_job(tools, caller, system_name, job_id, of_everyone)
    except (JobNotFound, SystemUnavailable):
        if transfer is None:
            raise
        return transfer
    return transfer if transfer is not None and jobs[0].report.name == transfer.job_name else jobs


async def _ask_for_job(tools: Toolbox, caller: Caller, system_name: str, job_id: str, of_everyone: bool) -> Sequence[SeenJob]:
    system, username = tools.system_for(caller.username, system_name), caller.username

    async def ask() -> Sequence[SeenJob]:
        return await _patiently(lambda: system.compute.show_job(username, job_id, of_everyone=of_everyone))

    return await tools.asked.ask(system_name, username, ("job", job_id, of_everyone), ask)


async def show_papers(tools: Toolbox, caller: Caller, system_name: str, job_id: str) -> JobPapers:
    """The script and streams of a job of the caller's own. Raises as :func:`show_job`."""
    system, username = tools.system_for(caller.username, system_name), caller.username

    async def ask() -> JobPapers:
        return await system.compute.show_papers(username, job_id)

    return await tools.asked.ask(system_name, username, ("papers", job_id), ask)


async def submit_job(tools: Toolbox, caller: Caller, system_name: str, job: JobDescription) -> str:
    """The id of the new job.

    No file system of the settings bounds it: what runs in a job reads and writes what the user may, wherever that is.

    Raises:
        PathRefused, FileMissing, NotADirectory: the directory is none; the scheduler would take another, silently.
        InvalidRequest, SubmissionRefused, SystemNotFound, PermissionRefused, SystemUnavailable
    """
    system = tools.system_for(caller.username, system_name)
    for path in filter(None, (job.directory, job.script_path)):
        if not path.startswith("/"):
            raise PathRefused(f"{path!r} must be an absolute path.")
    status = await system.files.status(caller.username, job.directory, follow_symlinks=True)
    if status is None:
        raise FileMissing(f"The working directory {job.directory!r}: No such file or directory.")
    if status.kind is not FileKind.DIRECTORY:
        raise NotADirectory(f"The working directory {job.directory!r} is not a directory.")
    try:
        return await system.compute.submit(caller.username, job)
    finally:
        tools.asked.forget(system_name, caller.username)


async def cancel_job(tools: Toolbox, caller: Caller, system_name: str, job_id: str) -> Transfer | None:
    """End a job. A transfer's is ended with its transfer, which is returned; one that is through is left as it is.

    Raises:
        JobNotFound, SystemNotFound, PermissionRefused, SystemUnavailable
    """
    transfer = await _transfer_of(tools, caller, system_name, job_id)
    if transfer is not None and not _ended_long_ago(tools, transfer):
        if not caller.holds(Scope.TRANSFERS_WRITE):
            raise job_not_found()
        is_through = transfer.state.is_end or transfer.state is State.STAGED
        return transfer if is_through else await cancel_transfer(tools, caller, transfer.id)
    if not caller.holds(Scope.JOBS_WRITE):
        raise job_not_found()
    system = tools.system_for(caller.username, system_name)
    try:
        await system.compute.cancel(caller.username, job_id)
    finally:
        tools.asked.forget(system_name, caller.username)
    return None


async def attach_to_job(tools: Toolbox, caller: Caller, system_name: str, job_id: str, command: str) -> None:
    """Run ``command`` in the job. Raises as the port's ``attach``, SystemNotFound."""
    system = tools.system_for(caller.username, system_name)
    await system.compute.attach(caller.username, job_id, command)


async def _transfer_of(tools: Toolbox, caller: Caller, system_name: str, job_id: str) -> Transfer | None:
    try:
        return await show_staging_job(tools, caller, system_name, job_id)
    except JobNotFound:
        return None


def _ended_long_ago(tools: Toolbox, transfer: Transfer) -> bool:
    return transfer.ended_at is not None and tools.now() - transfer.ended_at > ENDED_LONG_AGO


async def _patiently(question: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
    """Asked again while the scheduler does not answer, for ``PATIENCE_SECONDS``."""
    loop = asyncio.get_running_loop()
    give_up_at, pause = loop.time() + PATIENCE_SECONDS, FIRST_PAUSE_SECONDS
    while True:
        try:
            return await question()
        except SystemUnavailable:
            if loop.time() + pause > give_up_at:
                raise
        await asyncio.sleep(pause)
        pause *= 2
