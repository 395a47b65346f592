"""Answers an agent's question for work: at once where there is some, else when some comes, else when its time is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from stagecoach.core import names
from stagecoach.core.audit_log import Act
from stagecoach.core.errors import InstanceDiffers, NotAuthenticated
from stagecoach.core.nodes import WITH_AGENT, AgentReport, CommandKind, Node, NodeCommand
from stagecoach.core.transfer import State, Transfer
from stagecoach.database.node_polls import Exchange
from stagecoach.database.sealing import AccessKey
from stagecoach.flows.record_act import record_act
from stagecoach.flows.toolbox import JOB_URL_TTL_SECONDS, Toolbox

log = logging.getLogger(__name__)

WITH_SECRET = frozenset({CommandKind.RECEIVE, CommandKind.SEND, CommandKind.SEND_TO_STORE})
# What the agent was told already and has not done yet is told again after so long, not in a circle.
TOLD_AGAIN_SECONDS = 2.0
# Of a second machine that asks again and again one line is enough.
NOTICED_AGAIN_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class GivenCommand:
    """A command with the way to its ticket, which is signed now and kept nowhere, or the key that was kept sealed with it."""

    command: NodeCommand
    ticket_url: str | None
    secret: AccessKey | None = None

    @property
    def ticket_seconds(self) -> int | None:
        """How long the way works."""
        return JOB_URL_TTL_SECONDS if self.ticket_url is not None else None


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """What the agent is told."""

    commands: Sequence[GivenCommand]
    cancel: Sequence[str]
    unknown: Sequence[str]
    rename_to: str | None
    parallel: int
    lease_seconds: int
    renewed: Sequence[GivenCommand] = ()
    """Moves that the agent has already, with another way to their tickets."""


async def poll_node(
    tools: Toolbox, node: Node, report: AgentReport, wait_seconds: float, is_gone: Callable[[], Awaitable[bool]]
) -> PollAnswer:
    """``is_gone`` says whether the agent hung up: then nothing more is given out to it.

    Raises:
        NotAuthenticated: the node was revoked. InstanceDiffers: the credential is a copy on another machine.
        Unavailable: too many agents wait.
    """
    settings, clock = tools.settings.nodes, asyncio.get_running_loop()
    deadline = clock.time() + wait_seconds
    with tools.node_calls.opened(node.id, tools.node_commands, settings.max_waiting_agents) as call:
        while True:
            call.news.clear()
            exchange = await tools.node_polls.exchange(node.id, report, tools.now(), settings.lease_seconds)
            if exchange is None:
                raise await _refusal(tools, node, report)
            given = await _given(tools, exchange.commands)
            renewed = await _renewed(tools, node, report)
            answer = _answer(exchange, given, renewed, settings.lease_seconds)
            if given or renewed or exchange.has_fresh_cancel or exchange.rename_to is not None or call.is_over:
                return answer
            if exchange.cancel or exchange.unknown:
                deadline = min(deadline, clock.time() + TOLD_AGAIN_SECONDS)
            call.has_room = exchange.has_room
            if not await call.wait(max(0.0, deadline - clock.time())) or await is_gone():
                return answer


async def _given(tools: Toolbox, commands: Sequence[NodeCommand]) -> list[GivenCommand]:
    """Without those whose transfer needs them no more."""
    given = []
    for command in commands:
        transfer, secret = None, None
        if command.transfer_id is not None and command.kind is not CommandKind.DISCARD:
            transfer = await tools.transfers.get(command.transfer_id)
            if transfer is None or transfer.state.is_end or transfer.state is State.CANCELLING:
                await tools.node_commands.drop(command.node_id, command.id, tools.now())
                continue
        if command.kind in WITH_SECRET and (secret := await _secret(tools, command)) is None:
            log.error("command %s: its key cannot be unsealed; was nodes.sealing_key changed?", command.id)
            await tools.node_commands.drop(command.node_id, command.id, tools.now())
            continue
        if transfer is None or command.kind is not CommandKind.MOVE:
            given.append(GivenCommand(command, None, secret))
            continue
        given.append(GivenCommand(command, _ticket_url(tools, transfer)))
    return given


async def _renewed(tools: Toolbox, node: Node, report: AgentReport) -> list[GivenCommand]:
    """What is still to be carried out of that for which the agent asks another way."""
    wanted = [command_id for command_id in report.expiring if command_id in set(report.running)]
    renewed = []
    for command in await tools.node_commands.some(node.id, wanted) if wanted else ():
        if command.kind is not CommandKind.MOVE or command.state not in WITH_AGENT or command.cancel_asked:
            continue
        transfer = await tools.transfers.get(command.transfer_id or "")
        if transfer is not None and not transfer.state.is_end and transfer.state is not State.CANCELLING:
            renewed.append(GivenCommand(command, _ticket_url(tools, transfer)))
    return renewed


def _ticket_url(tools: Toolbox, transfer: Transfer) -> str:
    return tools.store.presign(
        "GET",
        transfer.bucket,
        names.ticket_key(transfer.id),
        audience="client",
        ttl_seconds=JOB_URL_TTL_SECONDS,
        system=transfer.system,
    )


async def _secret(tools: Toolbox, command: NodeCommand) -> AccessKey | None:
    sealed, sealing = await tools.node_commands.sealed(command.node_id, command.id), tools.sealing
    return sealing.unseal(sealed) if sealed is not None and sealing is not None else None


def _answer(exchange: Exchange, given: Sequence[GivenCommand], renewed: Sequence[GivenCommand], lease_seconds: int) -> PollAnswer:
    parallel = exchange.node.parallel
    return PollAnswer(given, exchange.cancel, exchange.unknown, exchange.rename_to, parallel, lease_seconds, renewed)


async def _refusal(tools: Toolbox, node: Node, report: AgentReport) -> NotAuthenticated | InstanceDiffers:
    now = await tools.nodes.get(node.id)
    if now is None or now.revoked_at is not None:
        return NotAuthenticated("The node is revoked.")
    if now.instance_id != node.instance_id:
        return NotAuthenticated("Another agent has enrolled as this node meanwhile.")
    noticed = now.other_instance_at
    if noticed is None or (tools.now() - noticed).total_seconds() >= NOTICED_AGAIN_SECONDS:
        await tools.nodes.note_other_instance(node.id, tools.now())
        detail = {"instance": report.instance_id}
        what, code = Act.NODE_INSTANCE_REFUSED, InstanceDiffers.code
        await record_act(tools, node.owner, what, node.id, code, address=report.address, detail=detail)
    return InstanceDiffers(
        "Another agent has enrolled as this node; stop this one, or make a new enrolment token and enrol it instead."
    )
