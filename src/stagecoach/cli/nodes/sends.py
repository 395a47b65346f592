"""``stagecoach nodes send``, ``nodes sends`` and ``nodes watch``: from a node of one's own to any S3 store."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from stagecoach.cli.nodes.words import NodeName, command_line
from stagecoach.cli.running import FAILED, AsJson, run
from stagecoach.cli.words import plain, rate_of, size
from stagecoach.client import Client
from stagecoach.client.node_sends import Store
from stagecoach.wire.nodes import CommandPage, CommandView

SECRET = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 - the name of a variable


def send(
    node: NodeName,
    source: Annotated[str, typer.Argument(metavar="/PATH", help="Below the node's send directory.")],
    target: Annotated[str, typer.Argument(metavar="s3://BUCKET[/KEY]", help="A key that ends in / is a folder to send into.")],
    endpoint: Annotated[str, typer.Option(metavar="URL", help="The store: https://HOST[:PORT]; http:// is sent in the open.")],
    access_key_id: Annotated[str, typer.Option(envvar="AWS_ACCESS_KEY_ID", help="Of the store's key.")],
    secret_stdin: Annotated[bool, typer.Option("--secret-stdin", help="Read the secret key from standard input.")] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Send a directory with all that is in it.")] = False,
    ca_file: Annotated[Path | None, typer.Option(help="A PEM file of the authority that the store is believed by.")] = None,
    certificate_sha256: Annotated[str | None, typer.Option(help="Believe this one certificate of the store (hex).")] = None,
    rate_limit: Annotated[str | None, typer.Option(metavar="RATE", help="Bytes a second at most, like 10M.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it has been sent.")] = True,
    as_json: AsJson = False,
) -> None:
    """Have a node of yours send a file or directory to any S3 store. The secret key comes from AWS_SECRET_ACCESS_KEY, from
    standard input, or is asked for: never from an argument, which others see."""
    bucket, folder, name = _target(target, source, recursive)
    most = rate_of(rate_limit, "--rate-limit") if rate_limit is not None else None
    authority = ca_file.read_text(encoding="ascii") if ca_file is not None else None
    fingerprint = certificate_sha256.replace(":", "").lower() if certificate_sha256 is not None else None
    store = Store(endpoint, bucket, access_key_id, _secret(secret_stdin), folder, authority, fingerprint)
    try:
        store.endpoint()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--endpoint") from None

    async def work(client: Client) -> CommandView:
        node_id = (await client.find_node(node)).id
        begun = await client.send_to_store(node_id, source, store, is_directory=recursive, file_name=name, rate_limit=most)
        if not wait:
            return begun
        typer.echo(f"Command {begun.id}. Ctrl-C ends the waiting, not the sending: nodes watch goes on with it.", err=True)
        return await client.wait_for_command(node_id, begun.id, _Steps())

    _run_to_its_end(as_json, work)


def sends(
    node: NodeName,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List what a node of yours sends and has sent to stores, the last of its queue first."""

    async def work(client: Client) -> CommandPage:
        return await client.node_sends((await client.find_node(node)).id, limit=limit)

    run(as_json, work, _show)


def watch(
    node: NodeName,
    command_id: Annotated[str, typer.Argument(metavar="ID", help="As 'nodes send' or 'nodes sends' shows it.")],
    as_json: AsJson = False,
) -> None:
    """Follow what a node of yours sends to its end. Exit code 1: it failed or was cancelled."""

    async def work(client: Client) -> CommandView:
        return await client.wait_for_command((await client.find_node(node)).id, command_id, _Steps())

    _run_to_its_end(as_json, work)


def _show(page: CommandPage) -> None:
    for command in page.commands:
        typer.echo(_line(command))


def _run_to_its_end(as_json: bool, work: Callable[[Client], Awaitable[CommandView]]) -> None:
    ends: list[CommandView] = []

    async def noted(client: Client) -> CommandView:
        ends.append(await work(client))
        return ends[-1]

    run(as_json, noted, lambda command: typer.echo(_line(command)))
    if ends[-1].state in {"failed", "cancelled"}:
        raise typer.Exit(FAILED)


class _Steps:
    """Says on standard error what has changed, a line for each tenth of the bytes."""

    def __init__(self) -> None:
        self._said: tuple[str, int] | None = None

    def __call__(self, command: CommandView) -> None:
        done, total = _count(command, "bytesDone"), _count(command, "bytesTotal")
        step = (command.state, 10 * done // total if total else 0)
        if step != self._said:
            self._said = step
            typer.echo(_line(command), err=True)


def _line(command: CommandView) -> str:
    done, total = _count(command, "bytesDone"), _count(command, "bytesTotal")
    line = command_line(command)
    if command.source_path:
        line += plain(f"  {command.source_path}")
    return f"{line}  {size(done)} of {size(total)}" if total else line


def _count(command: CommandView, name: str) -> int:
    """Of what an agent wrote: nothing else is sure about it."""
    value = (command.progress or {}).get(name)
    return value if isinstance(value, int) and value > 0 else 0


def _target(target: str, source: str, recursive: bool) -> tuple[str, str, str | None]:
    """Bucket, folder, and the name of a file there."""
    scheme, _, rest = target.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise typer.BadParameter("write s3://BUCKET or s3://BUCKET/KEY", param_hint="TARGET")
    if recursive:
        return bucket, key.strip("/"), None
    folder, _, name = key.rpartition("/")
    return bucket, folder.strip("/"), name or source.rstrip("/").rpartition("/")[2]


def _secret(from_standard_input: bool) -> str:
    if from_standard_input:
        secret = sys.stdin.readline().strip()
    else:
        secret = os.environ.get(SECRET) or typer.prompt("Secret access key", hide_input=True, err=True)
    if not secret:
        raise typer.BadParameter(f"there is no secret key; set {SECRET}, or write it to standard input with --secret-stdin")
    return secret
