"""Begins an upload or a download: everything is looked at first, then made, and unmade when a step fails."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from stagecoach.core import names
from stagecoach.core.access import Caller
from stagecoach.core.digests import PartDigests, with_digests
from stagecoach.core.errors import BucketMissing, Conflict, NotFound, RequestUnderWay, SizeRefused, StagecoachError
from stagecoach.core.parts import offer_parts, plan_parts
from stagecoach.core.state_machine import Event, advance
from stagecoach.core.transfer import Archive, Direction, State, Transfer, WaitPolicy
from stagecoach.core.webhooks import webhook_target
from stagecoach.flows.abandon_request import abandon_request
from stagecoach.flows.answer_again import RepeatableRequest, find_begun
from stagecoach.flows.check_bounds import bounds_of, check_bounds
from stagecoach.flows.choose_system import find_destination, find_source, granted
from stagecoach.flows.direct_road import open_receiver
from stagecoach.flows.look_at_ends import look_at_destination, look_at_origin
from stagecoach.flows.look_at_files import (
    End,
)
from stagecoach.flows.sign_urls import sign_complete_url, sign_download_url, sign_part_urls
from stagecoach.flows.submit_job import (
    checked_account,
    job_directory_of,
    prepare_job_directory,
    submit_job,
    waits_held,
)
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.flows.write_ticket import write_ticket

log = logging.getLogger(__name__)

TAR_BLOCK_BYTES = 512


@dataclass(frozen=True, slots=True)
class BegunUpload:
    """What the client needs to put the parts. ``is_repeated``: it was begun by an earlier request with the same key."""

    transfer: Transfer
    part_urls: list[str]
    complete_url: str
    """Both empty when the transfer takes no parts any more."""
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class BegunDownload:
    """The URL holds from the moment the transfer is staged; it is empty when the transfer has ended."""

    transfer: Transfer
    download_url: str
    is_repeated: bool = False


async def begin_upload(
    tools: Toolbox,
    caller: Caller,
    system_name: str,
    path: str,
    size_bytes: int,
    account: str | None = None,
    digests: Mapping[str, str] | None = None,
    archive: Archive | None = None,
    part_digests: PartDigests | None = None,
    webhook_url: str | None = None,
    repeatable: RepeatableRequest | None = None,
) -> BegunUpload:
    """Bucket, multipart, ticket and held job are made; the transfer is ``receiving``.

    With ``archive`` what comes is a tar stream of ``size_bytes``, and ``path`` the directory that is made of it.

    Raises:
        InvalidRequest and below: nothing was made. Unavailable: nothing stays. RequestUnderWay: the same request came
            before and is being carried out.
    """
    system = await find_destination(tools, caller, system_name)
    if (earlier := await find_begun(tools, caller, repeatable)) is not None:
        return _upload_again(tools, earlier)
    checked = checked_account(system, account)
    check_size(system, size_bytes)
    plan_parts(size_bytes, tools.settings.s3.max_part_size_bytes, tools.settings.s3.min_part_size_bytes)
    await check_bounds(tools, caller, system, size_bytes, repeatable)
    if archive is not None:
        _check_archive_size(size_bytes)
    check_webhook(tools, webhook_url)
    target = await look_at_destination(system, caller.username, path, size_bytes, archive)
    transfer = new_transfer(tools, caller, system, Direction.UPLOAD, target, checked, archive, webhook_url)
    transfer = with_digests(transfer, digests or {}, part_digests or {})
    try:
        async with granted(tools, caller, system, target.real_path, size_bytes):
            transfer = await _make(tools, transfer, repeatable)
    except RequestUnderWay:
        # Both found nothing, and the other was first.
        if (earlier := await find_begun(tools, caller, repeatable)) is None:
            raise
        return _upload_again(tools, earlier)
    return _upload(tools, transfer)


async def begin_download(
    tools: Toolbox,
    caller: Caller,
    system_name: str,
    path: str,
    account: str | None = None,
    archive: Archive | None = None,
    webhook_url: str | None = None,
    repeatable: RepeatableRequest | None = None,
) -> BegunDownload:
    """Bucket, multipart, ticket and job are made; the transfer is ``queued``. Raises as :func:`begin_upload`.

    With ``archive`` the path is a directory's; how large its archive will be is known when the job has measured it.
    """
    system = await find_source(tools, caller, system_name)
    if (earlier := await find_begun(tools, caller, repeatable)) is not None:
        return _download_again(tools, earlier)
    checked = checked_account(system, account)
    await check_bounds(tools, caller, system, None, repeatable)
    check_webhook(tools, webhook_url)
    source = await look_at_origin(system, caller.username, path, archive)
    if source.size_bytes is not None:
        check_size(system, source.size_bytes)
    transfer = new_transfer(tools, caller, system, Direction.DOWNLOAD, source, checked, archive, webhook_url)
    try:
        transfer = await _make(tools, transfer, repeatable)
    except RequestUnderWay:
        if (earlier := await find_begun(tools, caller, repeatable)) is None:
            raise
        return _download_again(tools, earlier)
    return BegunDownload(transfer, sign_download_url(tools, transfer))


def _upload(tools: Toolbox, transfer: Transfer) -> BegunUpload:
    numbers = list(transfer.plan.numbers())
    return BegunUpload(transfer, sign_part_urls(tools, transfer, numbers), sign_complete_url(tools, transfer))


def _upload_again(tools: Toolbox, transfer: Transfer) -> BegunUpload:
    if transfer.state is not State.RECEIVING:
        return BegunUpload(transfer, [], "", is_repeated=True)
    return replace(_upload(tools, transfer), is_repeated=True)


def _download_again(tools: Toolbox, transfer: Transfer) -> BegunDownload:
    is_over = transfer.state.is_end or transfer.state is State.CANCELLING
    return BegunDownload(transfer, "" if is_over else sign_download_url(tools, transfer), is_repeated=True)


def check_webhook(tools: Toolbox, url: str | None) -> None:
    """Raises WebhookRefused."""
    if url is not None:
        webhooks = tools.settings.webhooks
        webhook_target(url, webhooks.allowed_hosts, allow_http=webhooks.allow_http)


def check_size(system: System, size_bytes: int) -> None:
    """Raises SizeRefused: above the system's limit."""
    limit = system.settings.limits.max_file_size_bytes
    if limit is not None and size_bytes > limit:
        raise SizeRefused(
            f"The file size of {size_bytes} bytes is above this system's limit of {limit} bytes.",
            data={"limit_bytes": limit},
        )


