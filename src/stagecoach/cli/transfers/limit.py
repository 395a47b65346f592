"""``stagecoach transfers limit``."""

from __future__ import annotations

from typing import Annotated

import typer

from stagecoach.cli.running import AsJson, run
from stagecoach.cli.words import rate_of, size, summary
from stagecoach.client import Client
from stagecoach.wire.transfers import TransferView


def limit(
    transfer_id: Annotated[str, typer.Argument(metavar="ID")],
    rate: Annotated[str, typer.Argument(metavar="RATE", help="Bytes a second at most, like 10M or 200MB; off: no bound.")],
    as_json: AsJson = False,
) -> None:
    """Change how fast a transfer goes that goes straight from node to node, also while it goes."""
    bytes_per_second = None if rate.strip().lower() == "off" else rate_of(rate, "RATE")

    async def work(client: Client) -> TransferView:
        return await client.limit(transfer_id, bytes_per_second)

    run(as_json, work, _show)


def _show(transfer: TransferView) -> None:
    most = transfer.rate_limit_bytes_per_second
    typer.echo(summary(transfer))
    typer.echo("No bound from now on." if most is None else f"At most {size(most)}/s from now on.")
