"""Signs what a staging job may use and leaves it as the ticket in the bucket, and the way to it in the job's directory."""

from __future__ import annotations

from dataclasses import replace

from stagecoach.core import names
from stagecoach.core.parts import offer_parts
from stagecoach.core.tickets import TicketUrls, build_ticket
from stagecoach.core.transfer import Direction, State, Transfer, WaitPolicy
from stagecoach.flows.look_at_files import root_of
from stagecoach.flows.toolbox import JOB_URL_TTL_SECONDS, Toolbox
from stagecoach.flows.write_operation_ticket import write_operation_ticket
from stagecoach.ports.object_store import Audience

TICKET_URL_FILE = "ticket-url"


async def write_ticket(tools: Toolbox, transfer: Transfer) -> Transfer:
    """Write, or write anew with fresh URLs, the ticket object; returns the transfer with ``signed_at``. Saves nothing.

    An operation has none: its ticket is the file that :func:`write_ticket_url` leaves. Nor has a job on the direct road.
    """
    now = tools.now()
    if transfer.operation is not None or transfer.is_direct:
        return replace(transfer, signed_at=now)
    store, bucket, system = tools.store, transfer.bucket, transfer.system
    # A node is outside, as clients are.
    audience: Audience = "client" if transfer.is_on_node else "system"

    def sign(method: str, key: str, query: dict[str, str] | None = None, headers: dict[str, str] | None = None) -> str:
        return store.presign(
            method,  # type: ignore[arg-type]
            bucket,
            key,
            audience=audience,
            ttl_seconds=JOB_URL_TTL_SECONDS,
            system=system,
            query=query,
            headers=headers,
        )

    key = transfer.object_key
    urls = TicketUrls(
        head=sign("HEAD", key, headers={"x-amz-checksum-mode": "ENABLED"}),
        progress=sign("PUT", names.progress_key(transfer.id)),
        receipt=sign("PUT", names.receipt_key(transfer.id)),
        get=sign("GET", key) if transfer.direction is Direction.UPLOAD else None,
        parts=(
            store.presign_parts(
                bucket,
                key,
                transfer.upload_id or "",
                range(1, transfer.part_count + 1),
                audience=audience,
                ttl_seconds=JOB_URL_TTL_SECONDS,
                system=system,
            )
            if transfer.direction is Direction.DOWNLOAD
            else ()
        ),
        complete=(
            sign("POST", key, {"uploadId": transfer.upload_id or ""}) if transfer.direction is Direction.DOWNLOAD else None
        ),
    )
    settings = tools.system(system).settings
    waits = transfer.wait is WaitPolicy.IN_JOB and transfer.direction is Direction.UPLOAD
    deadline = int(transfer.created_at.timestamp()) + settings.limits.wait_in_job_seconds if waits else None
    if waits and transfer.state is State.RECEIVING and transfer.expires_at is not None:
        deadline = int(transfer.expires_at.timestamp())
    content = build_ticket(
        transfer,
        urls,
        concurrency=settings.mover_concurrency,
        wait_until_epoch_seconds=deadline,
        root=None if transfer.is_on_node else await root_of(tools.system(system), transfer.owner, transfer.real_path),
        limit_bytes=await _limit_bytes(tools, transfer),
        place=_place(transfer),
    )
    await store.write_object(bucket, names.ticket_key(transfer.id), content)
    return replace(transfer, signed_at=now)


def _place(transfer: Transfer) -> str | None:
    if not transfer.is_on_node:
        return None
    return "receive" if transfer.direction is Direction.UPLOAD else "send"


async def _limit_bytes(tools: Toolbox, transfer: Transfer) -> int | None:
    if not transfer.is_measured_by_job:
        return None
    limits, s3 = [tools.system(transfer.system).settings.limits.max_file_size_bytes], tools.settings.s3
    relay = await tools.transfers.get(transfer.relay_of) if transfer.relay_of is not None else None
    if relay is not None:
        limits.append(tools.system(relay.system).settings.limits.max_file_size_bytes)
    limit = min((each for each in limits if each is not None), default=None)
    today = offer_parts(limit, s3.max_part_size_bytes, s3.min_part_size_bytes).limit_bytes
    # The parts are those that were offered at the beginning, whatever the settings have become since.
    most = max(transfer.part_size_bytes, s3.max_part_size_bytes // transfer.part_size_bytes * transfer.part_size_bytes)
    return min(today, most * transfer.part_count)


async def write_ticket_url(tools: Toolbox, transfer: Transfer) -> None:
    """Leave a fresh URL of the ticket where the job reads it: a file of the user, mode 0600, in the job's directory.

    Of an operation the ticket itself, which needs no URL. An agent gets its URL with the command.
    """
    if transfer.is_on_node:
        return
    if transfer.operation is not None:
        await write_operation_ticket(tools, transfer)
        return
    url = tools.store.presign(
        "GET",
        transfer.bucket,
        names.ticket_key(transfer.id),
        audience="system",
        ttl_seconds=JOB_URL_TTL_SECONDS,
        system=transfer.system,
    )
    await tools.system(transfer.system).files.write_file(
        transfer.owner, f"{transfer.job_directory}/{TICKET_URL_FILE}", url.encode() + b"\n", 0o600
    )
