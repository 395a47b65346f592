"""Takes back all that an ended transfer left outside: job, multipart, objects, temporary file, job directory.

Each step can be repeated. The job goes first, since a mover that still runs would make again what is removed under it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

from stagecoach.core import names
from stagecoach.core.errors import StagecoachError, StaleVersion, SystemNotFound
from stagecoach.core.job_scripts import ERROR_FILE, OUTPUT_FILE
from stagecoach.core.transfer import Direction, State, Transfer
from stagecoach.core.trying_again import Kept, kept_after
from stagecoach.flows.direct_road import close_receiver, discard_arrived, queue_discard
from stagecoach.flows.follow_leg import leg_is_gone
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.ports.scheduler import JobKey, JobReport

log = logging.getLogger(__name__)

# How long a job may still come to exist after its submission's answer was lost (a frozen controller that wakes up).
LATE_JOB_SECONDS = 120
CLEANING_LOOK_SECONDS = 2.0
# A job whose work is done and proved ends by itself.
ON_ITS_WAY_OUT_SECONDS = 60
MAX_LOG_BYTES = 16 * 1024
SYSTEM_AWAY_SECONDS = 24 * 3600
# A client's completion may have been on its way when its upload was aborted, and some stores let it win.
LAST_LOOK_SECONDS = 60.0


async def clean_up(tools: Toolbox, transfer: Transfer) -> Transfer:
    """One attempt. Returns the transfer with ``cleaned`` true when nothing is left, else as it was. Saves nothing."""
    try:
        job_ended = await end_job(tools, transfer)
    except StagecoachError:
        # A system that is gone, or that lets this user in no more, must not keep the user's data in the store.
        if tools.now() - transfer.changed_at > timedelta(seconds=SYSTEM_AWAY_SECONDS):
            await remove_staged_data(tools, transfer)
        raise
    if not job_ended:
        return transfer
    return await remove_leftovers(tools, transfer)


async def remove_leftovers(tools: Toolbox, transfer: Transfer) -> Transfer:
    """As :func:`clean_up`, for a transfer whose job is known to have ended."""
    # First its leg's end is written down, so that neither system waits for the other.
    is_alone = await leg_is_gone(tools, transfer)
    await remove_from_nodes(tools, transfer)
    await remove_staged_data(tools, transfer)
    removed = await remove_from_system(tools, transfer)
    waited = tools.now() - transfer.changed_at
    if transfer.submission_tried and transfer.job_id is None and waited < timedelta(seconds=LATE_JOB_SECONDS):
        return transfer
    return replace(removed, cleaned=is_alone)


async def clean_up_now(tools: Toolbox, transfer: Transfer) -> Transfer:
    """One attempt whose failure is only logged: the worker goes on with it."""
    try:
        cleaned = await clean_up(tools, transfer)
        if cleaned.cleaned:
            seconds = seconds_until_last_look(cleaned)
            return await tools.transfers.save(cleaned, next_check_at=None if seconds is None else tools.soon(seconds))
    except StaleVersion:
        log.info("transfer %s: another process is cleaning up", transfer.id)
    except StagecoachError as error:
        log.warning("transfer %s: cleaning up will be tried again: %s", transfer.id, error.message)
    return transfer


def seconds_until_last_look(transfer: Transfer) -> float | None:
    """When a cleaned transfer's staged data is looked for once more; None: never."""
    could_complete_late = transfer.direction is Direction.UPLOAD and not transfer.is_relay and transfer.state is not State.DONE
    return LAST_LOOK_SECONDS if could_complete_late else None


async def end_job(tools: Toolbox, transfer: Transfer) -> bool:
    """Whether no job of this transfer can run any more. Asks the scheduler to cancel what still can."""
    if not transfer.submission_tried or (transfer.state is State.DONE and transfer.job_ended):
        return True
    scheduler = _system(tools, transfer).scheduler
    open_jobs = [job for job in await _jobs(tools, transfer) if not job.phase.is_final]
    if not open_jobs:
        return True
    if transfer.state is State.DONE and tools.now() - transfer.changed_at < timedelta(seconds=ON_ITS_WAY_OUT_SECONDS):
        return False
    for job in open_jobs:
        await scheduler.cancel(transfer.owner, job.job_id)
    return all(job.phase.is_final for job in await _jobs(tools, transfer))


