"""Registers a node, and makes the one-time tokens with which its agent enrols."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stagecoach.core.access import Caller
from stagecoach.core.bearer_secrets import ENROLMENT_PREFIX, new_secret, secret_digest
from stagecoach.core.errors import PermissionRefused
from stagecoach.core.nodes import Node
from stagecoach.flows.find_node import own_node
from stagecoach.flows.toolbox import Toolbox


@dataclass(frozen=True, slots=True)
class RegisteredNode:
    """A node with a new enrolment token, which is known here and never again."""

    node: Node
    enrolment_token: str

    def __repr__(self) -> str:
        return f"RegisteredNode({self.node.id!r})"


async def register_node(tools: Toolbox, caller: Caller, name: str) -> RegisteredNode:
    """Raises PermissionRefused: nodes are switched off. NameTaken, LimitReached."""
    settings = tools.settings.nodes
    if not settings.enabled:
        raise PermissionRefused("Data transfer nodes are switched off here.")
    secret = new_secret(ENROLMENT_PREFIX, tools.random_bits)
    node = Node(
        id=tools.new_id(),
        owner=caller.username,
        name=name,
        created_at=tools.now(),
        enrolment_expires_at=tools.soon(settings.enrolment_seconds),
    )
    await tools.nodes.add(node, secret_digest(secret) or "", settings.max_nodes_per_user)
    return RegisteredNode(node, secret)


async def renew_enrolment(tools: Toolbox, caller: Caller, node_id: str) -> RegisteredNode:
    """Another token; the node's credential holds until an agent enrols with it. Raises NodeNotFound, PermissionRefused."""
    settings = tools.settings.nodes
    if not settings.enabled:
        raise PermissionRefused("Data transfer nodes are switched off here.")
    node = await own_node(tools, caller, node_id)
    secret, expires_at = new_secret(ENROLMENT_PREFIX, tools.random_bits), tools.soon(settings.enrolment_seconds)
    await tools.nodes.renew_enrolment(node.id, secret_digest(secret) or "", expires_at)
    return RegisteredNode(replace(node, enrolment_expires_at=expires_at, enrolment_used_at=None), secret)
