"""Begins an upload or a download: everything is looked at first, then made, and unmade when a step fails."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from stagecoach.core import names
from stagecoach.core.access import Caller
from stagecoach.core.errors import BucketMissing, InvalidRequest, SizeRefused, StagecoachError, StaleVersion
from stagecoach.core.parts import plan_parts
from stagecoach.core.transfer import Direction, State, Transfer, WaitPolicy, advance
from stagecoach.flows.clean_up import clean_up_now
from stagecoach.flows.look_at_files import End, look_at_source, look_at_target
from stagecoach.flows.sign_urls import sign_complete_url, sign_download_url, sign_part_urls
from stagecoach.flows.submit_job import (
    checked_account,
    choose_job_directory,
    prepare_job_directory,
    submit_job,
    waits_held,
)
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.flows.write_ticket import write_ticket

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BegunUpload:
    """What the client needs to put the parts."""

    transfer: Transfer
    part_urls: list[str]
    complete_url: str


@dataclass(frozen=True, slots=True)
class BegunDownload:
    """The URL holds from the moment the transfer is staged."""

    transfer: Transfer
    download_url: str


async def begin_upload(
    tools: Toolbox,
    caller: Caller,
    system_name: str,
    path: str,
    size_bytes: int,
    account: str | None = None,
    digests: Mapping[str, str] | None = None,
) -> BegunUpload:
    """Bucket, multipart, ticket and held job are made; the transfer is ``receiving``.

    Raises:
        InvalidRequest and below: nothing was made. Unavailable: nothing stays.
    """
    system = tools.system_for(caller.username, system_name)
    checked = checked_account(system, account)
    _check_size(system, size_bytes)
    plan_parts(size_bytes, tools.settings.s3.max_part_size_bytes, tools.settings.s3.min_part_size_bytes)
    await _check_open_transfers(tools, caller, system)
    target = await look_at_target(system, caller.username, path, size_bytes)
    transfer = _new_transfer(tools, caller, system, Direction.UPLOAD, target, checked, digests or {})
    transfer = await _make(tools, transfer, State.RECEIVING)
    numbers = list(transfer.plan.numbers())
    return BegunUpload(transfer, sign_part_urls(tools, transfer, numbers), sign_complete_url(tools, transfer))


async def begin_download(
    tools: Toolbox, caller: Caller, system_name: str, path: str, account: str | None = None
) -> BegunDownload:
    """Bucket, multipart, ticket and job are made; the transfer is ``queued``. Raises as :func:`begin_upload`."""
    system = tools.system_for(caller.username, system_name)
    checked = checked_account(system, account)
    await _check_open_transfers(tools, caller, system)
    source = await look_at_source(system, caller.username, path)
    _check_size(system, source.size_bytes)
    transfer = _new_transfer(tools, caller, system, Direction.DOWNLOAD, source, checked, {})
    transfer = await _make(tools, transfer, State.QUEUED)
    return BegunDownload(transfer, sign_download_url(tools, transfer))


def _check_size(system: System, size_bytes: int) -> None:
    limit = system.settings.limits.max_file_size_bytes
    if limit is not None and size_bytes > limit:
        raise SizeRefused(
            f"The file size of {size_bytes} bytes is above this system's limit of {limit} bytes.",
            data={"limit_bytes": limit},
        )


async def _check_open_transfers(tools: Toolbox, caller: Caller, system: System) -> None:
    limit = system.settings.limits.max_open_transfers_per_user
    if await tools.transfers.count_open(caller.username, system.settings.name) >= limit:
        raise InvalidRequest(
            f"You have {limit} transfers under way on this system, which is its limit; finish or cancel some first."
        )


def _new_transfer(
    tools: Toolbox,
    caller: Caller,
    system: System,
    direction: Direction,
    end: End,
    account: str | None,
    digests: Mapping[str, str],
) -> Transfer:
    now, transfer_id, s3 = tools.now(), tools.new_id(), tools.settings.s3
    plan = plan_parts(end.size_bytes, s3.max_part_size_bytes, s3.min_part_size_bytes)
    return Transfer(
        id=transfer_id,
        owner=caller.username,
        system=system.settings.name,
        direction=direction,
        path=end.path,
        real_path=end.real_path,
        size_bytes=end.size_bytes,
        part_size_bytes=plan.part_size_bytes,
        part_count=plan.part_count,
        bucket=names.bucket_name(s3.bucket_prefix, caller.username),
        job_name=names.job_name(transfer_id),
        created_at=now,
        updated_at=now,
        changed_at=now,
        wait=WaitPolicy(system.settings.wait),
        account=account,
        digests=digests,
        next_check_at=now + timedelta(seconds=tools.settings.worker.preparing_seconds),
    )


async def _make(tools: Toolbox, transfer: Transfer, ready: State) -> Transfer:
    """Make everything outside, noting each thing before or as it is made, so that the worker can always unmake it."""
    system = tools.system(transfer.system)
    directory = await choose_job_directory(system, transfer.owner, transfer.id)
    transfer = replace(transfer, job_directory=directory)
    await tools.transfers.add(transfer, f"{transfer.direction.value.capitalize()} of {transfer.size_bytes} bytes asked for.")
    later = transfer.next_check_at
    try:
        upload_id = await _open_multipart(tools, transfer)
        transfer = replace(transfer, upload_id=upload_id)
        await write_ticket(tools, transfer)
        await prepare_job_directory(tools, transfer)
        # From here on a job may exist, whatever becomes of this process: the row says so before the scheduler is asked.
        transfer = await tools.transfers.save(replace(transfer, submission_tried=True), next_check_at=later)
        transfer = await submit_job(tools, transfer, held=waits_held(transfer))
        return await _ready(tools, transfer, ready)
    except StagecoachError as error:
        await _abandon(tools, transfer, error)
        raise


async def _open_multipart(tools: Toolbox, transfer: Transfer) -> str:
    """In the user's bucket, which is made or brought up to today's rules; the store is asked only when need be."""
    fingerprint = tools.store.bucket_rules_fingerprint()
    key = names.object_key(transfer.id)
    if await tools.buckets.fingerprint(transfer.bucket) == fingerprint:
        try:
            return await tools.store.open_multipart(transfer.bucket, key)
        except BucketMissing:
            log.warning("bucket %s was removed by somebody else; it is made again", transfer.bucket)
    await tools.store.ensure_bucket(transfer.bucket)
    await tools.buckets.remember(transfer.bucket, transfer.owner, fingerprint, tools.now())
    return await tools.store.open_multipart(transfer.bucket, key)


async def _ready(tools: Toolbox, transfer: Transfer, ready: State) -> Transfer:
    now = tools.now()
    limits = tools.system(transfer.system).settings.limits
    made = advance(transfer, ready, now)
    if transfer.direction is Direction.UPLOAD:
        seconds = limits.upload_seconds if transfer.wait is WaitPolicy.HELD else limits.wait_in_job_seconds
        made = replace(made, expires_at=now + timedelta(seconds=seconds))
        held = "held until the object is whole" if waits_held(transfer) else "waiting for the object"
        message = f"Staging job {made.job_id} is {held}; waiting for {made.part_count} parts."
    else:
        # The store ends an incomplete upload then, so a job that starts later could not put its parts.
        days = tools.settings.s3.bucket_lifecycle_configuration.abort_incomplete_multipart_days
        made = replace(made, expires_at=now + timedelta(days=days))
        message = f"Staging job {made.job_id} is in the queue."
    saved = await tools.transfers.save(made, message, next_check_at=tools.soon(tools.settings.worker.poll_min_seconds))
    tools.nudge_worker()
    return saved


async def _abandon(tools: Toolbox, transfer: Transfer, error: StagecoachError) -> None:
    """The request fails: leave the row as failed with the reason, and take back what was made as far as it goes now."""
    for _ in range(5):
        now = tools.now()
        current = await tools.transfers.get(transfer.id)
        if current is None:
            return
        # What this request made and could not note down before; the time, because a late job is waited for from now.
        known = replace(current, upload_id=transfer.upload_id, job_id=transfer.job_id, cleaned=False, changed_at=now)
        is_ours = current.state is State.PREPARING
        left = advance(known, State.FAILED, now, code=error.code, reason=error.message) if is_ours else known
        try:
            # A cancel, or a worker that gave the request up, may have been first: then its word stays, and it cleans again.
            left = await tools.transfers.save(left, *([error.message] if is_ours else []), next_check_at=now)
        except StaleVersion:
            continue
        # What does not answer now would only make the caller wait twice; the worker cleans when it is back.
        if left.state.is_end and not error.retryable:
            await clean_up_now(tools, left)
        return
    log.warning("transfer %s: changed all the time while its request failed", transfer.id)
