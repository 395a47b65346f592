"""Believes or refuses the credential of a node's agent; it opens the agents' routes and nothing else."""

from __future__ import annotations

from stagecoach.core.bearer_secrets import NODE_PREFIX, secret_digest
from stagecoach.core.errors import NotAuthenticated
from stagecoach.core.nodes import Node
from stagecoach.flows.toolbox import Toolbox


async def believe_node(tools: Toolbox, secret: str) -> Node:
    """Whose it is: looked up each time, so that a revoked one is refused at once. Raises NotAuthenticated."""
    digest = secret_digest(secret) if secret.startswith(NODE_PREFIX) else None
    node = await tools.nodes.find_by_credential(digest) if digest is not None else None
    if node is None:
        raise NotAuthenticated("The node's credential does not hold (any more); enrol the agent again.")
    return node
