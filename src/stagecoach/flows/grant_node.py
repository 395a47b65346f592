"""Gives others the right to send to a node, by name or by a link that its first redeemer keeps, and takes it away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from stagecoach.core.access import Caller
from stagecoach.core.bearer_secrets import INVITATION_PREFIX, new_secret, secret_digest
from stagecoach.core.errors import InvalidRequest, NodeNotFound
from stagecoach.core.names import is_transfer_id
from stagecoach.core.nodes import INVITATION_SECONDS, Grant, HeldGrant, checked_folder
from stagecoach.flows.find_node import own_node
from stagecoach.flows.toolbox import Toolbox


@dataclass(frozen=True, slots=True)
class Terms:
    """What may be sent: below which folder, how many bytes in all, until when. None: without that bound."""

    folder: str = "/"
    max_bytes: int | None = None
    expires_at: datetime | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Invitation:
    """A grant that nobody has yet; its token is known here and never again."""

    grant: Grant
    token: str

    def __repr__(self) -> str:
        return f"Invitation({self.grant.id!r})"


async def grant_node(tools: Toolbox, caller: Caller, node_id: str, user: str, terms: Terms) -> Grant:
    """``user`` may send to the node from now on; whether there is such a user is not known here.

    Raises NodeNotFound, PathRefused, InvalidRequest, LimitReached.
    """
    node = await own_node(tools, caller, node_id)
    if user == node.owner:
        raise InvalidRequest("You may send to your own node without a grant.")
    grant = _grant(tools, caller, node.id, terms, grantee=user)
    await tools.node_grants.add(grant, None, tools.settings.nodes.max_grants_per_node)
    return grant


async def invite_to_node(tools: Toolbox, caller: Caller, node_id: str, terms: Terms) -> Invitation:
    """Whoever redeems it first has the grant. Raises as :func:`grant_node`."""
    node = await own_node(tools, caller, node_id)
    token = new_secret(INVITATION_PREFIX, tools.random_bits)
    ends = tools.soon(INVITATION_SECONDS)
    ends = min(ends, terms.expires_at) if terms.expires_at is not None else ends
    grant = _grant(tools, caller, node.id, terms, invitation_expires_at=ends)
    await tools.node_grants.add(grant, secret_digest(token), tools.settings.nodes.max_grants_per_node)
    return Invitation(grant, token)


async def redeem_invitation(tools: Toolbox, caller: Caller, token: str) -> HeldGrant:
    """Once. Raises NodeNotFound: it was redeemed, revoked, has expired, or never was; or it is for one's own node."""
    digest = secret_digest(token) if token.startswith(INVITATION_PREFIX) else None
    held = await tools.node_grants.redeem(digest, caller.username, tools.now()) if digest is not None else None
    if held is None:
        raise NodeNotFound("The invitation was redeemed or revoked, has expired, or is for your own node; ask for another one.")
    return held


async def list_grants(tools: Toolbox, caller: Caller, node_id: str) -> Sequence[Grant]:
    """Those that hold and invitations that are open, newest first. Raises NodeNotFound."""
    node = await own_node(tools, caller, node_id)
    return await tools.node_grants.of_node(node.id, tools.now())


async def revoke_grant(tools: Toolbox, caller: Caller, node_id: str, grant_id: str) -> None:
    """Nothing new is sent by it. What was begun goes on; the node's owner may take it off the queue. Raises NodeNotFound."""
    node = await own_node(tools, caller, node_id)
    is_there = is_transfer_id(grant_id) and await tools.node_grants.revoke(node.id, grant_id, tools.now())
    if not is_there:
        raise NodeNotFound("There is no grant with this id for this node.")


async def list_held_grants(tools: Toolbox, caller: Caller) -> Sequence[HeldGrant]:
    """What the caller may send to, newest first."""
    return await tools.node_grants.of_grantee(caller.username, tools.now())


def _grant(
    tools: Toolbox,
    caller: Caller,
    node_id: str,
    terms: Terms,
    *,
    grantee: str | None = None,
    invitation_expires_at: datetime | None = None,
) -> Grant:
    now = tools.now()
    if terms.expires_at is not None and terms.expires_at <= now:
        raise InvalidRequest("The grant would have expired already; give a time to come.")
    return Grant(
        id=tools.new_id(),
        node_id=node_id,
        created_by=caller.username,
        created_at=now,
        grantee=grantee,
        expires_at=terms.expires_at,
        folder=checked_folder(terms.folder),
        max_bytes=terms.max_bytes,
        invitation_expires_at=invitation_expires_at,
        label=terms.label,
    )
