"""``stagecoach transfers resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stagecoach.cli.cp import show_carried
from stagecoach.cli.progress import Legs
from stagecoach.cli.running import AsJson, run
from stagecoach.client import CarriedTransfer, Client


def resume(
    transfer_id: Annotated[str, typer.Argument(metavar="ID")],
    local: Annotated[Path | None, typer.Argument(help="The local file, where this machine does not know it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Go on with an interrupted copy. What was done already is not done again."""
    legs = Legs()
    legs.transfer_id = transfer_id

    async def work(client: Client) -> CarriedTransfer:
        legs.cluster_leg(await client.transfer(transfer_id))
        return await client.resume(transfer_id, local, legs.client_leg, on_look=legs.cluster_leg)

    run(as_json, work, show_carried, legs)
