"""How nodes and grants are named on the command line, and written for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from stagecoach.cli.words import local_time, plain, size
from stagecoach.wire.nodes import CommandView, GrantView, HeldGrantView, NodeView

NodeName = Annotated[str, typer.Argument(metavar="NODE", help="A node's name or id.")]
Folder = Annotated[str, typer.Option(help="Below the node's receive directory; / is all of it.")]
MaxBytes = Annotated[str | None, typer.Option("--max-bytes", help="Of all transfers together, like 500GiB or 10TB.")]
Expires = Annotated[str | None, typer.Option(help="A date or a time (ISO 8601; UTC where it names no zone).")]
Label = Annotated[str | None, typer.Option(help="A note to yourself.")]


def time_of(text: str | None) -> datetime | None:
    """Raises BadParameter."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("write it like 2027-01-31 or 2027-01-31T18:00:00+01:00", param_hint="--expires") from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def node_line(node: NodeView) -> str:
    """One line."""
    words = [node.id, node.state, node.name]
    if node.last_seen is not None:
        words.append(f"seen {local_time(node.last_seen)}")
    if node.free_bytes is not None and node.free_bytes.receive is not None:
        words.append(f"{size(node.free_bytes.receive)} free")
    return plain("  ".join([*words, *(node.health or [])]))


def command_line(command: CommandView) -> str:
    """One line."""
    what = {"fetch": "move to the node", "put": "move from the node"}.get(command.direction or "", command.kind)
    words = [command.id, command.state, what, f"by {command.owner}", local_time(command.created_at)]
    more = [word for word in (command.transfer_id, command.message) if word]
    return plain("  ".join([*words, *more]))


def grant_line(grant: GrantView) -> str:
    """One line."""
    who = grant.user if grant.user is not None else "(invitation, not redeemed)"
    ends = grant.expires_at if grant.user is not None else grant.invitation_expires_at
    return _terms([grant.id, who], grant, ends, grant.label)


def held_line(grant: HeldGrantView) -> str:
    """One line."""
    return _terms([grant.node_id, f"{grant.node_name} of {grant.node_owner}"], grant, grant.expires_at, None)


def _terms(words: list[str], grant: GrantView | HeldGrantView, ends: datetime | None, label: str | None) -> str:
    bound = "no limit" if grant.max_bytes is None else size(grant.max_bytes)
    words += [grant.folder, f"{size(grant.used_bytes)} of {bound}"]
    words += [f"until {local_time(ends)}"] if ends is not None else []
    return plain("  ".join(words + ([label] if label else [])))
