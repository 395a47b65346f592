"""The client's word that its side is through: an upload's parts are put, or a download has been fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from stagecoach.core import names
from stagecoach.core.access import Caller
from stagecoach.core.errors import Conflict, PartsMissing, StaleVersion
from stagecoach.core.parts import multipart_etag
from stagecoach.core.transfer import Direction, State, Transfer, advance
from stagecoach.flows.receive_object import receive_object
from stagecoach.flows.show_transfers import show_transfer
from stagecoach.flows.sign_urls import sign_complete_url, sign_part_urls
from stagecoach.flows.toolbox import Toolbox
from stagecoach.ports.object_store import StoredPart


@dataclass(frozen=True, slots=True)
class PartsReport:
    """What the store holds of an upload, and URLs for what it does not."""

    transfer: Transfer
    stored: list[StoredPart]
    missing_urls: dict[int, str]
    complete_url: str


async def list_parts(tools: Toolbox, caller: Caller, transfer_id: str) -> PartsReport:
    """What is there, and fresh URLs for what is missing or has the wrong size.

    Raises:
        TransferNotFound; Conflict: not an upload that is being received.
    """
    transfer = await show_transfer(tools, caller, transfer_id)
    _require_receiving(transfer)
    stored = await _open_parts(tools, transfer)
    if stored is None:
        raise Conflict("The upload is already complete.", data={"state": transfer.state.value})
    missing = _missing(transfer, stored)
    urls = dict(zip(missing, sign_part_urls(tools, transfer, missing), strict=True))
    return PartsReport(transfer, stored, urls, sign_complete_url(tools, transfer))


async def finish_transfer(
    tools: Toolbox,
    caller: Caller,
    transfer_id: str,
    digests: Mapping[str, str] | None = None,
    etag: str | None = None,
) -> Transfer:
    """Upload: completes the multipart unless the client has, and lets the staging job go. Download: the object may go.

    Calling it again is fine. ``etag`` is what the store answered to the completion: stores that do not keep it
    (``rclone serve s3``) leave the mover nothing else to prove the object by.

    Raises:
        TransferNotFound; PartsMissing, with the numbers; Conflict: the state does not allow it.
    """
    for _ in range(10):
        transfer = await show_transfer(tools, caller, transfer_id)
        try:
            if transfer.direction is Direction.DOWNLOAD:
                return await _finish_download(tools, transfer)
            return await _finish_upload(tools, transfer, digests, etag)
        except StaleVersion:
            # The worker sees the object at the same moment; look again at what became of it.
            continue
    raise StaleVersion("The transfer changes all the time; try again.")


async def _finish_upload(tools: Toolbox, transfer: Transfer, digests: Mapping[str, str] | None, etag: str | None) -> Transfer:
    said = {**transfer.digests, **(digests or {})}
    if any(said[name] != value for name, value in transfer.digests.items()):
        raise Conflict("The digest is not the one that was given when the upload began; it stays with that one.")
    if transfer.state in {State.STAGED, State.QUEUED, State.MOVING, State.DONE}:
        if said != transfer.digests:
            raise Conflict(
                f"The upload is {transfer.state}, so its digest comes too late to be compared; give it with the request "
                "that begins the upload, or with this one before the upload is completed.",
                data={"state": transfer.state.value},
            )
        return transfer
    _require_receiving(transfer)
    transfer = replace(transfer, digests=said)
    key = names.object_key(transfer.id)
    if await tools.store.head_object(transfer.bucket, key) is None and (stored := await _open_parts(tools, transfer)) is not None:
        missing = _missing(transfer, stored)
        if missing:
            raise PartsMissing(
                f"{len(missing)} of {transfer.part_count} parts are missing or have the wrong size; put them and try again.",
                data={"missing": missing[:100], "missing_count": len(missing)},
            )
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
    done = advance(transfer, State.DONE, tools.now(), reason="The client has fetched it.")
    saved = await tools.transfers.save(
        done, "The client has fetched it; the staged object is removed.", next_check_at=tools.now()
    )
    tools.nudge_worker()
    return saved


def _require_receiving(transfer: Transfer) -> None:
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


def _missing(transfer: Transfer, stored: list[StoredPart]) -> list[int]:
    plan = transfer.plan
    sizes = {part.number: part.size_bytes for part in stored}
    return [number for number in plan.numbers() if sizes.get(number) != plan.size_of(number)]
