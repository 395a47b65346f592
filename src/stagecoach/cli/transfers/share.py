"""``stagecoach transfers share``."""

from __future__ import annotations

from typing import Annotated

import typer

from stagecoach.cli.running import AsJson, run
from stagecoach.cli.words import local_time, seconds_of
from stagecoach.client import Client
from stagecoach.wire.transfers import DownloadUrl


def share(
    transfer_id: Annotated[str, typer.Argument(metavar="ID", help="Of a download that is staged.")],
    lasting: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="How long it works, like 30m, 12h or 7d, which is the most."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a link to a staged download. Whoever has it may fetch the file, without any login, until its time is over."""
    ttl_seconds = None if lasting is None else seconds_of(lasting, "--for")

    async def work(client: Client) -> DownloadUrl:
        return await client.download_url(transfer_id, ttl_seconds=ttl_seconds)

    run(as_json, work, _show)


def _show(signed: DownloadUrl) -> None:
    typer.echo(signed.download_url)
    typer.echo(f"It works until {local_time(signed.expires_at)}, or until the transfer ends.", err=True)
