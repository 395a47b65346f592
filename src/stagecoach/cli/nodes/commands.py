"""``stagecoach nodes commands``."""

from __future__ import annotations

from typing import Annotated

import typer

from stagecoach.cli.nodes.words import NodeName, command_line
from stagecoach.cli.running import AsJson, run
from stagecoach.client import Client
from stagecoach.wire.nodes import CommandPage


def commands(
    node: NodeName,
    state: Annotated[list[str] | None, typer.Option(help="Only in this state. Repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    after: Annotated[str | None, typer.Option(help="'next' of the page before.")] = None,
    as_json: AsJson = False,
) -> None:
    """List a node's queue and what has ended, the last of the queue first."""

    async def work(client: Client) -> CommandPage:
        found = await client.find_node(node)
        return await client.node_commands(found.id, states=state or (), limit=limit, after=after)

    run(as_json, work, _show)


def _show(page: CommandPage) -> None:
    for command in page.commands:
        typer.echo(command_line(command))
    if page.next is not None:
        typer.echo(f"More: --after {page.next}", err=True)
