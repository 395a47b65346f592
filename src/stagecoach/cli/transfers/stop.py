"""``stagecoach transfers stop``."""

from __future__ import annotations

from typing import Annotated

import typer

from stagecoach.cli.running import AsJson, run
from stagecoach.cli.words import summary
from stagecoach.client import Client
from stagecoach.wire.transfers import TransferView


def stop(transfer_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Stop a transfer whose job waits or runs; what has arrived is kept, and a retry goes on from there."""

    async def work(client: Client) -> TransferView:
        return await client.stop(transfer_id)

    run(as_json, work, _show)


def _show(transfer: TransferView) -> None:
    typer.echo(summary(transfer))
    typer.echo(f"Go on with: stagecoach transfers retry {transfer.id}")
