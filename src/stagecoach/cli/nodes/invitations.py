"""``stagecoach nodes invite`` and ``stagecoach invitations redeem``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from stagecoach.cli.nodes.words import (
    Expires,
    Folder,
    Label,
    MaxBytes,
    NodeName,
    held_line,
    time_of,
)
from stagecoach.cli.running import AsJson, run
from stagecoach.cli.words import bytes_of, local_time, plain
from stagecoach.client import Client
from stagecoach.wire.nodes import HeldGrantView, InvitationAnswer


def invite(
    node: NodeName,
    folder: Folder = "/",
    max_bytes: MaxBytes = None,
    expires: Expires = None,
    label: Label = None,
    as_json: AsJson = False,
) -> None:
    """Make a link with which one person, whoever redeems it first, may send to a node of yours. It is shown only now."""
    most, until = bytes_of(max_bytes), time_of(expires)

    async def work(client: Client) -> InvitationAnswer:
        found = await client.find_node(node)
        return await client.invite(found.id, folder=folder, max_bytes=most, expires_at=until, label=label)

    run(as_json, work, _show)


def redeem(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The invitation's link or token; -: standard input.")],
    as_json: AsJson = False,
) -> None:
    """Redeem an invitation: from now on you may send to the node. Other users of this machine see arguments: - is safer."""
    given = (sys.stdin.readline() if token == "-" else token).strip()  # noqa: S105 - stands for standard input
    # A link has the token behind the sign that browsers keep to themselves.
    given = given.rpartition("#")[2]
    if not given:
        raise typer.BadParameter("there is no token in it", param_hint="TOKEN")

    async def work(client: Client) -> HeldGrantView:
        return await client.redeem_invitation(given)

    run(as_json, work, _show_held)


def _show(made: InvitationAnswer) -> None:
    typer.echo(f"Whoever opens this link first may send to {made.folder} (invitation {made.id}).", err=True)
    typer.echo(plain(made.url))
    if made.invitation_expires_at is not None:
        typer.echo(f"It can be redeemed until {local_time(made.invitation_expires_at)}.", err=True)


def _show_held(grant: HeldGrantView) -> None:
    typer.echo(held_line(grant))
    path = grant.folder.rstrip("/") + "/"
    typer.echo(plain(f"Send with: stagecoach cp FILE {grant.system}:{path}"), err=True)
