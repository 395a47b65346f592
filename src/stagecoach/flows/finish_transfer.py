"""The client's word that its side is through: an upload's parts are put, or a download has been fetched."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from stagecoach.core import names
from stagecoach.core.access import Caller
from stagecoach.core.digests import PartDigests, differing_parts, is_md5, with_digests
from stagecoach.core.errors import Conflict, PartsDiffer, PartsMissing, StaleVersion
from stagecoach.core.parts import multipart_etag
from stagecoach.core.relays import require_no_leg
from stagecoach.core.state_machine import Event, advance
from stagecoach.core.transfer import Direction, State, Transfer, WaitPolicy
from stagecoach.flows.receive_object import receive_object
from stagecoach.flows.show_transfers import show_own_transfer
from stagecoach.flows.sign_urls import sign_complete_url, sign_part_urls
from stagecoach.flows.toolbox import Toolbox
from stagecoach.ports.object_store import StoredPart

MAX_TICKET_BYTES = 16 * 1024 * 1024

_ENDS_BY_ITSELF = "This is an operation on files within the system; it has no parts, and ends by itself."


@dataclass(frozen=True, slots=True)
class PartsReport:
    """What the store holds of an upload, and URLs for what it does not."""

    transfer: Transfer
    stored: list[StoredPart]
    missing_urls: dict[int, str]
    complete_url: str


async def list_parts(tools: Toolbox, caller: Caller, transfer_id: str) -> PartsReport:
    """What is there, and fresh URLs for what is missing, has the wrong size or is not what the client said it is.

    Raises:
        TransferNotFound; PermissionRefused: it is somebody else's. Conflict: not an upload that is being received.
    """
    transfer = await show_own_transfer(tools, caller, transfer_id)
    _require_receiving(transfer)
    stored = await _open_parts(tools, transfer)
    if stored is None:
        raise Conflict("The upload is already complete.", data={"state": transfer.state.value})
    missing = sorted({*_missing(transfer, stored), *await _differing(tools, transfer, stored)})
    urls = dict(zip(missing, sign_part_urls(tools, transfer, missing), strict=True))
    return PartsReport(transfer, stored, urls, sign_complete_url(tools, transfer))


async def finish_transfer(
    tools: Toolbox,
    caller: Caller,
    transfer_id: str,
    digests: Mapping[str, str] | None = None,
    etag: str | None = None,
    part_digests: PartDigests | None = None,
) -> Transfer:
    """Upload: completes the multipart unless the client has, and lets the staging job go. Download: the object may go.

    Calling it again is fine. ``etag`` is what the store answered to the completion: stores that do not keep it
    (``rclone serve s3``) leave the mover nothing else to prove the object by.

    Raises:
        TransferNotFound; PermissionRefused: it is somebody else's. PartsMissing and PartsDiffer, with the numbers;
            DigestRefused; Conflict: the state does not allow it. Nothing has changed then, and what is wrong can be put again.
    """
    for _ in range(10):
        transfer = await show_own_transfer(tools, caller, transfer_id)
        require_no_leg(transfer)
        try:
            _require_client(transfer)
            if transfer.operation is not None:
                raise Conflict(_ENDS_BY_ITSELF, data={"state": transfer.state.value})
            if transfer.direction is Direction.DOWNLOAD:
                return await _finish_download(tools, transfer)
            return await _finish_upload(tools, transfer, with_digests(transfer, digests or {}, part_digests or {}), etag)
        except StaleVersion:
            # The worker sees the object at the same moment; look again at what became of it.
            continue
    raise StaleVersion("The transfer changes all the time; try again.")


async def _finish_upload(tools: Toolbox, transfer: Transfer, said: Transfer, etag: str | None) -> Transfer:
    """``said`` is the transfer with the digests that came just now."""
    if transfer.state in {State.STAGED, State.QUEUED, State.MOVING, State.DONE}:
        if said != transfer:
            raise Conflict(
                f"The upload is {transfer.state}, so its digest comes too late to be compared; give it with the request "
                "that begins the upload, or with this one before the upload is completed.",
                data={"state": transfer.state.value},
            )
        return transfer
    _require_receiving(transfer)
    if transfer.wait is WaitPolicy.IN_JOB and said != transfer:
        raise Conflict(
            "On this system the staging job itself waits for the object, and has read its ticket, so a digest comes too late "
            "to be compared; give it with the request that begins the upload.",
            data={"state": transfer.state.value},
        )
    has_news, transfer = said != transfer, said
    key = names.object_key(transfer.id)
    if await tools.store.head_object(transfer.bucket, key) is None and (stored := await _open_parts(tools, transfer)) is not None:
        missing = _missing(transfer, stored)
        if missing:
            raise PartsMissing(
                f"{len(missing)} of {transfer.part_count} parts are missing or have the wrong size; put them and try again.",
                data={"missing": missing[:100], "missing_count": len(missing)},
            )
        differing = await _differing(tools, transfer, stored)
        if differing:
            raise PartsDiffer(
                f"{len(differing)} of {transfer.part_count} parts in the staging area are not what their MD5 says "
                f"({', '.join(map(str, differing[:10]))}{', …' if len(differing) > 10 else ''}); put them again and try again.",
                data={"differing": differing[:100], "differing_count": len(differing)},
            )
        if has_news:
            # Kept before: the worker may see the whole object first, and goes on with what the row says.
            transfer = await tools.transfers.save(transfer, next_check_at=tools.now())
        await tools.store.complete_multipart(transfer.bucket, key, transfer.upload_id or "", stored)
        etag = multipart_etag([part.etag for part in stored])
    received = await receive_object(tools, transfer, said_etag=etag)
    if received is None:
        raise Conflict("The store does not show the completed object yet; try again in a moment.")
    saved = await tools.transfers.save(received.transfer, received.message, next_check_at=tools.now())
    tools.nudge_worker()
    return saved


async def _finish_download(tools: Toolbox, transfer: Transfer) -> Transfer:
    if transfer.state is State.DONE:
        return transfer
    if transfer.state is not State.STAGED:
        raise Conflict(
            f"The download is {transfer.state}; it can be finished when it is staged.",
            data={"state": transfer.state.value},
        )
    done = advance(transfer, Event.FETCHED, tools.now(), reason="The download was fetched.")
    saved = await tools.transfers.save(
        done, "The download was fetched; its copy in the staging area is removed.", next_check_at=tools.now()
    )
    tools.nudge_worker()
    return saved


def _require_client(transfer: Transfer) -> None:
    if transfer.is_relay:
        raise Conflict(
            "This transfer goes from one system to another; no client puts its parts, and it ends by itself.",
            data={"state": transfer.state.value},
        )


def _require_receiving(transfer: Transfer) -> None:
    _require_client(transfer)
    if transfer.operation is not None:
        raise Conflict(_ENDS_BY_ITSELF, data={"state": transfer.state.value})
    if transfer.direction is not Direction.UPLOAD:
        raise Conflict("This is a download; it has no parts to put.", data={"state": transfer.state.value})
    if transfer.state is not State.RECEIVING:
        raise Conflict(
            f"The upload is {transfer.state}; parts can be put while it is receiving.",
            data={"state": transfer.state.value},
        )


async def _open_parts(tools: Toolbox, transfer: Transfer) -> list[StoredPart] | None:
    """The parts; None when the upload is complete, be it since a moment ago."""
    key = names.object_key(transfer.id)
    stored = await tools.store.list_parts(transfer.bucket, key, transfer.upload_id or "")
    if stored is None and await tools.store.head_object(transfer.bucket, key) is None:
        raise Conflict("The store no longer knows this multipart upload; begin a new transfer.")
    return stored


async def _differing(tools: Toolbox, transfer: Transfer, stored: list[StoredPart]) -> list[int]:
    """Numbers of parts whose ETag in the store is an MD5, but not the one that the client gave."""
    differing = differing_parts(transfer.part_digests.get("md5", ()), {part.number: part.etag for part in stored})
    return differing if differing and await _etags_are_md5s(tools, transfer) else []


async def _etags_are_md5s(tools: Toolbox, transfer: Transfer) -> bool:
    """Where the store encrypts with keys of its own, ETags look like MD5s and are none: our own ticket shows it.

    What is not compared here is compared on the cluster, with the data itself.
    """
    key = names.ticket_key(transfer.id)
    found = await tools.store.head_object(transfer.bucket, key)
    content = await tools.store.read_object(transfer.bucket, key, MAX_TICKET_BYTES)
    if found is None or content is None or not is_md5(found.etag):
        return True
    return found.etag.strip('"').lower() == hashlib.md5(content, usedforsecurity=False).hexdigest()


def _missing(transfer: Transfer, stored: list[StoredPart]) -> list[int]:
    plan = transfer.plan
    sizes = {part.number: part.size_bytes for part in stored}
    return [number for number in plan.numbers() if sizes.get(number) != plan.size_of(number)]
