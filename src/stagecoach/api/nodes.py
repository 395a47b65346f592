"""``/nodes``: data transfer nodes, for their owners and for whoever may send to them."""

from __future__ import annotations

import shlex
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from stagecoach.api.access import NodesReader, NodesWriter, Tools
from stagecoach.api.audit_trail import CurrentTrail
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.api.transfers import NO_NUL
from stagecoach.core.access import Caller
from stagecoach.core.audit_log import Act
from stagecoach.core.nodes import CommandState, Node, NodeCommand, system_name
from stagecoach.flows.change_node import change_node, revoke_node
from stagecoach.flows.change_queue import ask_for_check, order_commands, remove_command
from stagecoach.flows.register_node import RegisteredNode, register_node, renew_enrolment
from stagecoach.flows.send_to_store import send_to_store
from stagecoach.flows.show_nodes import list_commands, list_nodes, newest_checks, show_command, show_node
from stagecoach.flows.toolbox import Toolbox
from stagecoach.wire import nodes as wire
from stagecoach.wire.direct_commands import SendRequest, SendToStoreSpec

router = APIRouter(tags=["nodes"], responses=PROBLEM_ANSWERS)
NodeId = Annotated[str, Path(max_length=64, pattern=NO_NUL, description="A node's id.")]
CommandId = Annotated[str, Path(max_length=64, pattern=NO_NUL, description="A command's id.")]

# Where programs that read the document go on with what was made.
_OF_NODE = {
    name: {"operationId": name, "parameters": {"node_id": "$response.body#/id"}}
    for name in ("get_node", "patch_node", "delete_node", "get_commands", "post_command", "get_grants")
}
_OF_COMMAND = {
    "delete_command": {
        "operationId": "delete_command",
        "parameters": {"node_id": "$request.path.node_id", "command_id": "$response.body#/id"},
    },
    "get_command": {
        "operationId": "get_command",
        "parameters": {"node_id": "$request.path.node_id", "command_id": "$response.body#/id"},
    },
}


@router.post("/nodes", status_code=201, summary="Register a node", responses={201: {"links": _OF_NODE}})
async def post_node(
    node: wire.NodeRequest, caller: NodesWriter, tools: Tools, request: Request, trail: CurrentTrail
) -> wire.RegisteredNodeAnswer:
    """A machine of yours that will run `stagecoach agent`. The answer has the command that enrols it, once."""
    async with trail.of(Act.NODE_MADE, name=node.name) as noted:
        made = await register_node(tools, caller, node.name)
        noted.target = made.node.id
    return _registered(tools, caller, made, request)


@router.get("/nodes", summary="List nodes")
async def get_own_nodes(caller: NodesReader, tools: Tools) -> wire.NodeList:
    """Your own, newest first; revoked ones are left out."""
    nodes = await list_nodes(tools, caller)
    checks = await newest_checks(tools, nodes)
    return wire.NodeList(nodes=[node_view(tools, caller, node, checks.get(node.id)) for node in nodes])


@router.get("/nodes/{node_id}", summary="Show a node")
async def get_node(node_id: NodeId, caller: NodesReader, tools: Tools) -> wire.NodeView:
    """Your own, or one that you were granted to send to."""
    return await _shown(tools, caller, await show_node(tools, caller, node_id))


@router.patch("/nodes/{node_id}", summary="Change a node")
async def patch_node(
    node_id: NodeId, change: wire.NodeChange, caller: NodesWriter, tools: Tools, trail: CurrentTrail
) -> wire.NodeView:
    """Its name, or how many commands it carries out at once."""
    async with trail.of(Act.NODE_CHANGED, node_id, name=change.name, parallel=change.parallel):
        changed = await change_node(tools, caller, node_id, name=change.name, parallel=change.parallel)
        return await _shown(tools, caller, changed)


@router.delete("/nodes/{node_id}", status_code=204, summary="Revoke a node")
async def delete_node(node_id: NodeId, caller: NodesWriter, tools: Tools, trail: CurrentTrail) -> None:
    """At once: its credential holds no more, what is in its queue is cancelled, and nobody may send to it."""
    async with trail.of(Act.NODE_REVOKED, node_id):
        await revoke_node(tools, caller, node_id)


@router.post("/nodes/{node_id}/enrolment", status_code=201, summary="Make another enrolment token")
async def post_enrolment(
    node_id: NodeId, caller: NodesWriter, tools: Tools, request: Request, trail: CurrentTrail
) -> wire.RegisteredNodeAnswer:
    """For another machine, or after a loss: when it is used, the credential that the node had dies."""
    async with trail.of(Act.NODE_ENROLMENT_RENEWED, node_id):
        return _registered(tools, caller, await renew_enrolment(tools, caller, node_id), request)


