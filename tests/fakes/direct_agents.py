"""Agents of nodes that know the direct road: what one sends, the other has in its hidden folder, if the key opens it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tests.fakes.node_agent import NodeAgent
from tests.fakes.world import World

from stagecoach.core.access import Caller
from stagecoach.core.errors import Conflict, NodeNotFound
from stagecoach.core.nodes import AgentReport, CommandKind, Node, NodeCommand, system_name
from stagecoach.database.sealing import AccessKey
from stagecoach.flows.bound_arrival import CommandBounds
from stagecoach.flows.enrol_node import enrol_node
from stagecoach.flows.note_command import note_end, note_progress, note_start
from stagecoach.flows.poll_node import GivenCommand, PollAnswer, poll_node
from stagecoach.flows.register_node import register_node

KINDS = tuple(kind.value for kind in CommandKind)


class DirectAgent:
    """``send`` and ``receive`` are its directories, ``hidden`` what has arrived and has no place yet, by transfer.

    ``refuses``: codes with which it ends commands of a kind. ``reaches``: the agents that it can reach, by host.
    """

    def __init__(self, world: World, node: Node, instance_id: str) -> None:
        self.world, self.node, self.instance_id = world, node, instance_id
        self.mover = NodeAgent(None, world.store.follow)  # type: ignore[arg-type]
        self.send, self.receive = self.mover.send, self.mover.receive
        self.hidden: dict[str, bytes] = {}
        self.open: dict[AccessKey, str] = {}
        self.has: dict[str, GivenCommand] = {}
        self.refuses: dict[CommandKind, str] = {}
        self.reaches: dict[str, DirectAgent] = {}
        self.told: list[str] = []
        self.kinds = KINDS
        self.host: str | None = f"{node.name}.example.org"
        self.result: dict[str, Any] = {}

    @property
    def system(self) -> str:
        return system_name(self.node.id)

    async def poll(self) -> PollAnswer:
        """One question; it is answered at once."""
        receiver = {"host": self.host, "port": 8443, "certificate_sha256": "0" * 64} if self.host else None
        report = AgentReport(self.instance_id, "1", "x", tuple(self.has), 8, receiver=receiver, kinds=self.kinds)
        return await poll_node(self.world.tools, self.node, report, 0, _never)

    async def work(self, *, to_the_end: bool = True) -> None:
        """One poll, and what there is to do is done; what receives goes on until it is cancelled."""
        answer = await self.poll()
        for command_id in (*answer.cancel, *answer.unknown):
            given = self.has.pop(command_id, None)
            if given is not None and given.secret is not None:
                self.open.pop(given.secret, None)
            await self._end(command_id, 1, 143, "cancelled")
        for given in answer.commands:
            self.has[given.command.id] = given
            try:
                await note_start(self.world.tools, self.node, self.instance_id, given.command.id, given.command.attempt)
            except (Conflict, NodeNotFound):
                del self.has[given.command.id]
                continue
            self.told.append(given.command.kind.value)
            if given.command.kind is CommandKind.RECEIVE and CommandKind.RECEIVE not in self.refuses:
                assert given.secret is not None
                self.open[given.secret] = str(given.command.spec["transferId"])
        for given in list(self.has.values()) if to_the_end else ():
            await self._carry_out(given)

    async def tell(self, command_id: str, done: int, total: int, **more: Any) -> CommandBounds:
        """How far it is; the answer."""
        given = self.has[command_id].command
        said = {"bytesDone": done, "bytesTotal": total, "filesDone": 0, "filesTotal": 1, "rateBytesPerSecond": 10.0}
        check = more.pop("check", None)
        told = {**said, **more}
        return await note_progress(self.world.tools, self.node, self.instance_id, given.id, given.attempt, told, check)

    def running(self, kind: CommandKind) -> NodeCommand:
        """The only one of this kind."""
        (found,) = [given.command for given in self.has.values() if given.command.kind is kind]
        return found

    async def _carry_out(self, given: GivenCommand) -> None:
        command, spec = given.command, given.command.spec
        if command.kind in self.refuses:
            del self.has[command.id]
            await self._end(command.id, command.attempt, 1, self.refuses[command.kind])
            return
        if command.kind is CommandKind.RECEIVE:
            return
        code, result = self._done(given, spec)
        del self.has[command.id]
        await self._end(command.id, command.attempt, 0 if code is None else 1, code, result)

    def _done(self, given: GivenCommand, spec: Mapping[str, Any]) -> tuple[str | None, dict[str, Any] | None]:
        kind = given.command.kind
        if kind is CommandKind.MOVE:
            moved = self.mover.move({"ticketUrl": given.ticket_url, "spec": spec})
            return (None, None) if moved == 0 else ("job_failed", None)
        if kind is CommandKind.SEND:
            return self._sent(given, spec)
        if kind is CommandKind.PLACE:
            content = self.hidden.pop(spec["transferId"], None)
            if content is None:
                content = self.receive.get(spec["targetPath"], b"")
            if len(content) != spec["sizeBytes"]:
                return "size_mismatch", None
            self.receive[spec["targetPath"]] = content
            return None, {"sizeBytes": len(content), "files": 1}
        if kind is CommandKind.DISCARD:
            self.hidden.pop(spec["transferId"], None)
            return None, None
        return "command_unsupported", None

    def _sent(self, given: GivenCommand, spec: Mapping[str, Any]) -> tuple[str | None, dict[str, Any] | None]:
        other, content = self.reaches.get(spec["endpoint"]["host"]), self.send.get(spec["sourcePath"])
        assert given.secret is not None
        if other is None or given.secret not in other.open:
            return "receiver_unreachable", None
        if content is None:
            return "source_missing", None
        assert other.open[given.secret] == spec["transferId"]
        other.hidden[spec["transferId"]] = content
        said = {"sizeBytes": len(content), "files": 1, "verified": True, "comparedFiles": 1, "notices": []}
        return None, {**said, "check": {"probeBytesPerSecond": 1e6}, "rates": [[0.0, 0], [1.5, len(content)]], **self.result}

    async def _end(
        self, command_id: str, attempt: int, exit_code: int, code: str | None, result: Mapping[str, Any] | None = None
    ) -> None:
        message = f"The agent says {code}." if code else None
        with suppress(NodeNotFound):
            await note_end(
                self.world.tools,
                self.node,
                self.instance_id,
                command_id,
                attempt,
                exit_code=exit_code,
                code=code,
                message=message,
                result=result,
            )


async def _never() -> bool:
    return False


async def direct_agent(world: World, owner: Caller, name: str) -> DirectAgent:
    """An enrolled node that has just been heard of."""
    made = await register_node(world.tools, owner, name)
    instance_id = f"instance00000000{name}"
    enrolled = await enrol_node(world.tools, made.enrolment_token, instance_id, version="1", platform="x", address=None)
    agent = DirectAgent(world, enrolled.node, instance_id)
    await agent.poll()
    return agent
