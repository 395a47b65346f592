"""``stagecoach nodes list``."""

from __future__ import annotations

import typer

from stagecoach.cli.nodes.words import node_line
from stagecoach.cli.running import AsJson, run
from stagecoach.client import Client
from stagecoach.wire.nodes import NodeList


def listing(as_json: AsJson = False) -> None:
    """List your nodes, newest first. Those of others that you may send to: nodes grants list."""

    async def work(client: Client) -> NodeList:
        return await client.nodes()

    run(as_json, work, _show)


def _show(found: NodeList) -> None:
    for node in found.nodes:
        typer.echo(node_line(node))
