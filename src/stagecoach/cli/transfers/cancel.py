"""``stagecoach transfers cancel``."""

from __future__ import annotations

from typing import Annotated

import typer

from stagecoach.cli.running import AsJson, run
from stagecoach.cli.words import summary
from stagecoach.client import Client
from stagecoach.wire.transfers import TransferView


def cancel(transfer_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Cancel a transfer; nothing of it stays."""

    async def work(client: Client) -> TransferView:
        return await client.cancel(transfer_id)

    run(as_json, work, _show)


def _show(transfer: TransferView) -> None:
    typer.echo(summary(transfer))
