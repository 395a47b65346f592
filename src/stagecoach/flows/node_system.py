"""A data transfer node in the place of a cluster: its scheduler is the node's queue in our own database.

What else a cluster does (files, users' jobs) no node does; the answer to that is one clear refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from stagecoach.core import names
from stagecoach.core.errors import JobNotFound, NodeNotFound, NodeUnsupported, SubmissionRefused
from stagecoach.core.nodes import CommandKind, CommandState, Node, NodeCommand, NodeState
from stagecoach.core.transfer import Direction, Transfer
from stagecoach.database.node_commands import NodeCommands
from stagecoach.database.nodes import Nodes
from stagecoach.database.transfers import Transfers
from stagecoach.flows.direct_jobs import job_of_leg, job_of_relay
from stagecoach.ports.scheduler import JobKey, JobPhase, JobReport, JobRequest

OFFLINE, NOT_ENROLLED = "NodeOffline", "NodeNotEnrolled"

_PHASES = {
    CommandState.HELD: JobPhase.HELD,
    CommandState.PENDING: JobPhase.PENDING,
    CommandState.DELIVERED: JobPhase.PENDING,
    CommandState.RUNNING: JobPhase.RUNNING,
    CommandState.DONE: JobPhase.COMPLETED,
    CommandState.FAILED: JobPhase.FAILED,
    CommandState.CANCELLED: JobPhase.CANCELLED,
}


class NodeScheduler:
    """One node's queue, behind ``ports/scheduler.py``: a staging job is a command that the node's agent carries out.

    ``wake`` tells the agent's open question, if this process has it, that there is news.
    """

    def __init__(
        self,
        node_id: str,
        commands: NodeCommands,
        nodes: Nodes,
        transfers: Transfers,
        *,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
        wake: Callable[[str], None],
        offline_after_seconds: float,
    ) -> None:
        self._node_id = node_id
        self._commands = commands
        self._nodes = nodes
        self._transfers = transfers
        self._now = now
        self._new_id = new_id
        self._wake = wake
        self._offline_after_seconds = offline_after_seconds

    def require_answering(self, username: str) -> None:
        """The queue takes everything, also while the node is away."""

    async def submit(self, username: str, request: JobRequest) -> str:
        """As the port says; a name that is in the queue already is not put there twice."""
        parsed = names.id_and_attempt_in_job_name(request.name)
        transfer = await self._transfers.get(parsed[0]) if parsed is not None else None
        if transfer is None:
            raise SubmissionRefused("A node carries out the staging jobs of transfers, and no others.")
        kind, spec, sealed = await self._job_of(transfer)
        command = NodeCommand(
            id=self._new_id(),
            node_id=self._node_id,
            number=0,
            kind=kind,
            name=request.name,
            owner=username,
            created_at=self._now(),
            transfer_id=transfer.id,
            state=CommandState.HELD if request.held else CommandState.PENDING,
            spec=spec,
        )
        try:
            added = await self._commands.add(command, sealed=sealed)
        except NodeNotFound as error:
            raise SubmissionRefused("The node is revoked, so nothing can be brought to it or from it any more.") from error
        self._wake(self._node_id)
        return added.id

    async def _job_of(self, transfer: Transfer) -> tuple[CommandKind, dict[str, object], bytes | None]:
        """Kind, spec and sealed key. Raises SubmissionRefused."""
        if not transfer.is_direct:
            return CommandKind.MOVE, {"direction": "fetch" if transfer.direction is Direction.UPLOAD else "put"}, None
        if transfer.is_relay:
            return job_of_relay(transfer)
        return await job_of_leg(self._commands, self._nodes, self._transfers, transfer)

    async def find(self, username: str, name: str) -> list[JobReport]:
        """As the port says."""
        node = await self._nodes.get(self._node_id)
        return [self._report(command, node) for command in await self._commands.named(self._node_id, username, name)]

    async def list_open_jobs(self, asker: str, name_prefix: str, *, of_everyone: bool) -> list[JobReport]:
        """As the port says."""
        node = await self._nodes.get(self._node_id)
        found = await self._commands.open_of(self._node_id, None if of_everyone else asker)
        return [self._report(command, node) for command in found if command.name.startswith(name_prefix)]

    async def release(self, username: str, job_id: str) -> None:
        """As the port says."""
        if not await self._commands.release(self._node_id, username, job_id):
            raise JobNotFound("The node's queue has no such command.")
        self._wake(self._node_id)

    async def cancel(self, username: str, job_id: str) -> None:
        """As the port says."""
        command = await self._commands.get(self._node_id, job_id)
        if command is not None and command.owner == username:
            await self._commands.cancel(self._node_id, job_id, self._now())
            self._wake(self._node_id)

    async def reports(self, jobs: Sequence[JobKey]) -> Mapping[str, JobReport]:
        """As the port says."""
        keys = {job.job_id: job for job in jobs}
        found = await self._commands.some(self._node_id, list(keys))
        node = await self._nodes.get(self._node_id) if found else None
        return {
            command.id: self._report(command, node)
            for command in found
            if (command.name, command.owner) == (keys[command.id].name, keys[command.id].user)
        }

    async def ping(self, username: str) -> str:
        """The queue is a table of ours: whoever reads this line has reached it."""
        node = await self._nodes.get(self._node_id)
        return "the queue of a data transfer node" + ("" if node is not None else " that does not exist")

    async def try_directives(self, username: str, account: str | None) -> None:
        """There are none."""

    def _report(self, command: NodeCommand, node: Node | None) -> JobReport:
        now = self._now()
        phase, reason = _PHASES[command.state], ""
        if command.is_lost(now):
            # Its agent is away: it waits again, or nothing is left to be ended.
            phase = JobPhase.CANCELLED if command.cancel_asked else JobPhase.PENDING
        if phase is JobPhase.PENDING and node is not None:
            state = node.state(now, self._offline_after_seconds)
            reason = {NodeState.OFFLINE: OFFLINE, NodeState.WAITING: NOT_ENROLLED}.get(state, "")
        result = command.result or {}
        if command.state is CommandState.FAILED:
            reason = str(result.get("message") or "")
        if phase is JobPhase.CANCELLED and node is not None and node.revoked_at is not None:
            reason = "The node was revoked."
        exit_code = result.get("exit_code")
        return JobReport(
            job_id=command.id,
            name=command.name,
            phase=phase,
            state=phase.value.upper(),
            reason=reason,
            exit_code=exit_code if isinstance(exit_code, int) else None,
            user=command.owner,
            nodes=node.name if node is not None and command.started_at is not None else "",
            submit_time=int(command.created_at.timestamp()),
            start_time=int(command.started_at.timestamp()) if command.started_at is not None else None,
            end_time=int(command.ended_at.timestamp()) if command.ended_at is not None else None,
            restarts=max(0, command.attempt - 1),
        )


class NotOnNodes:
    """Stands where a cluster has its files and its compute: whatever is asked of it is refused."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise unsupported()


def unsupported() -> NodeUnsupported:
    """What nodes do not do."""
    return NodeUnsupported("This is a data transfer node: data can be sent to it and fetched from it, and nothing else.")
