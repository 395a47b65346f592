"""``stagecoach ls``: what a directory of a system holds."""

from __future__ import annotations

from typing import Annotated

import typer

from stagecoach.cli.running import AsJson, run
from stagecoach.cli.words import as_remote, plain, require_text
from stagecoach.client import Client
from stagecoach.wire.filesystem import File, ListingAnswer


def ls(
    place: Annotated[str, typer.Argument(metavar="SYSTEM:/PATH", help="A directory or file of a system.")],
    long: Annotated[bool, typer.Option("--long", "-l", help="Rights, owner, group, bytes and time (UTC) as well.")] = False,
    every: Annotated[bool, typer.Option("--all", "-a", help="Names that begin with a dot as well.")] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-R", help="Also what is below.")] = False,
    numeric: Annotated[bool, typer.Option("--numeric", "-n", help="Numbers of users and groups, not names.")] = False,
    as_json: AsJson = False,
) -> None:
    """List a directory of a system: all of it, or an error where it is too large.

    A symbolic link is listed itself; a path that ends in / names the directory that it leads to.
    """
    remote = as_remote(place)
    if remote is None:
        raise typer.BadParameter("write SYSTEM:/path, with the path from the root")
    require_text(remote.path)

    async def work(client: Client) -> ListingAnswer:
        return await client.list_directory(
            remote.system, remote.path, show_hidden=every, recursive=recursive, numeric_ids=numeric
        )

    run(as_json, work, _show_long if long or numeric else _show)


def _show(listing: ListingAnswer) -> None:
    for file in listing.output:
        typer.echo(plain(file.name))


def _show_long(listing: ListingAnswer) -> None:
    columns = [[plain(text) for text in (file.user, file.group, file.size)] for file in listing.output]
    user, group, size = (max(map(len, column)) for column in zip(*columns, strict=True)) if columns else (0, 0, 0)
    for file, words in zip(listing.output, columns, strict=True):
        owners = f"{words[0]:<{user}} {words[1]:<{group}} {words[2]:>{size}}"
        typer.echo(f"{file.type}{file.permissions} {owners} {file.last_modified} {_name(file)}")


def _name(file: File) -> str:
    return plain(file.name if file.link_target is None else f"{file.name} -> {file.link_target}")
