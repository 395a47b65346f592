"""What a node's owner does with its queue: asks the node to try its network, orders what waits, takes commands off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stagecoach.core.access import Caller
from stagecoach.core.errors import InvalidRequest, NodeNotFound
from stagecoach.core.names import is_transfer_id
from stagecoach.core.nodes import CommandKind, NodeCommand
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.find_node import own_node
from stagecoach.flows.toolbox import Toolbox

MAX_OPEN_CHECKS = 5


async def ask_for_check(tools: Toolbox, caller: Caller, node_id: str) -> NodeCommand:
    """The node tries whether it reaches this service and the store. Raises NodeNotFound, LimitReached."""
    node = await own_node(tools, caller, node_id)
    command_id = tools.new_id()
    command = NodeCommand(
        id=command_id,
        node_id=node.id,
        number=0,
        kind=CommandKind.CHECK_NETWORK,
        name=f"check-{command_id}",
        owner=caller.username,
        created_at=tools.now(),
        spec={"storeUrl": tools.settings.s3.client_url},
    )
    added = await tools.node_commands.add(command, MAX_OPEN_CHECKS)
    tools.node_calls.wake(node.id)
    return added


async def order_commands(tools: Toolbox, caller: Caller, node_id: str, command_ids: Sequence[str]) -> None:
    """These wait in this order from now on, at the places that they have among all.

    Raises:
        NodeNotFound; InvalidRequest: one is named twice. Conflict: one of them does not wait; ``data`` has it.
    """
    node = await own_node(tools, caller, node_id)
    if len(set(command_ids)) != len(command_ids):
        raise InvalidRequest("Each command may be named once.")
    await tools.node_commands.put_in_order(node.id, command_ids)
    tools.node_calls.wake(node.id)


async def remove_command(tools: Toolbox, caller: Caller, node_id: str, command_id: str) -> None:
    """One that has not ended is cancelled, one of a transfer with its transfer, whosever that is: the queue is its owner's.
    One that has ended is taken off the list; what it did stays known.

    Raises:
        NodeNotFound; Conflict: its transfer has ended at this moment.
    """
    node = await own_node(tools, caller, node_id)
    command = await tools.node_commands.get(node.id, command_id) if is_transfer_id(command_id) else None
    if command is None:
        raise NodeNotFound("There is no command with this id in this node's queue.")
    if command.state.is_end:
        await tools.node_commands.hide(node.id, command.id)
        return
    if command.transfer_id is not None and command.kind is not CommandKind.DISCARD:
        # For this one act he is what an administrator is: the transfer may be that of somebody who sends to him.
        transfer_id = command.shown_transfer_id or command.transfer_id
        await cancel_transfer(tools, replace(caller, is_admin=True), transfer_id)
        return
    await tools.node_commands.cancel(node.id, command.id, tools.now())
    tools.node_calls.wake(node.id)
