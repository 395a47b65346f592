"""The commands of the direct road beside its jobs: the receiving node opens a folder for one key, closes it, removes it.

What is done here has a name in the node's queue and can be repeated. The jobs themselves (``send``, ``place``) are submitted
as every job is, by ``NodeScheduler``. See ``docs/decisions/0024-the-direct-road.md``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from stagecoach.core.errors import NodeNotFound, SubmissionRefused
from stagecoach.core.nodes import CommandKind, NodeCommand, node_id_of
from stagecoach.core.transfer import Transfer
from stagecoach.database.sealing import AccessKey
from stagecoach.flows.bound_arrival import most_bytes
from stagecoach.flows.direct_jobs import receive_name
from stagecoach.flows.toolbox import Toolbox

log = logging.getLogger(__name__)


def new_key(random_bits: Callable[[int], int]) -> AccessKey:
    """Good for nothing yet."""
    return AccessKey(f"SC{random_bits(72):018x}", f"{random_bits(192):048x}")


async def relay_of(tools: Toolbox, row: Transfer) -> Transfer | None:
    """The relay that a leg belongs to, or the relay itself; None: it is forgotten."""
    return await tools.transfers.get(row.relay_of) if row.relay_of is not None else row


async def open_receiver(tools: Toolbox, leg: Transfer) -> None:
    """Ask the destination to open a fresh key's folder for this attempt of ``leg``; those of earlier attempts are closed.

    Raises SubmissionRefused: the node is revoked, or nothing can be sealed (any more).
    """
    relay, sealing = await relay_of(tools, leg), tools.sealing
    if relay is None or sealing is None:
        raise SubmissionRefused("The direct road cannot be taken any more: nodes.sealing_key is not set.")
    node_id, name = node_id_of(relay.system) or "", receive_name(leg)
    await close_receiver(tools, leg, but=name)
    command = NodeCommand(
        id=tools.new_id(),
        node_id=node_id,
        number=0,
        kind=CommandKind.RECEIVE,
        name=name,
        owner=relay.owner,
        created_at=tools.now(),
        transfer_id=leg.id,
        spec={
            "transferId": relay.id,
            "targetPath": relay.real_path,
            "isDirectory": relay.archive is not None,
            "maxBytes": await most_bytes(tools, relay),
        },
    )
    try:
        await tools.node_commands.add(command, sealed=sealing.seal(new_key(tools.random_bits)))
    except NodeNotFound as error:
        raise SubmissionRefused("The node that was to receive is revoked.") from error
    tools.node_calls.wake(node_id)


async def receiver_of(tools: Toolbox, leg: Transfer) -> NodeCommand | None:
    """The destination's ``receive`` of this attempt, newest if there were several."""
    relay = await relay_of(tools, leg)
    if relay is None:
        return None
    found = await tools.node_commands.named(node_id_of(relay.system) or "", relay.owner, receive_name(leg))
    return found[-1] if found else None


async def close_receiver(tools: Toolbox, row: Transfer, but: str = "") -> None:
    """Have every ``receive`` of a relay (or of a leg's) end; what arrived stays. Nothing where it took another road."""
    relay = await relay_of(tools, row)
    if relay is None or relay.source_transfer_id is None or (node_id := node_id_of(relay.system)) is None:
        return
    for command in await tools.node_commands.open_of_transfer(node_id, relay.source_transfer_id, CommandKind.RECEIVE):
        if command.name != but and not command.cancel_asked:
            await tools.node_commands.cancel(node_id, command.id, tools.now())
            tools.node_calls.wake(node_id)


async def discard_arrived(tools: Toolbox, relay: Transfer, attempt: int) -> None:
    """Close the folder and have it removed: at once, or when its node is back. Of a revoked node nothing can be had."""
    await close_receiver(tools, relay)
    await queue_discard(tools, relay, f"{relay.attempt}-{attempt}", relay.real_path)


async def queue_discard(tools: Toolbox, row: Transfer, which: str, target_path: str | None) -> None:
    """The node removes what is hidden of ``row``'s transfer; one discard a ``which``."""
    node_id = node_id_of(row.system) or ""
    spec = {"transferId": row.id} | ({"targetPath": target_path} if target_path is not None else {})
    command = NodeCommand(
        id=tools.new_id(),
        node_id=node_id,
        number=0,
        kind=CommandKind.DISCARD,
        name=f"discard-{row.id}-{which}",
        owner=row.owner,
        created_at=tools.now(),
        transfer_id=row.id,
        spec=spec,
    )
    try:
        await tools.node_commands.add(command)
    except NodeNotFound:
        log.info("transfer %s: its node is revoked, so what is hidden there stays", row.id)
    tools.node_calls.wake(node_id)
