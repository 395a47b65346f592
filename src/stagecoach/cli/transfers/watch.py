"""``stagecoach transfers watch``."""

from __future__ import annotations

from typing import Annotated

import typer

from stagecoach.cli.progress import Legs
from stagecoach.cli.running import AsJson, run
from stagecoach.cli.words import summary
from stagecoach.client import Client
from stagecoach.wire.transfers import TransferDetail


def watch(transfer_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Follow a transfer until it is done, or staged for you to fetch. Ctrl-C stops the watching, not the transfer."""
    legs = Legs()

    async def work(client: Client) -> TransferDetail:
        return await client.wait(transfer_id, legs.cluster_leg)

    run(as_json, work, _show)


def _show(transfer: TransferDetail) -> None:
    typer.echo(summary(transfer))