@router.get("/nodes/{node_id}/commands", summary="List a node's commands")
async def get_commands(
    node_id: NodeId,
    caller: NodesReader,
    tools: Tools,
    state: Annotated[list[CommandState] | None, Query(description="One or several.", max_length=20)] = None,
    after: Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$", description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> wire.CommandPage:
    """Its queue and what has ended, the last of the queue first."""
    before = int(after) if after is not None else None
    found = await list_commands(tools, caller, node_id, state or (), before, limit + 1)
    page = found[:limit]
    following = str(page[-1].number) if len(found) > limit else None
    return wire.CommandPage(commands=[_command(command) for command in page], next=following)


@router.post(
    "/nodes/{node_id}/commands", status_code=201, summary="Have a node do something", responses={201: {"links": _OF_COMMAND}}
)
async def post_command(
    node_id: NodeId, command: wire.CommandRequest, caller: NodesWriter, tools: Tools, trail: CurrentTrail
) -> wire.CommandView:
    """Besides transfers, which come into the queue by themselves."""
    async with trail.of(Act.NODE_CHECK_ASKED, node_id, kind=command.kind):
        return _command(await ask_for_check(tools, caller, node_id))


@router.post(
    "/nodes/{node_id}/sends", status_code=201, summary="Have a node send to a store", responses={201: {"links": _OF_COMMAND}}
)
async def post_send(
    node_id: NodeId, request: SendRequest, caller: NodesWriter, tools: Tools, trail: CurrentTrail
) -> wire.CommandView:
    """To any S3 store, named by hand: a node's receiver, a MinIO, a bucket of somebody's. Its owner only. The key is sealed
    until the command has ended, and shown nowhere."""
    where = f"{request.endpoint.host}:{request.endpoint.port}/{request.bucket}"
    async with trail.of(Act.NODE_SEND_ASKED, node_id, path=request.source_path, store=where):
        spec = SendToStoreSpec.model_validate(request.model_dump()).model_dump(by_alias=True)
        key = request.access_key_id, request.secret_access_key.get_secret_value()
        return _command(await send_to_store(tools, caller, node_id, spec, key))


@router.get("/nodes/{node_id}/commands/{command_id}", summary="Show a node's command")
async def get_command(node_id: NodeId, command_id: CommandId, caller: NodesReader, tools: Tools) -> wire.CommandView:
    """With what the agent said at its end: of a network check, `result` is what it found."""
    return _command(await show_command(tools, caller, node_id, command_id))


@router.put("/nodes/{node_id}/order", status_code=204, summary="Order what waits in a node's queue")
async def put_order(node_id: NodeId, order: wire.OrderRequest, caller: NodesWriter, tools: Tools, trail: CurrentTrail) -> None:
    """The named commands, pending or held, take each other's places so that they come in this order."""
    async with trail.of(Act.NODE_QUEUE_ORDERED, node_id, count=len(order.ids)):
        await order_commands(tools, caller, node_id, order.ids)


@router.delete("/nodes/{node_id}/commands/{command_id}", status_code=204, summary="Take a command off a node's queue")
async def delete_command(node_id: NodeId, command_id: CommandId, caller: NodesWriter, tools: Tools, trail: CurrentTrail) -> None:
    """Cancelled, with its transfer if it is one's; one that has ended is only not listed any more."""
    async with trail.of(Act.NODE_COMMAND_REMOVED, command_id, node=node_id):
        await remove_command(tools, caller, node_id, command_id)


async def _shown(tools: Toolbox, caller: Caller, node: Node) -> wire.NodeView:
    checks = await newest_checks(tools, [node]) if caller.may_see(node.owner) else {}
    return node_view(tools, caller, node, checks.get(node.id))


def node_view(tools: Toolbox, caller: Caller, node: Node, check: NodeCommand | None = None) -> wire.NodeView:
    """As the caller may see it. ``check`` is the newest of its network."""
    now, offline_after_seconds = tools.now(), tools.settings.nodes.offline_after_seconds
    seen = wire.NodeView(
        id=node.id,
        container_id=node.id,
        system=system_name(node.id),
        name=node.name,
        owner=node.owner,
        state=node.state(now, offline_after_seconds).value,
        last_seen=node.last_seen_at,
    )
    if not caller.may_see(node.owner):
        return seen
    free = wire.FreeBytes(receive=node.receive_free_bytes, send=node.send_free_bytes)
    return seen.model_copy(
        update={
            "version": node.agent_version,
            "platform": node.platform,
            "free_bytes": free,
            "address": node.address,
            "health": node.told_health(now, check),
            "parallel": node.parallel,
            "created_at": node.created_at,
            "enrolled_at": node.enrolled_at,
        }
    )


def _registered(tools: Toolbox, caller: Caller, made: RegisteredNode, request: Request) -> wire.RegisteredNodeAnswer:
    server = str(request.base_url).rstrip("/")
    words = ["stagecoach", "agent", "enrol", "--server", server, "--token", made.enrolment_token]
    return wire.RegisteredNodeAnswer(
        **node_view(tools, caller, made.node).model_dump(),
        enrolment_token=made.enrolment_token,
        enrolment_expires_at=made.node.enrolment_expires_at or made.node.created_at,
        command=f"{shlex.join(words)} --send DIRECTORY --receive DIRECTORY",
    )


def _command(command: NodeCommand) -> wire.CommandView:
    result = command.result or {}
    direction, source_path = command.spec.get("direction"), command.spec.get("sourcePath")
    return wire.CommandView(
        id=command.id,
        number=command.number,
        kind=command.kind.value,
        state=command.state.value,
        owner=command.owner,
        transfer_id=command.shown_transfer_id,
        source_path=source_path if isinstance(source_path, str) else None,
        progress=dict(command.progress) if command.progress is not None else None,
        direction=direction if isinstance(direction, str) else None,
        cancel_asked=command.cancel_asked,
        created_at=command.created_at,
        delivered_at=command.delivered_at,
        started_at=command.started_at,
        ended_at=command.ended_at,
        attempt=command.attempt,
        **{name: result.get(name) for name in ("exit_code", "code", "message", "result")},
    )
