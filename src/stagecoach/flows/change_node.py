"""Changes a node, and takes it away."""

from __future__ import annotations

from stagecoach.core.access import Caller
from stagecoach.core.nodes import Node
from stagecoach.flows.find_node import own_node
from stagecoach.flows.toolbox import Toolbox


async def change_node(tools: Toolbox, caller: Caller, node_id: str, *, name: str | None, parallel: int | None) -> Node:
    """What is not None; its agent is told. Raises NodeNotFound, NameTaken."""
    node = await own_node(tools, caller, node_id)
    await tools.nodes.change(node.id, name=name, parallel=parallel)
    tools.node_calls.wake(node.id)
    return await own_node(tools, caller, node_id)


async def revoke_node(tools: Toolbox, caller: Caller, node_id: str) -> None:
    """Its credential and tokens hold no more, its queue and its grants are empty; an administrator may do it too.

    Transfers to it and from it fail by themselves, and the worker takes their staged data away. Raises NodeNotFound.
    """
    node = await own_node(tools, caller, node_id, or_administrators=True)
    await tools.nodes.revoke(node.id, tools.now())
    tools.node_calls.wake(node.id)
    tools.nudge_worker()
