"""Signs what a staging job may use and leaves it as the ticket in the bucket, and the way to it in the job's directory."""

from __future__ import annotations

from stagecoach.core import names
from stagecoach.core.paths import expanded_roots, is_inside
from stagecoach.core.tickets import TicketUrls, build_ticket
from stagecoach.core.transfer import Direction, Transfer, WaitPolicy
from stagecoach.flows.toolbox import JOB_URL_TTL_SECONDS, Toolbox

TICKET_URL_FILE = "ticket-url"


async def write_ticket(tools: Toolbox, transfer: Transfer) -> None:
    """Write, or write anew with fresh URLs, the ticket object."""
    store, bucket, system = tools.store, transfer.bucket, transfer.system

    def sign(method: str, key: str, query: dict[str, str] | None = None) -> str:
        return store.presign(
            method,  # type: ignore[arg-type]
            bucket,
            key,
            audience="system",
            ttl_seconds=JOB_URL_TTL_SECONDS,
            system=system,
            query=query,
        )

    key = names.object_key(transfer.id)
    urls = TicketUrls(
        head=sign("HEAD", key),
        progress=sign("PUT", names.progress_key(transfer.id)),
        receipt=sign("PUT", names.receipt_key(transfer.id)),
        get=sign("GET", key) if transfer.direction is Direction.UPLOAD else None,
        parts=(
            store.presign_parts(
                bucket,
                key,
                transfer.upload_id or "",
                list(transfer.plan.numbers()),
                audience="system",
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
    roots = expanded_roots(settings.roots, transfer.owner)
    content = build_ticket(
        transfer,
        urls,
        concurrency=settings.mover_concurrency,
        wait_until_epoch_seconds=deadline,
        root=next((root for root in roots if is_inside(transfer.real_path, [root])), None),
    )
    await store.write_object(bucket, names.ticket_key(transfer.id), content)


async def write_ticket_url(tools: Toolbox, transfer: Transfer) -> None:
    """Leave a fresh URL of the ticket where the job reads it: a file of the user, mode 0600, in the job's directory."""
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
