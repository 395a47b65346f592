"""``stagecoach nodes register``."""

from __future__ import annotations

from typing import Annotated

import typer

from stagecoach.cli.running import AsJson, run
from stagecoach.cli.words import local_time, plain
from stagecoach.client import Client
from stagecoach.wire.nodes import RegisteredNodeAnswer


def register(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What you call the machine.")], as_json: AsJson = False
) -> None:
    """Register a machine as a node. Prints the command that enrols its agent, with a token that is shown only now."""

    async def work(client: Client) -> RegisteredNodeAnswer:
        return await client.register_node(name)

    run(as_json, work, _show)


def _show(made: RegisteredNodeAnswer) -> None:
    typer.echo(plain(f"{made.name} is registered ({made.id})."), err=True)
    typer.echo(f"Run this on the machine, once, until {local_time(made.enrolment_expires_at)}:", err=True)
    typer.echo(plain(made.command))
    typer.echo("Then: stagecoach agent run", err=True)
