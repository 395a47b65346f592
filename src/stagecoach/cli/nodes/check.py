"""``stagecoach nodes check``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from stagecoach.cli.nodes.words import NodeName
from stagecoach.cli.running import FAILED, TRY_AGAIN, AsJson, run
from stagecoach.cli.words import plain, size
from stagecoach.client import Client
from stagecoach.wire.nodes import CommandView

# The worst is said first.
_SIGNS = {"failure": "✗", "warning": "!", "good": "✓", "advice": "·"}


def check(
    node: NodeName,
    wait: Annotated[int, typer.Option(min=1, max=86_400, help="Seconds to wait for the node, which may be away or busy.")] = 300,
    as_json: AsJson = False,
) -> None:
    """Have a node look at its ways to the service and the store, and say what is wrong and what to do.

    Exit code 1: something does not work. 75: the node has not done it yet; it does when it comes back.
    """
    codes: list[int] = []

    async def work(client: Client) -> CommandView:
        found = await client.find_node(node)
        if found.state != "online":
            typer.echo(plain(f"{found.name} is {found.state}; waiting for it. Ctrl-C ends the waiting, not the check."), err=True)
        command = await client.check_network(found.id, wait_seconds=wait)
        codes.append(_exit_code(command))
        return command

    run(as_json, work, _show)
    if codes[0]:
        raise typer.Exit(codes[0])


def _exit_code(command: CommandView) -> int:
    if command.ended_at is None:
        return TRY_AGAIN
    levels = {verdict["level"] for _, way in _ways(command) for verdict in _verdicts(way)}
    # Nothing found out is no good news.
    return 0 if command.state == "done" and levels and "failure" not in levels else FAILED


def _show(command: CommandView) -> None:
    if command.ended_at is None:
        typer.echo(f"The check is {command.state}: the node has not done it yet. It does when it can ({command.id}).", err=True)
        return
    if command.state != "done" or command.result is None:
        typer.echo(plain(command.message or f"The check is {command.state}."), err=True)
        return
    said: set[str] = set()
    for name, way in _ways(command):
        typer.echo(plain(f"{name}  {way.get('host')} port {way.get('port')}"))
        for verdict in _verdicts(way):
            # Advice for the machine itself is the same on every way.
            if verdict["words"] not in said:
                typer.echo(plain(f"  {_SIGNS[verdict['level']]} {verdict['words']}"))
            said.add(verdict["words"])
    free = command.result.get("free_bytes")
    for name, size_bytes in free.items() if isinstance(free, Mapping) else ():
        typer.echo(plain(f"{name}  {size(size_bytes)} free" if isinstance(size_bytes, int) else f"{name}  free space not known"))


def _ways(command: CommandView) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Of what an agent wrote: nothing else is sure about it."""
    ways = (command.result or {}).get("ways")
    for name, way in ways.items() if isinstance(ways, Mapping) else ():
        if isinstance(way, Mapping):
            yield str(name), way


def _verdicts(way: Mapping[str, Any]) -> list[dict[str, str]]:
    found = way.get("verdicts")
    known = [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []
    verdicts = [{"level": str(each.get("level")), "words": str(each.get("words"))} for each in known]
    order = list(_SIGNS)
    return sorted((each for each in verdicts if each["level"] in _SIGNS), key=lambda each: order.index(each["level"]))
