"""``/transfers``: the transfer as a thing of its own, to list, show, cancel, continue and finish."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query

from stagecoach.api.access import Tools, TransfersReader, TransfersWriter
from stagecoach.api.audit_trail import CurrentTrail
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.core.access import Caller
from stagecoach.core.audit_log import Act
from stagecoach.core.errors import Conflict
from stagecoach.core.relays import require_no_leg
from stagecoach.core.transfer import MEANING, Direction, State, TransferFilter
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.change_rate import change_rate
from stagecoach.flows.finish_transfer import finish_transfer, list_parts
from stagecoach.flows.follow_leg import leg_of
from stagecoach.flows.retry_transfer import retry_transfer
from stagecoach.flows.show_transfers import (
    list_transfers,
    show_history,
    show_network_check,
    show_own_transfer,
    show_webhook,
)
from stagecoach.flows.sign_urls import sign_download_url, sign_head_url
from stagecoach.flows.stop_transfer import stop_transfer
from stagecoach.flows.toolbox import Toolbox
from stagecoach.wire import transfers as wire
from stagecoach.wire.views import view, watched_view

router = APIRouter(prefix="/transfers", tags=["transfers"], responses=PROBLEM_ANSWERS)
# PostgreSQL takes no NUL in a text.
NO_NUL = r"^[^\x00]*$"
TransferId = Annotated[str, Path(max_length=64, description="A transfer's id.")]


@router.get("", summary="List transfers")
async def get_transfers(
    caller: TransfersReader,
    tools: Tools,
    system: Annotated[str | None, Query(max_length=64, pattern=NO_NUL)] = None,
    direction: Direction | None = None,
    state: Annotated[list[State] | None, Query(description="One or several.", max_length=20)] = None,
    owner: Annotated[
        str | None, Query(max_length=64, pattern=NO_NUL, description="Administrators: whose; all when absent.")
    ] = None,
    after: Annotated[str | None, Query(max_length=64, pattern=NO_NUL, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> wire.TransferPage:
    """Newest first, the caller's own (an administrator's: everybody's). One between two systems is of both of them."""
    wanted = TransferFilter(
        owner=owner, system=system, direction=direction, states=tuple(state or ()), before_id=after, limit=limit + 1
    )
    found = list(await list_transfers(tools, caller, wanted))
    page = found[:limit]
    return wire.TransferPage(transfers=[view(transfer) for transfer in page], next=page[-1].id if len(found) > limit else None)


@router.get("/{transfer_id}", summary="Show a transfer")
async def get_transfer(transfer_id: TransferId, caller: TransfersReader, tools: Tools) -> wire.TransferDetail:
    """State, bytes, rate, job, the reason in plain words, and the story so far."""
    transfer, history = await show_history(tools, caller, transfer_id)
    leg = await leg_of(tools, transfer)
    lines = [wire.HistoryLine(at=line.at, state=line.state.value, message=line.message) for line in history]
    webhook = await show_webhook(tools, transfer)
    return wire.TransferDetail(
        **watched_view(transfer, leg).model_dump(),
        history=lines,
        job_log=transfer.job_log,
        webhook=wire.WebhookView(host=webhook.host, pending=webhook.pending, trouble=webhook.trouble) if webhook else None,
    )


@router.delete("/{transfer_id}", summary="Cancel a transfer")
async def delete_transfer(
    transfer_id: TransferId, caller: TransfersWriter, tools: Tools, trail: CurrentTrail
) -> wire.TransferView:
    """Cancels in any state and leaves nothing: no job, multipart, object or temporary file. Of a failed transfer, what is
    kept for a retry is removed.

    The answer says ``cancelled``, or ``cancelling`` where the scheduler takes its time; the service sees it through.
    """
    async with trail.of(Act.TRANSFER_CANCELLED, transfer_id):
        return view(await cancel_transfer(tools, caller, transfer_id))


@router.patch("/{transfer_id}", summary="Change how fast a transfer may go")
async def patch_transfer(
    transfer_id: TransferId, request: wire.TransferChange, caller: TransfersWriter, tools: Tools, trail: CurrentTrail
) -> wire.TransferView:
    """Of one that goes straight from node to node: its sender hears of it within seconds, ends what it sends and goes on at
    once at the other rate. What has arrived whole is not sent again. 409 where nothing is sent so, or everything was."""
    rate = request.rate_limit_bytes_per_second
    async with trail.of(Act.TRANSFER_CHANGED, transfer_id, rate_limit_bytes_per_second=rate):
        return view(await change_rate(tools, caller, transfer_id, rate))


