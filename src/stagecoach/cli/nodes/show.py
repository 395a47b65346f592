"""``stagecoach nodes show``."""

from __future__ import annotations

import typer

from stagecoach.cli.nodes.words import NodeName
from stagecoach.cli.running import AsJson, run
from stagecoach.cli.words import local_time, plain, size
from stagecoach.client import Client
from stagecoach.wire.nodes import NodeView


def show(node: NodeName, as_json: AsJson = False) -> None:
    """Show one of your nodes, or one that you may send to."""

    async def work(client: Client) -> NodeView:
        return await client.find_node(node)

    run(as_json, work, show_node)


def show_node(node: NodeView) -> None:
    """One line, and what is known."""
    typer.echo(plain(f"{node.id}  {node.state}  {node.name}"))
    free = node.free_bytes
    lines = {
        "system": node.system,
        "owner": node.owner,
        "seen": local_time(node.last_seen),
        "agent": ", ".join(word for word in (node.version, node.platform) if word),
        "address": node.address,
        "receive": f"{size(free.receive)} free" if free is not None and free.receive is not None else None,
        "send": f"{size(free.send)} free" if free is not None and free.send is not None else None,
        "parallel": str(node.parallel) if node.parallel is not None else None,
    }
    for name, value in lines.items():
        if value:
            typer.echo(plain(f"  {name:<8} {value}"))
    for sentence in node.health or []:
        typer.echo(plain(f"  ! {sentence}"))
