"""Enrols a node's agent: its one-time token becomes the node's credential."""

from __future__ import annotations

from dataclasses import dataclass

from stagecoach.core.bearer_secrets import ENROLMENT_PREFIX, NODE_PREFIX, new_secret, secret_digest
from stagecoach.core.errors import NotAuthenticated, PermissionRefused
from stagecoach.core.nodes import Node
from stagecoach.flows.toolbox import Toolbox


@dataclass(frozen=True, slots=True)
class EnrolledNode:
    """A node with its credential, which is known here and never again."""

    node: Node
    credential: str

    def __repr__(self) -> str:
        return f"EnrolledNode({self.node.id!r})"


async def enrol_node(
    tools: Toolbox, token: str, instance_id: str, *, version: str, platform: str, address: str | None
) -> EnrolledNode:
    """The token works once; the same agent, whose answer was lost, gets another credential for ten minutes.

    The token is found by its digest, so nothing is told by how long a comparison takes. What credential the node had
    holds no more.

    Raises:
        NotAuthenticated: the token was used, has expired, is replaced or was never made. PermissionRefused.
    """
    if not tools.settings.nodes.enabled:
        raise PermissionRefused("Data transfer nodes are switched off here.")
    digest = secret_digest(token) if token.startswith(ENROLMENT_PREFIX) else None
    credential = new_secret(NODE_PREFIX, tools.random_bits)
    node = None
    if digest is not None:
        node = await tools.nodes.enrol(
            digest,
            instance_id,
            secret_digest(credential) or "",
            version=version,
            platform=platform,
            address=address,
            now=tools.now(),
        )
    if node is None:
        raise NotAuthenticated("The enrolment token was used, has expired or was never made; make a new one for the node.")
    tools.node_calls.wake(node.id)
    return EnrolledNode(node, credential)