async def remove_staged_data(tools: Toolbox, transfer: Transfer) -> None:
    """No multipart and no object of this transfer is left in the store."""
    if transfer.operation is not None or (transfer.is_direct and transfer.road_reason is None):
        return  # it had nothing there, and was not about to have
    key = names.object_key(transfer.id)
    upload_ids = set(await tools.store.find_multiparts(transfer.bucket, key))
    if transfer.upload_id:
        upload_ids.add(transfer.upload_id)
    for upload_id in sorted(upload_ids):
        await tools.store.abort_multipart(transfer.bucket, key, upload_id)
    await tools.store.delete_objects(transfer.bucket, names.all_keys(transfer.id))


async def remove_from_nodes(tools: Toolbox, transfer: Transfer) -> None:
    """Nothing hidden of it stays on a node, and no folder is open there: its agent sees to that, when it is back if it is away.

    What a job that is cancelled has made its agent removes by itself; what a failed one has left it keeps for a retry.
    """
    if transfer.is_direct and transfer.is_relay:
        if transfer.state is State.DONE:
            await close_receiver(tools, transfer)
        else:
            leg = await tools.transfers.get(transfer.source_transfer_id or "")
            await discard_arrived(tools, transfer, leg.attempt if leg is not None else 0)
        return
    was_kept = transfer.state is State.FAILED and kept_after(transfer, transfer.code) is Kept.ALL
    if transfer.is_on_node and not transfer.is_direct and transfer.job_id is not None and was_kept:
        await queue_discard(tools, transfer, str(transfer.attempt), None)


async def remove_from_system(tools: Toolbox, transfer: Transfer) -> Transfer:
    """No temporary file (or directory) and no job directory is left; the tail of the job's log is kept in the row."""
    if transfer.job_directory is None:
        return transfer
    files = _system(tools, transfer).files
    if transfer.hidden_path is not None:
        # A directory where an archive was unpacked, or where its owner made one in the hidden file's place.
        await files.remove_tree(transfer.owner, transfer.hidden_path)
    kept = await keep_job_log(tools, transfer)
    await files.remove_tree(transfer.owner, transfer.job_directory)
    return kept


async def keep_job_log(tools: Toolbox, transfer: Transfer) -> Transfer:
    """The transfer with what its job printed, at most 16 KiB of each stream."""
    if transfer.job_log is not None or transfer.job_id is None or transfer.job_directory is None:
        return transfer
    files = _system(tools, transfer).files
    pieces = []
    for name in (OUTPUT_FILE, ERROR_FILE):
        try:
            content = await files.read_file(transfer.owner, f"{transfer.job_directory}/{name}", MAX_LOG_BYTES)
        except StagecoachError as error:
            # The owner may have put anything at its place (a pipe, a directory); a log is not worth a stuck transfer.
            if error.retryable:
                raise
            content = None
        if content:
            pieces.append(content.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}"))
    return replace(transfer, job_log="".join(pieces))


async def _jobs(tools: Toolbox, transfer: Transfer) -> list[JobReport]:
    scheduler = _system(tools, transfer).scheduler
    if transfer.job_id is not None:
        reports = await scheduler.reports([JobKey(transfer.job_id, transfer.job_name, transfer.owner)])
        if reports:
            return list(reports.values())
    # "No such job" is believed of a controller that answers (one that is away may say it too), and when it is said to
    # the job's owner, from whom nothing is hidden.
    await scheduler.ping(transfer.owner)
    return await scheduler.find(transfer.owner, transfer.job_name)


def _system(tools: Toolbox, transfer: Transfer) -> System:
    try:
        return tools.system(transfer.system)
    except SystemNotFound as error:
        raise StagecoachError(f"System {transfer.system} is no longer configured; its leftovers stay until it is.") from error
