"""``stagecoach transfers list``."""

from __future__ import annotations

from typing import Annotated

import typer

from stagecoach.cli.running import AsJson, run
from stagecoach.cli.words import summary
from stagecoach.client import Client
from stagecoach.wire.transfers import TransferPage


def listing(
    system: Annotated[str | None, typer.Option(help="Only of this system.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only in this state. Repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many, newest first.")] = 50,
    after: Annotated[str | None, typer.Option(help="'next' of the page before.")] = None,
    as_json: AsJson = False,
) -> None:
    """List your transfers, newest first."""
    given = {"system": system, "state": state or None, "limit": limit, "after": after}

    async def work(client: Client) -> TransferPage:
        return await client.transfers(**{name: value for name, value in given.items() if value is not None})

    run(as_json, work, _show)


def _show(page: TransferPage) -> None:
    for transfer in page.transfers:
        typer.echo(summary(transfer))
    if page.next is not None:
        typer.echo(f"More: --after {page.next}", err=True)
