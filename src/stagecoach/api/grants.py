"""``/nodes/{id}/grants``, ``/nodes/{id}/invitations``, ``/invitations/redeem`` and ``/grants``: who may send to whose nodes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from stagecoach.api.access import NodesReader, NodesWriter, Tools
from stagecoach.api.audit_trail import CurrentTrail
from stagecoach.api.nodes import NodeId
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.api.transfers import NO_NUL
from stagecoach.core.audit_log import Act
from stagecoach.core.nodes import Grant, HeldGrant, system_name
from stagecoach.flows.grant_node import (
    Terms,
    grant_node,
    invite_to_node,
    list_grants,
    list_held_grants,
    redeem_invitation,
    revoke_grant,
)
from stagecoach.wire import nodes as wire

router = APIRouter(tags=["nodes"], responses=PROBLEM_ANSWERS)
GrantId = Annotated[str, Path(max_length=64, pattern=NO_NUL, description="A grant's id, or an invitation's.")]
_OF_GRANT = {
    "delete_grant": {
        "operationId": "delete_grant",
        "parameters": {"node_id": "$request.path.node_id", "grant_id": "$response.body#/id"},
    }
}


@router.get("/nodes/{node_id}/grants", summary="List who may send to a node")
async def get_grants(node_id: NodeId, caller: NodesReader, tools: Tools) -> wire.GrantList:
    """And the invitations that nobody has redeemed yet."""
    return wire.GrantList(grants=[_grant(grant) for grant in await list_grants(tools, caller, node_id)])


@router.post(
    "/nodes/{node_id}/grants", status_code=201, summary="Allow somebody to send to a node", responses={201: {"links": _OF_GRANT}}
)
async def post_grant(
    node_id: NodeId, grant: wire.GrantRequest, caller: NodesWriter, tools: Tools, trail: CurrentTrail
) -> wire.GrantView:
    """Below a folder of its receive directory, so many bytes, until a date. Nobody but its owner ever sends from a node."""
    async with trail.of(Act.GRANT_MADE, node_id, user=grant.user, folder=grant.folder, max_bytes=grant.max_bytes) as noted:
        made = await grant_node(tools, caller, node_id, grant.user, _terms(grant))
        noted.detail["grant"] = made.id
    return _grant(made)


@router.delete("/nodes/{node_id}/grants/{grant_id}", status_code=204, summary="Revoke a grant, or an invitation")
async def delete_grant(node_id: NodeId, grant_id: GrantId, caller: NodesWriter, tools: Tools, trail: CurrentTrail) -> None:
    """Nothing new is sent by it."""
    async with trail.of(Act.GRANT_REVOKED, grant_id, node=node_id):
        await revoke_grant(tools, caller, node_id, grant_id)


@router.post(
    "/nodes/{node_id}/invitations", status_code=201, summary="Invite to send to a node", responses={201: {"links": _OF_GRANT}}
)
async def post_invitation(
    node_id: NodeId,
    invitation: wire.InvitationRequest,
    caller: NodesWriter,
    tools: Tools,
    request: Request,
    trail: CurrentTrail,
) -> wire.InvitationAnswer:
    """A link for one person, whoever redeems it first. It is shown once and holds for a week."""
    async with trail.of(Act.INVITATION_MADE, node_id, folder=invitation.folder, max_bytes=invitation.max_bytes) as noted:
        made = await invite_to_node(tools, caller, node_id, _terms(invitation))
        noted.detail["grant"] = made.grant.id
    # Behind the sign that browsers keep to themselves, so that no proxy's log has it.
    url = f"{str(request.base_url).rstrip('/')}/invitation#{made.token}"
    return wire.InvitationAnswer(**_grant(made.grant).model_dump(), token=made.token, url=url)


@router.post("/invitations/redeem", summary="Redeem an invitation")
async def post_redemption(
    invitation: wire.RedeemRequest, caller: NodesWriter, tools: Tools, trail: CurrentTrail
) -> wire.HeldGrantView:
    """Once; from now on the caller may send to the node."""
    async with trail.of(Act.INVITATION_REDEEMED) as noted:
        held = await redeem_invitation(tools, caller, invitation.token)
        noted.target = held.grant.id
    return _held(held)


@router.get("/grants", summary="List what you were granted")
async def get_held_grants(caller: NodesReader, tools: Tools) -> wire.HeldGrantList:
    """The nodes of others that you may send to."""
    return wire.HeldGrantList(grants=[_held(held) for held in await list_held_grants(tools, caller)])


def _terms(asked: wire.GrantRequest | wire.InvitationRequest) -> Terms:
    return Terms(asked.folder, asked.max_bytes, asked.expires_at, asked.label)


def _grant(grant: Grant) -> wire.GrantView:
    return wire.GrantView(
        id=grant.id,
        node_id=grant.node_id,
        user=grant.grantee,
        folder=grant.folder,
        max_bytes=grant.max_bytes,
        used_bytes=grant.used_bytes,
        created_at=grant.created_at,
        expires_at=grant.expires_at,
        invitation_expires_at=grant.invitation_expires_at,
        redeemed_at=grant.redeemed_at,
        label=grant.label,
    )


def _held(held: HeldGrant) -> wire.HeldGrantView:
    grant = held.grant
    return wire.HeldGrantView(
        id=grant.id,
        node_id=grant.node_id,
        container_id=grant.node_id,
        system=system_name(grant.node_id),
        node_name=held.node_name,
        node_owner=held.node_owner,
        folder=grant.folder,
        max_bytes=grant.max_bytes,
        used_bytes=grant.used_bytes,
        expires_at=grant.expires_at,
    )
