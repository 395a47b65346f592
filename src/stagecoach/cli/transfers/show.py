"""``stagecoach transfers show``."""

from __future__ import annotations

from typing import Annotated

import typer

from stagecoach.cli.running import AsJson, run
from stagecoach.cli.words import local_time, plain, size, summary
from stagecoach.client import Client
from stagecoach.wire.transfers import LegView, TransferDetail


def show(transfer_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Show one transfer with its story."""

    async def work(client: Client) -> TransferDetail:
        return await client.transfer(transfer_id)

    run(as_json, work, _show)


def _show(transfer: TransferDetail) -> None:
    typer.echo(summary(transfer))
    job = f"{transfer.job_id or 'none'} {transfer.job_state or ''} {transfer.job_reason or ''}"
    lines = {
        "meaning": transfer.meaning,
        "archive": "a directory, as a tar stream" if transfer.archive is not None else None,
        "staged": size(transfer.bytes_staged),
        "moved": f"{size(transfer.bytes_moved)} at {size(transfer.rate_bytes_per_second)}/s",
        "job": job.strip(),
        "proved": ", ".join(proof.how for proof in transfer.proved) or "nothing yet",
        "expires": local_time(transfer.expires_at),
        "retry": f"until {local_time(transfer.retry_until)}" if transfer.retry_until is not None else None,
    }
    for name, value in lines.items():
        if value:
            typer.echo(plain(f"  {name:<8} {value}"))
    for leg in transfer.legs:
        _show_leg(leg)
    for line in transfer.history:
        typer.echo(plain(f"  {local_time(line.at)}  {line.state:<10} {line.message}"))
    for log in [leg.job_log for leg in transfer.legs] or [transfer.job_log]:
        for text in (log or "").splitlines():
            typer.echo(plain(f"  | {text}"))


def _show_leg(leg: LegView) -> None:
    """One of the two of a transfer between two systems."""
    known = "size not known yet" if leg.size_bytes is None else size(leg.size_bytes)
    job = f"job {leg.job_id or 'none'} {leg.job_state or ''} {leg.job_reason or ''}".strip()
    typer.echo(plain(f"  {leg.leg:<11} {leg.system}:{leg.path}  {leg.state}  {size(leg.bytes_moved)} of {known}  {job}"))
