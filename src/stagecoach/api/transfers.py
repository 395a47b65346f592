"""``/transfers``: the transfer as a thing of its own, to list, show, cancel, continue and finish."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query

from stagecoach.api.access import CurrentCaller, Tools
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.core.errors import Conflict
from stagecoach.core.transfer import MEANING, Direction, State, Transfer, TransferFilter
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.finish_transfer import finish_transfer, list_parts
from stagecoach.flows.show_transfers import list_transfers, show_history, show_transfer
from stagecoach.flows.sign_urls import sign_download_url, sign_head_url
from stagecoach.wire import transfers as wire

router = APIRouter(prefix="/transfers", tags=["transfers"], responses=PROBLEM_ANSWERS)
# PostgreSQL takes no NUL in a text.
NO_NUL = r"^[^\x00]*$"
TransferId = Annotated[str, Path(max_length=64, description="A transfer's id.")]


@router.get("", summary="List transfers")
async def get_transfers(
    caller: CurrentCaller,
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
    """Newest first, the caller's own (an administrator's: everybody's)."""
    wanted = TransferFilter(
        owner=owner, system=system, direction=direction, states=tuple(state or ()), before_id=after, limit=limit + 1
    )
    found = list(await list_transfers(tools, caller, wanted))
    page = found[:limit]
    return wire.TransferPage(transfers=[view(transfer) for transfer in page], next=page[-1].id if len(found) > limit else None)


@router.get("/{transfer_id}", summary="Show a transfer")
async def get_transfer(transfer_id: TransferId, caller: CurrentCaller, tools: Tools) -> wire.TransferDetail:
    """State, bytes, rate, job, the reason in plain words, and the story so far."""
    transfer, history = await show_history(tools, caller, transfer_id)
    lines = [wire.HistoryLine(at=line.at, state=line.state.value, message=line.message) for line in history]
    return wire.TransferDetail(**view(transfer).model_dump(), history=lines, job_log=transfer.job_log)


@router.delete("/{transfer_id}", summary="Cancel a transfer")
async def delete_transfer(transfer_id: TransferId, caller: CurrentCaller, tools: Tools) -> wire.TransferView:
    """Cancels in any state and leaves nothing: no job, multipart, object or temporary file.

    The answer says ``cancelled``, or ``cancelling`` where the scheduler takes its time; the service sees it through.
    """
    return view(await cancel_transfer(tools, caller, transfer_id))


@router.get("/{transfer_id}/parts", summary="Show an upload's parts, with fresh URLs for what is missing")
async def get_parts(transfer_id: TransferId, caller: CurrentCaller, tools: Tools) -> wire.PartsView:
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
    transfer_id: TransferId, caller: CurrentCaller, tools: Tools, request: wire.FinishRequest | None = None
) -> wire.TransferView:
    """Upload: all parts are put (completed by the client or, if not, by this call); the staging job starts at once.
    Download: the client has the file; the staged object is removed."""
    digests = {"sha256": request.sha256.lower()} if request is not None and request.sha256 else None
    etag = request.etag if request is not None else None
    return view(await finish_transfer(tools, caller, transfer_id, digests, etag))


@router.get("/{transfer_id}/download-url", summary="Sign the download URL again")
async def get_download_url(transfer_id: TransferId, caller: CurrentCaller, tools: Tools) -> wire.DownloadUrl:
    """A fresh URL of a staged download."""
    transfer = await show_transfer(tools, caller, transfer_id)
    if transfer.direction is not Direction.DOWNLOAD:
        raise Conflict("This is an upload; it has nothing to download.", data={"state": transfer.state.value})
    if transfer.state is not State.STAGED:
        raise Conflict(
            f"The download is {transfer.state}: {MEANING[transfer.state]} Its URL works while it is staged.",
            data={"state": transfer.state.value},
        )
    ends = tools.now() + timedelta(seconds=tools.settings.s3.ttl_seconds)
    if transfer.expires_at is not None:
        ends = min(ends, transfer.expires_at)
    return wire.DownloadUrl(
        download_url=sign_download_url(tools, transfer), head_url=sign_head_url(tools, transfer), expires_at=ends
    )


def view(transfer: Transfer) -> wire.TransferView:
    """What its owner is shown."""
    return wire.TransferView(
        id=transfer.id,
        owner=transfer.owner,
        system=transfer.system,
        direction=transfer.direction.value,
        path=transfer.path,
        size_bytes=transfer.size_bytes,
        state=transfer.state.value,
        meaning=MEANING[transfer.state],
        code=transfer.code,
        reason=transfer.reason or transfer.job_reason,
        bytes_staged=transfer.bytes_staged,
        bytes_moved=transfer.bytes_moved,
        rate_bytes_per_second=transfer.rate_bytes_per_second,
        part_size_bytes=transfer.part_size_bytes,
        part_count=transfer.part_count,
        account=transfer.account,
        job_id=transfer.job_id,
        job_state=transfer.job_state,
        job_reason=transfer.job_reason,
        proved=tuple(wire.Proof(**entry) for entry in transfer.proved),
        created_at=transfer.created_at,
        updated_at=transfer.updated_at,
        expires_at=transfer.expires_at,
        ended_at=transfer.ended_at,
    )