def _check_archive_size(size_bytes: int) -> None:
    if size_bytes < 2 * TAR_BLOCK_BYTES or size_bytes % TAR_BLOCK_BYTES:
        raise SizeRefused(
            f"No tar stream has {size_bytes} bytes: it is made of blocks of {TAR_BLOCK_BYTES}, two at least. "
            "Send it as it is, not compressed."
        )


def new_transfer(
    tools: Toolbox,
    caller: Caller,
    system: System,
    direction: Direction,
    end: End,
    account: str | None,
    archive: Archive | None,
    webhook_url: str | None,
) -> Transfer:
    """``preparing``. Nothing is made and nothing saved. Raises SizeRefused."""
    now, transfer_id, s3 = tools.now(), tools.new_id(), tools.settings.s3
    if end.size_bytes is None:
        offer = offer_parts(system.settings.limits.max_file_size_bytes, s3.max_part_size_bytes, s3.min_part_size_bytes)
        part_size_bytes, part_count = offer.part_size_bytes, offer.part_count
    else:
        plan = plan_parts(end.size_bytes, s3.max_part_size_bytes, s3.min_part_size_bytes)
        part_size_bytes, part_count = plan.part_size_bytes, plan.part_count
    return Transfer(
        id=transfer_id,
        owner=caller.username,
        system=system.settings.name,
        direction=direction,
        path=end.path,
        real_path=end.real_path,
        size_bytes=end.size_bytes,
        part_size_bytes=part_size_bytes,
        part_count=part_count,
        bucket=names.bucket_name(s3.bucket_prefix, caller.username),
        job_name=names.job_name(transfer_id),
        created_at=now,
        updated_at=now,
        changed_at=now,
        wait=WaitPolicy(system.settings.wait),
        archive=archive,
        account=account,
        webhook_url=webhook_url,
        next_check_at=now + timedelta(seconds=tools.settings.worker.preparing_seconds),
    )


