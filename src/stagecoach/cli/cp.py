"""``stagecoach cp``: one file up or down."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Annotated

import typer

from stagecoach.cli.progress import Legs
from stagecoach.cli.running import AsJson, run
from stagecoach.cli.words import Remote, as_remote, summary
from stagecoach.client import CarriedTransfer, Client


def cp(
    source: Annotated[str, typer.Argument(help="A local file, or SYSTEM:/path.")],
    target: Annotated[str, typer.Argument(help="SYSTEM:/path, or a local file or directory.")],
    account: Annotated[str | None, typer.Option(help="Account or project that the staging job is charged to.")] = None,
    as_json: AsJson = False,
) -> None:
    """Copy a file to a system, or from one. A path that ends in / names a directory.

    Ctrl-C stops it cleanly: 'stagecoach transfers resume ID' goes on, also after a reboot.
    """
    remote_source, remote_target = as_remote(source), as_remote(target)
    if remote_target is not None and remote_source is None:
        _upload(Path(source), remote_target, account, as_json)
    elif remote_source is not None and remote_target is None:
        _download(remote_source, Path(target), account, as_json)
    else:
        raise typer.BadParameter("one of the two is SYSTEM:/path and the other a local file (write ./name:/x for an odd name)")


def _upload(local: Path, remote: Remote, account: str | None, as_json: bool) -> None:
    path = posixpath.join(remote.path, local.absolute().name) if remote.path.endswith("/") else remote.path
    _require_text(path)
    legs = Legs("upload", local.stat().st_size if local.is_file() else None)

    async def work(client: Client) -> CarriedTransfer:
        return await client.upload(
            remote.system, local, path, legs.client_leg, account=account, on_look=legs.cluster_leg, on_begun=legs.begun
        )

    run(as_json, work, show_carried, legs)


def _download(remote: Remote, local: Path, account: str | None, as_json: bool) -> None:
    name = posixpath.basename(remote.path)
    if not name:
        raise typer.BadParameter("the source names a directory; name a file")
    local = local / name if local.is_dir() else local
    _require_text(remote.path)
    legs = Legs("download")

    async def work(client: Client) -> CarriedTransfer:
        return await client.download(
            remote.system, remote.path, local, legs.client_leg, account=account, on_look=legs.cluster_leg, on_begun=legs.begun
        )

    run(as_json, work, show_carried, legs)


def _require_text(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("a path on a system is UTF-8 text; give the target another name") from None


def show_carried(transfer: CarriedTransfer) -> None:
    """The last line of a copy."""
    typer.echo(summary(transfer))
