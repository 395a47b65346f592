"""Makes this machine a node: exchanges a one-time token for the node's credential, and keeps it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx

from stagecoach.agent.service import AgentService
from stagecoach.agent.state_directory import Enrolment, StateDirectory, require_directories
from stagecoach.agent.surroundings import platform_name, version
from stagecoach.client.asking import Clock
from stagecoach.wire.agent import EnrolRequest


async def enrol(
    state: StateDirectory,
    server: str,
    token: str,
    send: Path,
    receive: Path,
    *,
    name: str | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    clock: Clock | None = None,
) -> Enrolment:
    """The state directory is locked by the caller. Raises AgentError, ServiceError."""
    directories = require_directories(send, receive, state.path)
    request = EnrolRequest(token=token, instance_id=state.instance_id(), version=version(), platform=platform_name(), name=name)
    async with AgentService(server, None, transport=transport, clock=clock) as service:
        answer = await service.enrol(request)
    enrolment = Enrolment(
        server=server.rstrip("/"),
        node_id=answer.node_id,
        name=answer.name,
        credential=answer.credential,
        instance_id=request.instance_id,
        poll_seconds=answer.poll_seconds,
        send=directories[0],
        receive=directories[1],
        token_sha256=token_digest(token),
    )
    state.save_enrolment(enrolment)
    return enrolment


def token_digest(token: str) -> str:
    """Tells whether a token is the one that was used, without keeping it."""
    return hashlib.sha256(token.encode()).hexdigest()
