"""An agent before a fake service in the same event loop, with a mover that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from tests.fakes.node_service import TOKEN, NodeService

from stagecoach.agent.enrolling import enrol
from stagecoach.agent.journal import Ending, Entry, ProcessMark
from stagecoach.agent.moving import Mover, OnStart
from stagecoach.agent.running import Agent
from stagecoach.agent.state_directory import Enrolment, StateDirectory
from stagecoach.client.asking import Clock

DONE = Ending(0, None, "moved")
URL = "http://127.0.0.1:1"


class ToldMover(Mover):
    """Each run waits until the test says how it ends. ``log`` is what happened, in order."""

    def __init__(self, moves: Path) -> None:
        super().__init__(moves, {"fetch": "/receive", "put": "/send"})
        self.log: list[str] = []
        self.endings: dict[str, asyncio.Future[Ending]] = {}
        self.trouble: OSError | None = None
        self.lasting: Exception | None = None
        self.urls: list[str] = []

    def keep_ticket_url(self, entry: Entry, url: str) -> None:
        super().keep_ticket_url(entry, url)
        self.urls.append(url)

    async def run(self, entry: Entry, on_start: OnStart, stop: asyncio.Event) -> Ending:
        if self.trouble is not None:
            raise self.trouble
        on_start(ProcessMark(2**22 + 1, "never"))
        self.log.append(f"begin {entry.id}")
        ending = self.endings[entry.id] = asyncio.get_running_loop().create_future()
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({ending, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        self.endings.pop(entry.id, None)
        self.log.append(f"end {entry.id}")
        return ending.result() if ending.done() else Ending(75, "interrupted", "stopped")

    async def discard(self, transfer_id: str) -> None:
        if self.lasting is not None:
            raise self.lasting
        self.log.append(f"discard {transfer_id}")

    def forget(self, transfer_id: str) -> None:
        self.log.append(f"forget {transfer_id}")

    async def finish(self, command_id: str, ending: Ending = DONE) -> None:
        await soon(lambda: command_id in self.endings)
        self.endings[command_id].set_result(ending)


class World:
    """A node with everything around it. Pauses take no time but are remembered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.service = NodeService()
        self.state = StateDirectory(folder / "state")
        self.state.prepare()
        for name in ("send", "receive"):
            (folder / name).mkdir()
        self.mover = ToldMover(self.state.moves)
        self.pauses: list[float] = []
        self.now = 1_800_000_000.0
        self.stop = asyncio.Event()

    def clock(self) -> Clock:
        async def sleep(seconds: float) -> None:
            self.pauses.append(seconds)
            await asyncio.sleep(0)

        return Clock(sleep=sleep, chance=lambda: 1.0)

    def transport(self) -> httpx.ASGITransport:
        return httpx.ASGITransport(self.service.app)

    async def enrolled(self, token: str = TOKEN) -> Enrolment:
        directories = self.folder / "send", self.folder / "receive"
        return await enrol(self.state, URL, token, *directories, name="box", transport=self.transport(), clock=self.clock())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """An agent, which is asked to end afterwards; another one may follow."""
        known = self.state.enrolment() or await self.enrolled()
        self.stop = asyncio.Event()
        agent = Agent(
            self.state, known, transport=self.transport(), mover=self.mover, clock=self.clock(), wall_clock=lambda: self.now
        )
        task = asyncio.create_task(agent.run(self.stop))
        try:
            yield task
        finally:
            self.stop.set()
            await asyncio.wait({task})
        task.result()


async def soon(condition: Callable[[], object]) -> None:
    """Waits for it; fails when it does not come."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 30
    while not condition():
        assert loop.time() < deadline, "it never came so far"
        await asyncio.sleep(0.005)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
