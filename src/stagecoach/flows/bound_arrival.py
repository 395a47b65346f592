"""What a command that sends or receives is held to, which may change while it runs: how fast, and how much may arrive.

The receiving node measures what comes, so what a sender was granted holds whatever his agent says.
"""

from __future__ import annotations

from dataclasses import dataclass

from stagecoach.core.nodes import CommandKind, NodeCommand, node_id_of
from stagecoach.core.transfer import Transfer
from stagecoach.flows.toolbox import Toolbox


@dataclass(frozen=True, slots=True)
class CommandBounds:
    """None: there is none, or the command is of a kind that has none."""

    rate_limit_bytes_per_second: int | None = None
    max_bytes: int | None = None


async def bounds_now(tools: Toolbox, command: NodeCommand) -> CommandBounds:
    """As its agent is told with each report of progress."""
    if command.kind is CommandKind.SEND_TO_STORE:
        rate = command.spec.get("rateLimitBytesPerSecond")
        return CommandBounds(rate if isinstance(rate, int) else None)
    leg = await tools.transfers.get(command.transfer_id) if command.transfer_id is not None else None
    if leg is None:
        return CommandBounds()
    if command.kind is CommandKind.SEND:
        return CommandBounds(leg.rate_limit_bytes_per_second)
    relay = await tools.transfers.get(leg.relay_of) if leg.relay_of is not None else None
    return CommandBounds(max_bytes=await most_bytes(tools, relay)) if relay is not None else CommandBounds()


async def most_bytes(tools: Toolbox, relay: Transfer) -> int | None:
    """What may arrive of a transfer that goes straight: as much as its sender has measured, which is counted already; before
    that as much as his grant and the settings leave him. None: nothing bounds it."""
    if relay.size_bytes is not None:
        return relay.size_bytes
    systems = [tools.known_system(name) for name in (relay.system, relay.source_system or "")]
    limits = [system.settings.limits.max_file_size_bytes for system in systems if system is not None]
    return min((each for each in [*limits, await _left_of_grants(tools, relay)] if each is not None), default=None)


async def _left_of_grants(tools: Toolbox, relay: Transfer) -> int | None:
    """Of the one that leaves most; None on one's own node, or where one has no bound."""
    node = await tools.nodes.get(node_id_of(relay.system) or "")
    if node is None or node.owner == relay.owner:
        return None
    grants = await tools.node_grants.live_of(node.id, relay.owner, tools.now())
    lefts = [
        None if grant.max_bytes is None else max(0, grant.max_bytes - grant.used_bytes)
        for grant in grants
        if grant.refusal(relay.real_path, 0) is None
    ]
    # Under a grant that holds no more goes on what was measured, and nothing else.
    return None if None in lefts else max((left for left in lefts if left is not None), default=0)