async def _make(tools: Toolbox, transfer: Transfer, repeatable: RepeatableRequest | None) -> Transfer:
    """Make everything outside, noting each thing before or as it is made, so that the worker can always unmake it."""
    if repeatable is not None:
        transfer = replace(transfer, idempotency_key=repeatable.idempotency_key, request_digest=repeatable.digest)
    system = tools.system(transfer.system)
    transfer = replace(transfer, job_directory=await job_directory_of(system, transfer.owner, transfer.id))
    size = "" if transfer.size_bytes is None else f" of {transfer.size_bytes} bytes"
    asked = f"{transfer.direction.value.capitalize()} of a {transfer.what}{size} asked for."
    await tools.transfers.add(transfer, asked, bounds_of(tools, system))
    return await make_outside(tools, transfer)


async def make_outside(tools: Toolbox, transfer: Transfer) -> Transfer:
    """Multipart, ticket and job of a row that is ``preparing``; all is taken back when a step fails."""
    later = transfer.next_check_at
    try:
        if transfer.is_direct:
            await open_receiver(tools, transfer)
        else:
            transfer = await _make_staged(tools, transfer)
        # From here on a job may exist, whatever becomes of this process: the row says so before the scheduler is asked.
        transfer = await tools.transfers.save(replace(transfer, submission_tried=True), next_check_at=later)
        transfer = await submit_job(tools, transfer, held=waits_held(transfer))
        return await _ready(tools, transfer)
    except StagecoachError as error:
        found = await abandon_request(tools, transfer, error)
        if found in {State.CANCELLING, State.CANCELLED} and isinstance(error, NotFound | Conflict):
            # It stumbled over what the cancel had changed or removed under it.
            raise Conflict("The transfer was cancelled while it was being prepared.") from error
        raise


async def _make_staged(tools: Toolbox, transfer: Transfer) -> Transfer:
    transfer = replace(transfer, upload_id=await open_multipart(tools, transfer))
    transfer = await write_ticket(tools, transfer)
    await prepare_job_directory(tools, transfer)
    return transfer


async def open_multipart(tools: Toolbox, transfer: Transfer) -> str:
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


async def _ready(tools: Toolbox, transfer: Transfer) -> Transfer:
    now = tools.now()
    limits = tools.system(transfer.system).settings.limits
    made = advance(transfer, Event.PREPARED, now)
    if transfer.direction is Direction.UPLOAD:
        seconds = limits.upload_seconds if transfer.wait is WaitPolicy.HELD else limits.wait_in_job_seconds
        made = replace(made, expires_at=now + timedelta(seconds=seconds))
        parts = "1 part" if made.part_count == 1 else f"{made.part_count} parts"
        held = "is held until the upload is complete" if waits_held(transfer) else "waits for the upload"
        message = f"Ready for {parts}; staging job {made.job_id} {held}."
    else:
        # The store ends an incomplete upload then, so a job that starts later could not put its parts.
        days = tools.settings.s3.bucket_lifecycle_configuration.abort_incomplete_multipart_days
        made = replace(made, expires_at=now + timedelta(days=days))
        message = f"Staging job {made.job_id} is in the scheduler's queue; it will bring the {made.what} to the staging area."
        if made.is_direct:
            message = f"The sending node sends the {made.what} as soon as the receiving one has opened its folder."
    saved = await tools.transfers.save(made, message, next_check_at=tools.soon(tools.settings.worker.poll_min_seconds))
    tools.nudge_worker()
    return saved
