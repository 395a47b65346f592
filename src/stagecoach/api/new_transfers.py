"""``POST /transfers``: begins a transfer by its two ends. A client's end is null; two systems make a relay."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from stagecoach.api.access import Tools, TransfersWriter
from stagecoach.api.audit_trail import CurrentTrail, Trail
from stagecoach.api.idempotency import IdempotencyKey, repeatable_request
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.core.access import Caller
from stagecoach.core.audit_log import Act
from stagecoach.core.errors import DigestRefused, InvalidRequest, RoadClosed, SizeRefused
from stagecoach.core.transfer import Archive, Road
from stagecoach.flows.answer_again import RepeatableRequest
from stagecoach.flows.begin_relay import RelayEnd, begin_relay
from stagecoach.flows.begin_transfer import begin_download, begin_upload
from stagecoach.flows.toolbox import Toolbox
from stagecoach.wire import new_transfers as wire
from stagecoach.wire.views import view

router = APIRouter(prefix="/transfers", tags=["transfers"], responses=PROBLEM_ANSWERS)

_NEXT = ("get_transfer", "get_parts", "post_finish", "get_download_url", "post_retry", "delete_transfer")
LINKS: dict[int | str, dict[str, Any]] = {
    201: {"links": {name: {"operationId": name, "parameters": {"transfer_id": "$response.body#/transfer/id"}} for name in _NEXT}}
}


@router.post("", status_code=201, summary="Begin a transfer by its ends", responses=LINKS)
async def post_transfer(
    request: wire.NewTransfer, caller: TransfersWriter, tools: Tools, key: IdempotencyKey, trail: CurrentTrail
) -> wire.BegunTransfer:
    """From a client to a system (`source` null: the answer has part URLs), from a system to a client (`destination` null: it
    has the download URL), or from one system to another, through the staging area.

    Between two systems both are asked everything first: paths, rights, room, bounds, accounts. A staging job of the source
    then brings the data to the staging area, and one of the destination from there to its place; the transfer shows both.
    Between two nodes it goes straight where that is possible (`road`), and the transfer says why where it does not.
    Repeated with the same Idempotency-Key it answers the same transfer again.
    """
    _require_no_words_of_the_client(request)
    if request.road == "direct" and (request.source is None or request.destination is None):
        raise RoadClosed("Only from one data transfer node to another there is a direct road; give both ends.")
    repeatable = repeatable_request(key, "", "transfer", request)
    if request.destination is None:
        return await _download(tools, caller, request, repeatable, trail)
    if request.source is None:
        return await _upload(tools, caller, request, request.destination, repeatable, trail)
    return await _relay(tools, caller, request, request.source, request.destination, repeatable, trail)


def _require_no_words_of_the_client(request: wire.NewTransfer) -> None:
    """A system's source is looked at there, so nothing else can know its size or its parts."""
    if request.source is None and request.destination is None:
        raise InvalidRequest("Give source, destination or both; the one that is null is you.")
    if request.source is None:
        return
    if request.size_bytes is not None:
        raise SizeRefused("sizeBytes is what a client will send; what a system sends is measured there. Leave it out.")
    if request.parts or (request.destination is None and request.whole):
        raise DigestRefused("These digests are for what a client sends; leave them out.")


async def _upload(
    tools: Toolbox,
    caller: Caller,
    request: wire.NewTransfer,
    end: wire.EndRequest,
    repeatable: RepeatableRequest | None,
    trail: Trail,
) -> wire.BegunTransfer:
    if request.size_bytes is None:
        raise SizeRefused("sizeBytes is missing: say how many bytes will come, between 0 and 5 TiB.")
    async with trail.of(Act.UPLOAD_BEGUN, system=end.system, path=end.path, size_bytes=request.size_bytes) as noted:
        begun = await begin_upload(
            tools,
            caller,
            end.system,
            end.path,
            request.size_bytes,
            end.account or request.account,
            request.whole,
            _archive(request),
            request.parts,
            request.webhook_url,
            repeatable,
        )
        noted.target = begun.transfer.id
    transfer = begun.transfer
    upload = None
    if begun.part_urls:
        upload = wire.ClientUpload(
            part_size_bytes=transfer.part_size_bytes, part_urls=begun.part_urls, complete_url=begun.complete_url
        )
    state = transfer.state.value if begun.is_repeated else None
    return wire.BegunTransfer(transfer=view(transfer), upload=upload, transfer_state=state)


async def _download(
    tools: Toolbox, caller: Caller, request: wire.NewTransfer, repeatable: RepeatableRequest | None, trail: Trail
) -> wire.BegunTransfer:
    end = request.source
    assert end is not None  # noqa: S101 - one of the two is there
    async with trail.of(Act.DOWNLOAD_BEGUN, system=end.system, path=end.path) as noted:
        begun = await begin_download(
            tools,
            caller,
            end.system,
            end.path,
            end.account or request.account,
            _archive(request),
            request.webhook_url,
            repeatable,
        )
        noted.target = begun.transfer.id
    state = begun.transfer.state.value if begun.is_repeated else None
    return wire.BegunTransfer(transfer=view(begun.transfer), download_url=begun.download_url or None, transfer_state=state)


async def _relay(
    tools: Toolbox,
    caller: Caller,
    request: wire.NewTransfer,
    source: wire.EndRequest,
    destination: wire.EndRequest,
    repeatable: RepeatableRequest | None,
    trail: Trail,
) -> wire.BegunTransfer:
    ends = [RelayEnd(end.system, end.path, end.account or request.account) for end in (source, destination)]
    words = {"source_system": source.system, "source_path": source.path}
    async with trail.of(Act.RELAY_BEGUN, system=destination.system, path=destination.path, **words) as noted:
        begun = await begin_relay(
            tools,
            caller,
            ends[0],
            ends[1],
            request.whole,
            _archive(request),
            request.webhook_url,
            repeatable,
            None if request.road in {None, "auto"} else Road(request.road),
            request.rate_limit_bytes_per_second,
        )
        noted.target = begun.transfer.id
    state = begun.transfer.state.value if begun.is_repeated else None
    return wire.BegunTransfer(transfer=view(begun.transfer), transfer_state=state)


def _archive(request: wire.NewTransfer) -> Archive | None:
    return Archive(request.archive) if request.archive is not None else None
