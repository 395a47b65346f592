"""Nodes with real agents, receivers and rclones in this process, each before a fake service of its own."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
from tests.fakes.node_service import TOKEN, NodeService, QueuedCommand

from stagecoach.agent.enrolling import enrol
from stagecoach.agent.parts import PartRule
from stagecoach.agent.receiver_address import ReceiverAddress
from stagecoach.agent.running import Agent
from stagecoach.agent.state_directory import StateDirectory

HOST = "127.0.0.1"
URL = "http://127.0.0.1:1"


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        port: int = listening.getsockname()[1]
        return port


async def soon(condition: Callable[[], object], seconds: float = 40.0) -> None:
    """Waits for it; fails when it does not come."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


class DirectNode:
    """One node. Its service says what a test queues."""

    def __init__(
        self, folder: Path, *, receives: bool = True, rule: PartRule | None = None, least_free_bytes: int | None = None
    ) -> None:
        self.least_free_bytes = least_free_bytes
        self.folder = folder
        self.send, self.receive = folder / "send", folder / "receive"
        for directory in (self.send, self.receive):
            directory.mkdir(parents=True)
        self.service = NodeService()
        self.state = StateDirectory(folder / "state")
        self.state.prepare()
        self.address = ReceiverAddress(HOST, free_port()) if receives else None
        self.agent: Agent | None = None
        self.rule = rule

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Agent]:
        """Its agent; another one may follow."""
        transport = httpx.ASGITransport(self.service.app)
        known = self.state.enrolment() or await enrol(self.state, URL, TOKEN, self.send, self.receive, transport=transport)
        stop = asyncio.Event()
        agent = self.agent = Agent(
            self.state,
            known,
            transport=transport,
            receiver=self.address,
            rule=self.rule,
            least_free_bytes=self.least_free_bytes,
        )
        polls = len(self.service.polls)
        task = asyncio.create_task(agent.run(stop))
        try:
            await soon(lambda: len(self.service.polls) > polls or task.done())
            yield agent
        finally:
            stop.set()
            await asyncio.wait({task})
        task.result()

    @property
    def endpoint(self) -> dict[str, Any]:
        """As its agent has told the service."""
        told = self.service.polls[-1].receiver
        assert told is not None
        return told.model_dump(mode="json", by_alias=True)

    @property
    def folders(self) -> list[Path]:
        """Hidden ones."""
        return sorted(self.receive.rglob(".stagecoach-*"))

    def processes(self, name: str) -> int:
        """The pid of its ``receiver`` or ``rclone``."""
        assert self.agent is not None
        pid = self.agent.direct.receiving.pid if name == "receiver" else self.agent.direct.rclone.pid
        assert pid is not None
        return pid

    # --- what its service asks for

    def ask_receive(
        self,
        transfer_id: str,
        target: str,
        key: dict[str, str],
        *,
        directory: bool,
        number: int = 1,
        max_bytes: int | None = None,
    ) -> QueuedCommand:
        spec = {"transferId": transfer_id, "targetPath": target, "isDirectory": directory, "maxBytes": max_bytes}
        return self.service.queue(f"receive{number}{transfer_id}", kind="receive", spec=spec, secret=key)

    def ask_send(
        self,
        transfer_id: str,
        source: str,
        to: dict[str, Any],
        key: dict[str, str],
        *,
        directory: bool,
        number: int = 1,
        **more: Any,
    ) -> QueuedCommand:
        spec = {
            "transferId": transfer_id,
            "sourcePath": source,
            "isDirectory": directory,
            "endpoint": to,
            "fileName": None,
            **more,
        }
        return self.service.queue(
            f"send{number}{transfer_id}", kind="send", spec=spec, secret=key, transfer_id=f"leg{transfer_id}"
        )

    def ask_place(
        self, transfer_id: str, target: str, sent: dict[str, Any], *, directory: bool, number: int = 1
    ) -> QueuedCommand:
        spec = {"transferId": transfer_id, "targetPath": target, "isDirectory": directory}
        spec |= {"sizeBytes": sent["sizeBytes"], "files": sent["files"]}
        return self.service.queue(f"place{number}{transfer_id}", kind="place", spec=spec, transfer_id=transfer_id)

    def ask_discard(self, transfer_id: str, **more: Any) -> QueuedCommand:
        return self.service.queue(f"discard{transfer_id}", kind="discard", spec={"transferId": transfer_id, **more})


def new_key() -> dict[str, str]:
    """As the service makes them."""
    return {"accessKeyId": f"SC{secrets.token_hex(10).upper()}", "secretAccessKey": secrets.token_urlsafe(32)}


async def ended(command: QueuedCommand, code: str | None = None, seconds: float = 60.0) -> dict[str, Any]:
    """Its result, when it has ended as it should."""
    await soon(lambda: command.ends, seconds)
    assert command.ending.code == code, command.ending
    return command.ending.result or {}
