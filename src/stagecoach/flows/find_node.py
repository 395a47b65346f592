"""Finds a node for whoever may know of it; for everybody else there is none."""

from __future__ import annotations

from stagecoach.core.access import Caller
from stagecoach.core.names import is_transfer_id
from stagecoach.core.nodes import Node, node_not_found
from stagecoach.flows.toolbox import Toolbox


async def own_node(tools: Toolbox, caller: Caller, node_id: str, *, or_administrators: bool = False) -> Node:
    """The caller's own, which is not revoked. Raises NodeNotFound."""
    node = await tools.nodes.get(node_id) if is_transfer_id(node_id) else None
    if node is None or node.revoked_at is not None:
        raise node_not_found()
    if node.owner != caller.username and not (or_administrators and caller.is_admin):
        raise node_not_found()
    return node


async def node_to_send_to(tools: Toolbox, caller: Caller, node_id: str) -> Node:
    """The caller's own, or one that he was granted to send to. Raises NodeNotFound."""
    node = await tools.nodes.get(node_id) if is_transfer_id(node_id) else None
    if node is None or node.revoked_at is not None:
        raise node_not_found()
    if node.owner != caller.username and not await tools.node_grants.live_of(node_id, caller.username, tools.now()):
        raise node_not_found()
    return node
