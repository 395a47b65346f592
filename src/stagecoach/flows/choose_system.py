"""Which system or node a transfer goes to or comes from, and whether its owner may: looked at before anything is made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from stagecoach.core.access import Caller
from stagecoach.core.errors import StagecoachError
from stagecoach.core.nodes import covering_grant, node_id_of
from stagecoach.flows.find_node import node_to_send_to, own_node
from stagecoach.flows.toolbox import System, Toolbox


async def find_destination(tools: Toolbox, caller: Caller, name: str) -> System:
    """A cluster that can act as the caller, his own node, or one that he was granted to send to.

    Raises SystemNotFound, PermissionRefused; NodeNotFound, whether there is such a node or not.
    """
    node_id = node_id_of(name)
    if node_id is None:
        return tools.system_for(caller.username, name)
    node = await node_to_send_to(tools, caller, node_id)
    return replace(tools.system(name), node=node)


async def find_source(tools: Toolbox, caller: Caller, name: str) -> System:
    """As :func:`find_destination`, but from a node only its owner sends."""
    node_id = node_id_of(name)
    if node_id is None:
        return tools.system_for(caller.username, name)
    node = await own_node(tools, caller, node_id)
    return replace(tools.system(name), node=node)


@asynccontextmanager
async def granted(tools: Toolbox, caller: Caller, system: System, path: str, size_bytes: int) -> AsyncIterator[None]:
    """Around the making of an upload: to somebody else's node its bytes are counted against the grant, however many ask at
    once; what is not made in the end is not counted.

    Raises NodeNotFound: no grant is live (any more). PathRefused, GrantExceeded: the grants do not cover it.
    """
    node = system.node
    if node is None or node.owner == caller.username:
        yield
        return
    while True:
        grants = await tools.node_grants.live_of(node.id, caller.username, tools.now())
        grant = covering_grant(grants, path, size_bytes, tools.now())
        if await tools.node_grants.use(grant.id, size_bytes, tools.now()):
            break
        # Somebody used it up, or took it away, since it was read.
    try:
        yield
    except StagecoachError:
        await tools.node_grants.give_back(grant.id, size_bytes)
        raise