@router.post("/{transfer_id}/retry", summary="Go on with a failed transfer")
async def post_retry(transfer_id: TransferId, caller: TransfersWriter, tools: Tools, trail: CurrentTrail) -> wire.TransferView:
    """Continues from what is staged, while `retryUntil` lasts; nothing that arrived is sent again.

    An upload that was whole is brought to the cluster by another job (`staged`); one whose parts were still being put is
    open again (`receiving`: see its parts); a download's next job goes on where the last one stopped (`queued`).
    """
    async with trail.of(Act.TRANSFER_RETRIED, transfer_id):
        return view(await retry_transfer(tools, caller, transfer_id))


@router.post("/{transfer_id}/stop", summary="Stop a transfer, and keep what has arrived")
async def post_stop(transfer_id: TransferId, caller: TransfersWriter, tools: Tools, trail: CurrentTrail) -> wire.TransferView:
    """The job that waits or runs is ended; the transfer is `failed` with the code `stopped`, and `POST …/retry` goes on with
    what is missing while `retryUntil` lasts."""
    async with trail.of(Act.TRANSFER_STOPPED, transfer_id):
        return view(await stop_transfer(tools, caller, transfer_id))


@router.get("/{transfer_id}/network-check", summary="Show what was found of the way between two nodes")
async def get_network_check(transfer_id: TransferId, caller: TransfersReader, tools: Tools) -> wire.NetworkCheckView:
    """Of a transfer that goes straight from node to node: how its sender reached the receiver, and how fast it went. 404 while
    there is none."""
    check = await show_network_check(tools, caller, transfer_id)
    return wire.NetworkCheckView(at=check.at, check=dict(check.report), rates=[list(pair) for pair in check.rates])


@router.get("/{transfer_id}/parts", summary="Show an upload's parts, with fresh URLs for what is missing")
async def get_parts(transfer_id: TransferId, caller: TransfersWriter, tools: Tools) -> wire.PartsView:
    """What the store has; continue an interrupted upload with this."""
    report = await list_parts(tools, caller, transfer_id)
    plan = report.transfer.plan
    return wire.PartsView(
        id=report.transfer.id,
        part_size_bytes=plan.part_size_bytes,
        part_count=plan.part_count,
        stored=[wire.PartStored(number=part.number, size_bytes=part.size_bytes, etag=part.etag) for part in report.stored],
        missing=[
            wire.PartMissing(
                number=number,
                offset_bytes=(number - 1) * plan.part_size_bytes,
                size_bytes=plan.size_of(number),
                url=url,
            )
            for number, url in report.missing_urls.items()
        ],
        complete_upload_url=report.complete_url,
    )


@router.post("/{transfer_id}/finish", summary="Say that the client's side is through")
async def post_finish(
    transfer_id: TransferId,
    caller: TransfersWriter,
    tools: Tools,
    trail: CurrentTrail,
    request: wire.FinishRequest | None = None,
) -> wire.TransferView:
    """Upload: all parts are put (completed by the client or, if not, by this call); the staging job starts at once.
    Download: the client has the file; the staged object is removed."""
    request = request or wire.FinishRequest()
    async with trail.of(Act.TRANSFER_FINISHED, transfer_id):
        return view(await finish_transfer(tools, caller, transfer_id, request.whole, request.etag, request.parts))


@router.get("/{transfer_id}/download-url", summary="Sign the download URL again")
async def get_download_url(
    transfer_id: TransferId,
    caller: TransfersWriter,
    tools: Tools,
    trail: CurrentTrail,
    ttl_seconds: Annotated[
        int | None,
        Query(alias="ttlSeconds", ge=60, le=604800, description="How long it works, while the transfer is staged."),
    ] = None,
) -> wire.DownloadUrl:
    """A fresh URL of a staged download."""
    async with trail.of(Act.DOWNLOAD_URL_SIGNED, transfer_id, ttl_seconds=ttl_seconds):
        return await _download_url(tools, caller, transfer_id, ttl_seconds)


async def _download_url(tools: Toolbox, caller: Caller, transfer_id: str, wanted_seconds: int | None) -> wire.DownloadUrl:
    transfer = await show_own_transfer(tools, caller, transfer_id)
    require_no_leg(transfer)
    if transfer.direction is not Direction.DOWNLOAD:
        raise Conflict("This is no download; it has nothing to fetch.", data={"state": transfer.state.value})
    if transfer.state is not State.STAGED:
        raise Conflict(
            f"The download is {transfer.state}: {MEANING[transfer.state]} Its URL works while it is staged.",
            data={"state": transfer.state.value},
        )
    ttl_seconds = wanted_seconds or tools.settings.s3.ttl_seconds
    ends = tools.now() + timedelta(seconds=ttl_seconds)
    if transfer.expires_at is not None:
        ends = min(ends, transfer.expires_at)
    return wire.DownloadUrl(
        download_url=sign_download_url(tools, transfer, ttl_seconds),
        head_url=sign_head_url(tools, transfer, ttl_seconds),
        expires_at=ends,
    )
