"""``/agent``: what the agents of data transfer nodes ask and tell. A node's credential opens these routes and no others."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from stagecoach.api.access import CurrentNode, Tools, open_to_all
from stagecoach.api.audit_trail import CurrentTrail
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.api.request_rate import address_of
from stagecoach.api.transfers import NO_NUL
from stagecoach.core.audit_log import Act
from stagecoach.core.nodes import AgentReport
from stagecoach.flows.enrol_node import enrol_node
from stagecoach.flows.note_command import note_end, note_progress, note_start
from stagecoach.flows.poll_node import PollAnswer, poll_node
from stagecoach.wire import agent as wire

router = APIRouter(prefix="/agent", tags=["agent"], responses=PROBLEM_ANSWERS)
CommandId = Annotated[str, Path(max_length=64, pattern=NO_NUL, description="A command's id.")]


@router.post("/enrol", summary="Enrol a node's agent", dependencies=[open_to_all()])
async def post_enrol(request: wire.EnrolRequest, tools: Tools, connection: Request, trail: CurrentTrail) -> wire.Enrolled:
    """With the one-time token that the node's owner was shown. The same agent may ask again within ten minutes when the
    answer was lost, and gets another credential."""
    enrolled = await enrol_node(
        tools,
        request.token,
        request.instance_id,
        version=_plain(request.version),
        platform=_plain(request.platform),
        address=address_of(connection),
    )
    node = enrolled.node
    await trail.record(Act.NODE_ENROLLED, node.id, who=node.owner, instance=request.instance_id)
    return wire.Enrolled(node_id=node.id, name=node.name, credential=enrolled.credential, poll_seconds=wire.MAX_WAIT_SECONDS)


@router.post("/poll", summary="Ask for work")
async def post_poll(request: wire.PollRequest, node: CurrentNode, tools: Tools, connection: Request) -> wire.PollAnswer:
    """Answered at once where there is some, else when some comes, `waitSeconds` later at the latest. It says that the node
    is there, and that it still has what it names as `running`."""
    report = AgentReport(
        instance_id=request.instance_id,
        version=_plain(request.version),
        platform=_plain(request.platform),
        running=tuple(request.running),
        capacity=request.capacity,
        receive_free_bytes=request.free_bytes.receive,
        send_free_bytes=request.free_bytes.send,
        health=tuple(_plain(sentence) for sentence in request.health),
        receiver=request.receiver.model_dump() if request.receiver is not None else None,
        kinds=tuple(request.kinds),
        address=address_of(connection),
        expiring=tuple(request.expiring),
    )
    return _shown(await poll_node(tools, node, report, request.wait_seconds, connection.is_disconnected))


@router.post("/commands/{command_id}/started", status_code=204, summary="Say that a command has begun")
async def post_started(command_id: CommandId, request: wire.StartedReport, node: CurrentNode, tools: Tools) -> None:
    """404 and 409: it is not to be carried out (any more), and the agent stops it."""
    await note_start(tools, node, request.instance_id, command_id, request.attempt)


@router.post("/commands/{command_id}/progress", summary="Say how far a command is")
async def post_progress(
    command_id: CommandId, request: wire.ProgressReport, node: CurrentNode, tools: Tools
) -> wire.ProgressAnswer:
    """Of what is sent to another node or to a store, or arrives from one: at most once in two seconds. The answer says what
    holds of it from now on. 404 and 409: it is to be stopped."""
    said = request.model_dump(by_alias=True, exclude={"instance_id", "attempt", "check"})
    said["currentFile"] = _plain(request.current_file) if request.current_file is not None else None
    said["notices"] = [_plain(notice) for notice in request.notices]
    bounds = await note_progress(tools, node, request.instance_id, command_id, request.attempt, said, request.check)
    return wire.ProgressAnswer(rate_limit_bytes_per_second=bounds.rate_limit_bytes_per_second, max_bytes=bounds.max_bytes)


@router.post("/commands/{command_id}/ended", status_code=204, summary="Say that a command has ended")
async def post_ended(command_id: CommandId, request: wire.EndedReport, node: CurrentNode, tools: Tools) -> None:
    """May be repeated until it is answered. Whether a transfer's data has arrived is judged by the mover's receipt."""
    await note_end(
        tools,
        node,
        request.instance_id,
        command_id,
        request.attempt,
        exit_code=request.exit_code,
        code=_plain(request.code) if request.code else None,
        message=_plain(request.message) or None,
        result=request.result,
    )


def _plain(text: str) -> str:
    """On one line, and without what no database takes: a word of the agent's is not refused for that."""
    return "".join(character if character.isprintable() else " " for character in text)


def _shown(answer: PollAnswer) -> wire.PollAnswer:
    return wire.PollAnswer(
        commands=[
            wire.Command(
                id=given.command.id,
                kind=given.command.kind.value,
                attempt=given.command.attempt,
                transfer_id=given.command.shown_transfer_id,
                spec=dict(given.command.spec),
                ticket_url=given.ticket_url,
                ticket_seconds=given.ticket_seconds,
                secret=wire.Secret(access_key_id=given.secret.access_key_id, secret_access_key=given.secret.secret_access_key)
                if given.secret is not None
                else None,
            )
            for given in answer.commands
        ],
        cancel=list(answer.cancel),
        ticket_urls=[
            wire.TicketUrl(id=one.command.id, ticket_url=one.ticket_url, ticket_seconds=one.ticket_seconds)
            for one in answer.renewed
            if one.ticket_url is not None and one.ticket_seconds is not None
        ],
        unknown=list(answer.unknown),
        rename_to=answer.rename_to,
        parallel=answer.parallel,
        lease_seconds=answer.lease_seconds,
    )
