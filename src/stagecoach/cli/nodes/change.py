"""``stagecoach nodes rename`` and ``stagecoach nodes revoke``."""

from __future__ import annotations

from typing import Annotated

import typer

from stagecoach.cli.nodes.show import show_node
from stagecoach.cli.nodes.words import NodeName, node_line
from stagecoach.cli.running import AsJson, run
from stagecoach.client import Client
from stagecoach.wire.nodes import NodeView


def rename(node: NodeName, name: Annotated[str, typer.Argument(metavar="NEW-NAME")], as_json: AsJson = False) -> None:
    """Give a node another name; its id stays."""

    async def work(client: Client) -> NodeView:
        return await client.change_node((await client.find_node(node)).id, name=name)

    run(as_json, work, show_node)


def revoke(node: NodeName, as_json: AsJson = False) -> None:
    """Revoke a node at once: its agent may no more, what is in its queue is cancelled, and nobody may send to it."""

    async def work(client: Client) -> NodeView:
        found = await client.find_node(node)
        await client.revoke_node(found.id)
        return found.model_copy(update={"state": "revoked"})

    run(as_json, work, _show_revoked)


def _show_revoked(node: NodeView) -> None:
    typer.echo(node_line(node.model_copy(update={"health": None, "free_bytes": None})))
