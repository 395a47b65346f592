"""Which system or node a transfer goes to or comes from, and whether its owner may: looked at before anything is made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from stagecoach.core.access import Caller
from stagecoach.core.errors import StagecoachError
from stagecoach.core.nodes import Grant, GrantUse, covering_grant, node_id_of, node_not_found
from stagecoach.core.transfer import Transfer
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
    grant = await _used_grant(tools, node.id, caller.username, path, size_bytes)
    try:
        yield
    except StagecoachError:
        await tools.node_grants.give_back(grant.id, size_bytes)
        raise


async def use_of_measured(tools: Toolbox, transfer: Transfer, size_bytes: int) -> GrantUse | None:
    """What was measured on its way counts against the grant once it is known; None on one's own node or on a cluster.

    Nothing is counted here: it is when the transfer is saved with it, or whoever comes second would count it again.

    Raises as :func:`granted`.
    """
    node_id = node_id_of(transfer.system)
    node = await tools.nodes.get(node_id) if node_id is not None else None
    if node is not None and node.owner != transfer.owner:
        grants = await tools.node_grants.live_of(node.id, transfer.owner, tools.now())
        return GrantUse(covering_grant(grants, transfer.real_path, size_bytes, tools.now()).id, size_bytes)
    return None


async def require_grant(tools: Toolbox, transfer: Transfer) -> None:
    """What goes on to somebody else's node is still granted. Its bytes are counted already.

    Raises NodeNotFound: no grant is live (any more), or the node is revoked. PathRefused: the grants do not cover it.
    """
    node_id = node_id_of(transfer.system)
    node = await tools.nodes.get(node_id) if node_id is not None else None
    if node is None:
        return
    if node.revoked_at is not None:
        raise node_not_found()
    if node.owner != transfer.owner:
        grants = await tools.node_grants.live_of(node.id, transfer.owner, tools.now())
        covering_grant(grants, transfer.real_path, 0, tools.now())


async def _used_grant(tools: Toolbox, node_id: str, username: str, path: str, size_bytes: int) -> Grant:
    while True:
        grants = await tools.node_grants.live_of(node_id, username, tools.now())
        grant = covering_grant(grants, path, size_bytes, tools.now())
        if await tools.node_grants.use(grant.id, size_bytes, tools.now()):
            return grant
        # Somebody used it up, or took it away, since it was read.
