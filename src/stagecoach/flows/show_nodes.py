"""Answers questions about nodes and their queues: to their owners all, to whoever may send to one what that takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from stagecoach.core.access import Caller
from stagecoach.core.errors import NodeNotFound
from stagecoach.core.names import is_transfer_id
from stagecoach.core.nodes import CommandState, Node, NodeCommand
from stagecoach.flows.find_node import node_to_send_to, own_node
from stagecoach.flows.toolbox import Toolbox


async def list_nodes(tools: Toolbox, caller: Caller) -> Sequence[Node]:
    """The caller's own, newest first, without those that are revoked."""
    return await tools.nodes.of_owner(caller.username)


async def show_node(tools: Toolbox, caller: Caller, node_id: str) -> Node:
    """One's own, an administrator's any, or one that one was granted to send to. Raises NodeNotFound."""
    if caller.is_admin:
        return await own_node(tools, caller, node_id, or_administrators=True)
    return await node_to_send_to(tools, caller, node_id)


async def newest_checks(tools: Toolbox, nodes: Sequence[Node]) -> Mapping[str, NodeCommand]:
    """The last check of each node's network, by the node's id; nothing where there was none."""
    return await tools.node_commands.newest_checks([node.id for node in nodes])


async def show_command(tools: Toolbox, caller: Caller, node_id: str, command_id: str) -> NodeCommand:
    """One of the node's queue, or one that has ended. Raises NodeNotFound."""
    node = await own_node(tools, caller, node_id)
    command = await tools.node_commands.get(node.id, command_id) if is_transfer_id(command_id) else None
    if command is None:
        raise NodeNotFound("There is no command with this id in this node's queue.")
    return command


async def list_commands(
    tools: Toolbox, caller: Caller, node_id: str, states: Collection[CommandState], before_number: int | None, limit: int
) -> Sequence[NodeCommand]:
    """The node's queue and what has ended, the last of the queue first. Raises NodeNotFound."""
    node = await own_node(tools, caller, node_id)
    return await tools.node_commands.page(node.id, states, before_number, limit)
