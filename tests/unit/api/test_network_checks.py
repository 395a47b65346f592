"""A network check from end to end: the client asks, the real agent looks, the service shows. The API is the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.node_agent import NodeAgent
from tests.fakes.plain_server import plain_server
from tests.fakes.world import World
from tests.unit.api.answers import problem
from tests.unit.api.conftest import Issuer
from tests.unit.api.test_nodes import checks, registered

from stagecoach.agent.checking import Checker
from stagecoach.agent.enrolling import enrol
from stagecoach.agent.network_check import Bounds
from stagecoach.agent.running import Agent
from stagecoach.agent.state_directory import StateDirectory
from stagecoach.client import Client

QUICK = Bounds(timeout_seconds=2.0, connects=2, round_trips=3, probe_bytes=0)
STORE_IS_AWAY = "Nobody answers at the store."


@dataclass
class Looking(Checker):
    """The real one, which looks for the store where the test has it."""

    server: str
    store: str
    place: Path

    def __post_init__(self) -> None:
        super().__init__(self.server, {"receive": self.place}, bounds=QUICK)
        self.asked: list[Any] = []

    async def run(self, spec: Any, stop: asyncio.Event) -> Any:
        self.asked.append(dict(spec))
        return await super().run({**spec, "storeUrl": self.store}, stop)


@pytest.fixture
async def server() -> AsyncIterator[str]:
    with plain_server() as url:
        yield url


async def test_what_an_agent_finds_is_shown(
    application: FastAPI, issuer: Issuer, world: World, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    state = StateDirectory(tmp_path / "state")
    places = [tmp_path / name for name in ("send", "receive")]
    for place in places:
        place.mkdir()
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    checker = Looking(server, "http://127.0.0.1:1", places[1])
    async with Client("http://stagecoach", issuer.token(), transport=transport) as alice:
        made = await alice.register_node("archive")
        with state.locked():
            enrolment = await enrol(state, "http://stagecoach", made.enrolment_token, *places, transport=transport)
            stop = asyncio.Event()
            agent = asyncio.create_task(Agent(state, enrolment, transport=transport, checker=checker).run(stop))
            try:
                bad = await asyncio.wait_for(alice.check_network(made.id), 60)
                told = (await alice.node(made.id)).health
                checker.store = server
                world.clock.advance(60)
                good = await asyncio.wait_for(alice.check_network(made.id), 60)
                told_then = (await alice.node(made.id)).health
            finally:
                stop.set()
                # A poll waits for as long as the service lets it, unless it is ended.
                world.tools.node_calls.close()
                await asyncio.wait_for(agent, 60)
    assert checker.asked[0] == {"storeUrl": world.settings.s3.client_url}
    assert (bad.state, bad.exit_code) == ("done", 0)
    assert bad.result is not None
    assert bad.result["ways"]["store"]["failure"]["code"] == "port_closed"
    assert bad.result["ways"]["service"]["reachable"]
    assert told == [f"Network check of 2030-05-17 12:00 UTC: {bad.message}"]
    assert good.result is not None
    assert good.result["ways"]["store"]["reachable"]
    assert told_then == []


def found(*words: str, level: str = "failure") -> dict[str, Any]:
    return {"ways": {"store": {"verdicts": [{"code": "no_answer", "level": level, "words": each} for each in words]}}}


async def health(client: httpx.AsyncClient, node_id: str) -> list[str]:
    one = (await client.get(f"/nodes/{node_id}")).json()["health"]
    (listed,) = (await client.get("/nodes")).json()["nodes"]
    assert listed["health"] == one
    return [sentence.partition(": ")[2] for sentence in one]


async def test_the_newest_check_counts_until_it_is_taken_off_the_list(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, anonymous: httpx.AsyncClient, world: World
) -> None:
    made = await registered(alice)
    agent = NodeAgent(anonymous)
    await agent.enrol(made["enrolmentToken"])
    first, second, third = await checks(alice, agent.node_id, 3)
    await agent.poll(capacity=3)
    await agent.poll()
    assert await health(alice, agent.node_id) == []
    await agent.ended(first, result=found(STORE_IS_AWAY))
    assert await health(alice, agent.node_id) == [STORE_IS_AWAY]
    shown = (await alice.get(f"/nodes/{agent.node_id}/commands/{first}")).json()
    assert (shown["state"], shown["result"]) == ("done", found(STORE_IS_AWAY))
    problem(await bob.get(f"/nodes/{agent.node_id}/commands/{first}"), 404, "node_not_found")
    problem(await alice.get(f"/nodes/{agent.node_id}/commands/{made['id']}"), 404, "node_not_found")
    problem(await alice.get(f"/nodes/{agent.node_id}/commands/nonsense"), 404, "node_not_found")
    world.clock.advance(60)
    await agent.poll()
    await agent.ended(second, result=found("A buffer is small.", level="advice"))
    assert await health(alice, agent.node_id) == []
    world.clock.advance(60)
    await agent.poll()
    (again,) = await checks(alice, agent.node_id, 1)
    await agent.poll()
    await agent.ended(again, exitCode=1, code="check_timeout", message="It was not done.")
    await agent.ended(third, result=found("The clock is wrong.", level="warning"))
    assert await health(alice, agent.node_id) == ["The clock is wrong."]
    assert (await alice.delete(f"/nodes/{agent.node_id}/commands/{third}")).status_code == 204
    assert await health(alice, agent.node_id) == []


async def test_a_check_of_the_machine_that_was_the_node_before_is_not_told(
    alice: httpx.AsyncClient, anonymous: httpx.AsyncClient, world: World
) -> None:
    agent = NodeAgent(anonymous)
    await agent.enrol((await registered(alice))["enrolmentToken"])
    (check,) = await checks(alice, agent.node_id, 1)
    await agent.poll()
    await agent.ended(check, result=found(STORE_IS_AWAY))
    token = (await alice.post(f"/nodes/{agent.node_id}/enrolment")).json()["enrolmentToken"]
    world.clock.advance(60)
    await NodeAgent(anonymous, instance_id="instance00000002").enrol(token)
    assert await health(alice, agent.node_id) == []
