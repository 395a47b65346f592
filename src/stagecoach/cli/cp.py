"""``stagecoach cp``: one file or directory up, down, or from one system to another."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

import typer

from stagecoach.cli.progress import Legs
from stagecoach.cli.running import AsJson, run
from stagecoach.cli.words import Remote, as_remote, plain, rate_of, require_text, summary
from stagecoach.client import CarriedTransfer, Client, ServiceError
from stagecoach.wire.transfers import TransferDetail

T = TypeVar("T", bound=TransferDetail)
HINT = "Directories are copied with: stagecoach cp -r"


class Way(NamedTuple):
    """How it goes between two nodes."""

    road: str | None
    rate_limit: int | None


def cp(
    source: Annotated[str, typer.Argument(help="A local file or directory, or SYSTEM:/path.")],
    target: Annotated[str, typer.Argument(help="SYSTEM:/path (node:NAME:/path for a node), or a local file or directory.")],
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Copy a directory with all that is in it; links stay links.")
    ] = False,
    account: Annotated[str | None, typer.Option(help="Account or project that the staging job is charged to.")] = None,
    road: Annotated[
        str | None, typer.Option(help="Between two nodes: direct (straight, or not at all), staged, or auto.", metavar="ROAD")
    ] = None,
    rate_limit: Annotated[
        str | None, typer.Option(metavar="RATE", help="Between two nodes, straight: bytes a second at most, like 10M.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy a file to a system, from one, or between two; with -r a directory. A path that ends in / names a directory to
    copy into.

    A copied directory is made anew, beside its place, and stands there when it is whole: nothing is copied into another.

    Ctrl-C stops it cleanly: 'stagecoach transfers resume ID' goes on, also after a reboot.
    """
    if road not in {None, "auto", "direct", "staged"}:
        raise typer.BadParameter("--road is direct, staged or auto")
    remote_source, remote_target = as_remote(source), as_remote(target)
    if (road, rate_limit) != (None, None) and (remote_source is None or remote_target is None):
        raise typer.BadParameter("--road and --rate-limit are for what goes from one node to another")
    if remote_target is not None and remote_source is None:
        _upload(Path(source), remote_target, recursive, account, as_json)
    elif remote_source is not None and remote_target is None:
        _download(remote_source, Path(target), recursive, account, as_json)
    elif remote_source is not None and remote_target is not None:
        most = rate_of(rate_limit, "--rate-limit") if rate_limit is not None else None
        _send(remote_source, remote_target, recursive, account, Way(road, most), as_json)
    else:
        raise typer.BadParameter("at least one of the two is SYSTEM:/path (write ./name:/x for a local file with an odd name)")


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
        return await _as_what_it_is(recursive, lambda archive: fetch(client, archive))

    run(as_json, work, show_carried, legs)


def _send(source: Remote, target: Remote, recursive: bool, account: str | None, way: Way, as_json: bool) -> None:
    path = (source.path.rstrip("/") or "/") if recursive else source.path
    name, target_path = posixpath.basename(path), target.path
    if not name:
        raise typer.BadParameter(f"the source names a directory; name a file. {HINT}")
    if target_path.endswith("/"):
        target_path = posixpath.join(target_path, name)
    require_text(path)
    require_text(target_path)
    legs = Legs()

    async def send(client: Client, archive: bool) -> TransferDetail:
        places = Remote(source.system, path), Remote(target.system, target_path)
        return await client.send(
            *places,
            account=account,
            archive=archive,
            road=way.road,
            rate_limit=way.rate_limit,
            on_look=legs.cluster_leg,
            on_begun=legs.begun,
        )

    async def work(client: Client) -> TransferDetail:
        return await _as_what_it_is(recursive, lambda archive: send(client, archive))

    run(as_json, work, show_carried, legs)


async def _as_what_it_is(recursive: bool, begin: Callable[[bool], Awaitable[T]]) -> T:
    """Only the system knows what the source names; a refusal has made nothing."""
    try:
        return await begin(recursive)
    except ServiceError as error:
        if error.code == "not_a_file" and not recursive:
            error.message += f" {HINT}"
        if error.code != "not_a_directory" or not recursive:
            raise
    return await begin(False)


def show_carried(transfer: TransferDetail) -> None:
    """The last line of a copy."""
    typer.echo(summary(transfer))
