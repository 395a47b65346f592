"""``stagecoach nodes grants …``: who may send to a node, and what one was granted oneself."""

from __future__ import annotations

from typing import Annotated

import typer

from stagecoach.cli.nodes.words import (
    Expires,
    Folder,
    Label,
    MaxBytes,
    NodeName,
    grant_line,
    held_line,
    time_of,
)
from stagecoach.cli.running import EXIT_CODES, AsJson, run
from stagecoach.cli.words import bytes_of
from stagecoach.client import Client
from stagecoach.wire.nodes import GrantList, GrantView, HeldGrantList
from stagecoach.wire.shapes import Shape

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Say who may send to a node.")


class RevokedGrant(Shape):
    """What holds no more."""

    node_id: str
    grant_id: str


@app.command("list", epilog=EXIT_CODES)
def listing(
    node: Annotated[str | None, typer.Argument(metavar="[NODE]", help="One of your nodes, by its name or id.")] = None,
    as_json: AsJson = False,
) -> None:
    """List who may send to a node of yours; without NODE, the nodes of others that you may send to."""

    async def work(client: Client) -> GrantList | HeldGrantList:
        if node is None:
            return await client.held_grants()
        return await client.grants((await client.find_node(node)).id)

    run(as_json, work, _show)


@app.command("add", epilog=EXIT_CODES)
def add(
    node: NodeName,
    user: Annotated[str, typer.Argument(metavar="USER", help="The user name of who may send.")],
    folder: Folder = "/",
    max_bytes: MaxBytes = None,
    expires: Expires = None,
    label: Label = None,
    as_json: AsJson = False,
) -> None:
    """Allow somebody to send to a node of yours. Nobody but you ever sends from it."""
    most, until = bytes_of(max_bytes), time_of(expires)

    async def work(client: Client) -> GrantView:
        found = await client.find_node(node)
        return await client.add_grant(found.id, user, folder=folder, max_bytes=most, expires_at=until, label=label)

    run(as_json, work, lambda grant: typer.echo(grant_line(grant)))


@app.command("revoke", epilog=EXIT_CODES)
def revoke(
    node: NodeName,
    grant_id: Annotated[str, typer.Argument(metavar="ID", help="As 'nodes grants list' shows it.")],
    as_json: AsJson = False,
) -> None:
    """Revoke a grant, or an invitation. What was begun under it goes on."""

    async def work(client: Client) -> RevokedGrant:
        found = await client.find_node(node)
        await client.revoke_grant(found.id, grant_id)
        return RevokedGrant(node_id=found.id, grant_id=grant_id)

    run(as_json, work, lambda gone: typer.echo(f"{gone.grant_id} is revoked."))


def _show(found: GrantList | HeldGrantList) -> None:
    lines = map(grant_line, found.grants) if isinstance(found, GrantList) else map(held_line, found.grants)
    for line in lines:
        typer.echo(line)
