"""``stagecoach cp``: one file or directory up or down."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from typing import Annotated

import typer

from stagecoach.cli.progress import Legs
from stagecoach.cli.running import AsJson, run
from stagecoach.cli.words import Remote, as_remote, plain, require_text, summary
from stagecoach.client import CarriedTransfer, Client, ServiceError

HINT = "Directories are copied with: stagecoach cp -r"


def cp(
    source: Annotated[str, typer.Argument(help="A local file or directory, or SYSTEM:/path.")],
    target: Annotated[str, typer.Argument(help="SYSTEM:/path (node:NAME:/path for a node), or a local file or directory.")],
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Copy a directory with all that is in it; links stay links.")
    ] = False,
    account: Annotated[str | None, typer.Option(help="Account or project that the staging job is charged to.")] = None,
    as_json: AsJson = False,
) -> None:
    """Copy a file to a system, or from one; with -r a directory. A path that ends in / names a directory to copy into.

    A copied directory is made anew, beside its place, and stands there when it is whole: nothing is copied into another.

    Ctrl-C stops it cleanly: 'stagecoach transfers resume ID' goes on, also after a reboot.
    """
    remote_source, remote_target = as_remote(source), as_remote(target)
    if remote_target is not None and remote_source is None:
        _upload(Path(source), remote_target, recursive, account, as_json)
    elif remote_source is not None and remote_target is None:
        _download(remote_source, Path(target), recursive, account, as_json)
    else:
        raise typer.BadParameter("one of the two is SYSTEM:/path and the other a local file (write ./name:/x for an odd name)")


def _upload(local: Path, remote: Remote, recursive: bool, account: str | None, as_json: bool) -> None:
    if local.is_dir() and not recursive:
        raise typer.BadParameter(f"{plain(str(local))} is a directory. {HINT}")
    path = remote.path
    if path.endswith("/"):
        name = os.path.basename(os.path.abspath(local))
        if not name:
            raise typer.BadParameter("the source has no name; name the directory that it shall become")
        path = posixpath.join(path, name)
    require_text(path)
    legs = Legs("upload", local.stat().st_size if local.is_file() else None)

    async def work(client: Client) -> CarriedTransfer:
        system = await client.find_system(remote.system)
        return await client.upload(
            system, local, path, legs.client_leg, account=account, on_look=legs.cluster_leg, on_begun=legs.begun
        )

    run(as_json, work, show_carried, legs)


def _download(remote: Remote, local: Path, recursive: bool, account: str | None, as_json: bool) -> None:
    path = (remote.path.rstrip("/") or "/") if recursive else remote.path
    name = posixpath.basename(path)
    if not name and (not recursive or local.is_dir()):
        raise typer.BadParameter(f"the source names a directory; name a file. {HINT}")
    local = local / name if local.is_dir() else local
    require_text(path)
    legs = Legs("download")

    async def fetch(client: Client, archive: bool) -> CarriedTransfer:
        return await client.download(
            await client.find_system(remote.system),
            path,
            local,
            legs.client_leg,
            account=account,
            archive=archive,
            on_look=legs.cluster_leg,
            on_begun=legs.begun,
        )

    async def work(client: Client) -> CarriedTransfer:
        # Only the system knows what the path names; a refusal has made nothing.
        try:
            return await fetch(client, recursive)
        except ServiceError as error:
            if error.code == "not_a_file" and not recursive:
                error.message += f" {HINT}"
            if error.code != "not_a_directory" or not recursive:
                raise
        return await fetch(client, False)

    run(as_json, work, show_carried, legs)


def show_carried(transfer: CarriedTransfer) -> None:
    """The last line of a copy."""
    typer.echo(summary(transfer))
