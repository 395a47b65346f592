"""``stagecoach transfers retry``."""

from __future__ import annotations

from typing import Annotated

import typer

from stagecoach.cli.running import AsJson, run
from stagecoach.cli.words import is_relay, summary
from stagecoach.client import Client
from stagecoach.wire.transfers import TransferView


def retry(transfer_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Have a failed transfer go on from what is staged; nothing that arrived is sent again."""

    async def work(client: Client) -> TransferView:
        return await client.retry(transfer_id)

    run(as_json, work, _show)


def _show(transfer: TransferView) -> None:
    typer.echo(summary(transfer))
    is_ours = transfer.state == "receiving" or transfer.direction == "download"
    verb = "resume" if is_ours and not is_relay(transfer) else "watch"
    typer.echo(f"Go on with: stagecoach transfers {verb} {transfer.id}")
