"""What a node's agent asks and is told: enrolment, work, leases, ends, and when its credential holds no more."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.node_agent import NodeAgent
from tests.fakes.world import World
from tests.unit.api.answers import problem
from tests.unit.api.conftest import Issuer, with_token
from tests.unit.api.test_nodes import checks, registered

from stagecoach.api.access import OfNodes, OpenToAll, declared_routes
from stagecoach.api.guard import DOCUMENT_PATHS
from stagecoach.core.bearer_secrets import secret_digest

ONE_TIME = "The enrolment token was used, has expired or was never made; make a new one for the node."
NewAgent = Callable[..., Awaitable[NodeAgent]]


@pytest.fixture
def new_agent(alice: httpx.AsyncClient, anonymous: httpx.AsyncClient, world: World) -> NewAgent:
    """Of a node of alice's, enrolled."""

    async def made(name: str = "archive", instance_id: str = "instance00000001") -> NodeAgent:
        agent = NodeAgent(anonymous, world.store.follow, instance_id)
        await agent.enrol((await registered(alice, name))["enrolmentToken"])
        return agent

    return made


async def shown(client: httpx.AsyncClient, agent: NodeAgent) -> dict[str, Any]:
    answer = await client.get(f"/nodes/{agent.node_id}")
    assert answer.status_code == 200, answer.text
    node: dict[str, Any] = answer.json()
    return node


async def states(client: httpx.AsyncClient, agent: NodeAgent) -> dict[str, str]:
    listed = (await client.get(f"/nodes/{agent.node_id}/commands")).json()["commands"]
    return {command["id"]: command["state"] for command in listed}


async def test_an_agent_enrols_once(alice: httpx.AsyncClient, anonymous: httpx.AsyncClient, world: World) -> None:
    made = await registered(alice)
    agent = NodeAgent(anonymous)
    enrolled = await agent.enrol(made["enrolmentToken"])
    assert enrolled == {"nodeId": made["id"], "name": "archive", "credential": agent.credential, "pollSeconds": 50}
    assert agent.credential.startswith("scn_")
    node = await shown(alice, agent)
    assert (node["state"], node["version"], node["platform"]) == ("online", "1.2", "Linux x86_64")
    other = NodeAgent(anonymous, instance_id="instance00000002")
    assert problem(await other.try_enrol(made["enrolmentToken"]), 401, "not_authenticated")["message"] == ONE_TIME
    async with world.engine.connect() as connection:
        (digest,) = (await connection.exec_driver_sql("SELECT credential_sha256 FROM nodes")).scalars()
    assert digest == secret_digest(agent.credential)


async def test_whose_answer_was_lost_may_ask_again_for_ten_minutes(
    alice: httpx.AsyncClient, anonymous: httpx.AsyncClient, world: World
) -> None:
    token = (await registered(alice))["enrolmentToken"]
    agent = NodeAgent(anonymous)
    await agent.enrol(token)
    lost = agent.credential
    world.clock.advance(500)
    await agent.enrol(token)
    assert agent.credential != lost
    await agent.poll()
    agent.credential = lost
    problem(await agent.try_poll(), 401, "not_authenticated")
    world.clock.advance(200)
    problem(await agent.try_enrol(token), 401, "not_authenticated")


async def test_a_token_that_is_old_or_replaced_or_none_enrols_nobody(
    alice: httpx.AsyncClient, anonymous: httpx.AsyncClient, world: World
) -> None:
    first = await registered(alice)
    second = (await alice.post(f"/nodes/{first['id']}/enrolment")).json()["enrolmentToken"]
    agent = NodeAgent(anonymous)
    for token in (first["enrolmentToken"], "sce_" + "A" * 43, second + "x", "scn_" + second[4:]):
        problem(await agent.try_enrol(token), 401, "not_authenticated")
    world.clock.advance(world.settings.nodes.enrolment_seconds)
    problem(await agent.try_enrol(second), 401, "not_authenticated")


async def test_another_enrolment_ends_the_credential_and_gives_the_commands_to_the_new_machine(
    alice: httpx.AsyncClient, anonymous: httpx.AsyncClient, new_agent: NewAgent
) -> None:
    agent = await new_agent()
    (command,) = await checks(alice, agent.node_id, 1)
    await agent.poll()
    assert (await agent.started(command)).status_code == 204
    token = (await alice.post(f"/nodes/{agent.node_id}/enrolment")).json()["enrolmentToken"]
    await agent.poll()
    other = NodeAgent(anonymous, instance_id="instance00000002")
    await other.enrol(token)
    problem(await agent.try_poll(), 401, "not_authenticated")
    given = await other.poll()
    assert [(each["id"], each["attempt"]) for each in given["commands"]] == [(command, 2)]


async def test_a_nodes_credential_opens_the_agents_routes_only_and_nothing_else_opens_them(
    application: FastAPI, issuer: Issuer, new_agent: NewAgent, alice: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    agent = await new_agent()
    personal = (await alice.post("/tokens", json={"name": "x", "scopes": ["nodes:write"], "expiresInDays": 1})).json()["token"]
    async with with_token(application, agent.credential) as node, with_token(application, personal) as program:
        for route in declared_routes(application):
            if route.path in DOCUMENT_PATHS:
                continue
            if isinstance(route.declares[0], OfNodes):
                for client in (alice, admin, program):
                    problem(await client.request(route.method, route.path), 401, "not_authenticated")
            elif not isinstance(route.declares[0], OpenToAll):
                problem(await node.request(route.method, route.path), 401, "not_authenticated")
    await agent.poll()


async def test_another_nodes_commands_are_not_there(alice: httpx.AsyncClient, new_agent: NewAgent) -> None:
    agent, other = await new_agent(), await new_agent("other", "instance00000002")
    (command,) = await checks(alice, agent.node_id, 1)
    await agent.poll()
    for answer in (await other.started(command), await other.ended(command), await other.ended("0" * 26)):
        problem(answer, 404, "node_not_found")
    assert (await other.poll(running=[command]))["unknown"] == [command]
    assert (await states(alice, agent)) == {command: "delivered"}


async def test_commands_are_given_in_order_as_many_as_fit(alice: httpx.AsyncClient, new_agent: NewAgent) -> None:
    agent = await new_agent()
    made = await checks(alice, agent.node_id, 4)
    assert (await agent.poll(capacity=0))["commands"] == []
    answer = await agent.poll(capacity=3)
    assert [command["id"] for command in answer["commands"]] == made[:1]
    assert answer["commands"][0]["spec"] == {"storeUrl": "http://127.0.0.1:7480"}
    assert (await agent.poll(capacity=3))["commands"] == []
    await alice.patch(f"/nodes/{agent.node_id}", json={"parallel": 3})
    answer = await agent.poll(capacity=1)
    assert ([command["id"] for command in answer["commands"]], answer["parallel"]) == (made[1:2], 3)
    assert [command["id"] for command in (await agent.poll(capacity=5))["commands"]] == made[2:3]
    assert set((await states(alice, agent)).values()) == {"pending", "delivered"}


async def test_a_command_whose_delivery_was_lost_is_given_again(alice: httpx.AsyncClient, new_agent: NewAgent) -> None:
    agent = await new_agent()
    (command,) = await checks(alice, agent.node_id, 1)
    for attempt in (1, 2):
        agent.has = {}
        (given,) = (await agent.poll())["commands"]
        assert (given["id"], given["attempt"]) == (command, attempt)
    assert (await agent.poll())["commands"] == []
    # Its agent may have begun it as the first one.
    assert (await agent.started(command, 1)).status_code == 204
    problem(await agent.started(command, 3), 409, "wrong_state")


async def test_a_command_whose_agent_is_away_waits_again_and_may_still_be_its(
    alice: httpx.AsyncClient, new_agent: NewAgent, world: World
) -> None:
    agent = await new_agent()
    (command,) = await checks(alice, agent.node_id, 1)
    await agent.poll()
    await agent.started(command)
    for _ in range(5):
        world.clock.advance(100)
        await agent.poll()
    assert (await states(alice, agent)) == {command: "running"}
    world.clock.advance(100)
    assert (await shown(alice, agent))["state"] == "offline"
    # It came back without its memory; the word of the end may be on its way, so nothing happens before the lease is over.
    agent.has = {}
    assert (await agent.poll())["commands"] == []
    world.clock.advance(100)
    (again,) = (await agent.poll())["commands"]
    assert (again["id"], again["attempt"]) == (command, 2)
    # With its memory it goes on with what it has, however long it was away.
    await agent.started(command, 2)
    world.clock.advance(1000)
    assert (await agent.poll())["unknown"] == []
    assert (await states(alice, agent)) == {command: "running"}


async def test_what_has_ended_or_was_never_there_is_unknown(alice: httpx.AsyncClient, new_agent: NewAgent) -> None:
    agent = await new_agent()
    (command,) = await checks(alice, agent.node_id, 1)
    await agent.poll()
    for _ in range(2):
        assert (await agent.ended(command, result={"store": "ok"})).status_code == 204
    answer = await agent.poll(running=[command, "0" * 26])
    assert sorted(answer["unknown"]) == sorted([command, "0" * 26])
    listed = (await alice.get(f"/nodes/{agent.node_id}/commands")).json()["commands"]
    assert [(each["state"], each["exitCode"], each["result"]) for each in listed] == [("done", 0, {"store": "ok"})]


async def test_a_cancel_is_told_once_at_once_and_then_now_and_again(alice: httpx.AsyncClient, new_agent: NewAgent) -> None:
    agent = await new_agent()
    (command,) = await checks(alice, agent.node_id, 1)
    await agent.poll()
    await agent.started(command)
    asking = asyncio.create_task(agent.poll(wait_seconds=30))
    await asyncio.sleep(0.2)
    await alice.delete(f"/nodes/{agent.node_id}/commands/{command}")
    assert (await asyncio.wait_for(asking, 5))["cancel"] == [command]
    begun = time.monotonic()
    assert (await agent.poll(wait_seconds=30))["cancel"] == [command]
    assert 1.5 < time.monotonic() - begun < 6
    problem(await agent.started(command), 409, "wrong_state")
    await agent.ended(command, exitCode=143, code="cancelled", message="Stopped.")
    assert (await states(alice, agent)) == {command: "cancelled"}
    assert (await agent.poll())["cancel"] == []


async def test_a_cancelled_command_that_the_agent_never_got_is_gone(alice: httpx.AsyncClient, new_agent: NewAgent) -> None:
    agent = await new_agent()
    (command,) = await checks(alice, agent.node_id, 1)
    await agent.poll()
    await alice.delete(f"/nodes/{agent.node_id}/commands/{command}")
    agent.has = {}
    answer = await agent.poll()
    assert (answer["commands"], answer["cancel"]) == ([], [])
    assert (await states(alice, agent)) == {command: "cancelled"}


async def test_a_second_machine_with_the_same_credential_is_refused_and_its_owner_told(
    alice: httpx.AsyncClient, admin: httpx.AsyncClient, anonymous: httpx.AsyncClient, new_agent: NewAgent
) -> None:
    agent = await new_agent()
    (command,) = await checks(alice, agent.node_id, 1)
    copied = NodeAgent(anonymous, instance_id="instance00000002")
    copied.credential = agent.credential
    for _ in range(3):
        problem(await copied.try_poll(), 409, "instance_differs")
    problem(await copied.ended(command), 409, "instance_differs")
    await agent.poll(health=["The disk\nis nearly full.\0"], freeBytes={"receive": 5})
    node = await shown(alice, agent)
    assert [sentence.split()[0] for sentence in node["health"]] == ["Another", "The"]
    assert node["health"][1] == "The disk is nearly full. "
    assert node["freeBytes"] == {"receive": 5, "send": None}
    lines = (await admin.get("/admin/audit")).text.splitlines()
    refused = [line for line in map(json.loads, lines) if line["what"] == "node.instance-refused"]
    assert [(line["target"], line["result"], line["detail"]) for line in refused] == [
        (agent.node_id, "instance_differs", {"instance": "instance00000002"})
    ]


async def test_a_new_name_is_told_once(alice: httpx.AsyncClient, new_agent: NewAgent) -> None:
    agent = await new_agent()
    assert (await agent.poll())["renameTo"] is None
    asking = asyncio.create_task(agent.poll(wait_seconds=30))
    await asyncio.sleep(0.2)
    await alice.patch(f"/nodes/{agent.node_id}", json={"name": "tape"})
    assert (await asyncio.wait_for(asking, 5))["renameTo"] == "tape"
    assert (await agent.poll())["renameTo"] is None


async def test_a_revoked_nodes_agent_is_refused_at_once_also_while_it_waits(
    alice: httpx.AsyncClient, new_agent: NewAgent
) -> None:
    agent = await new_agent()
    asking = asyncio.create_task(agent.try_poll(wait_seconds=30))
    await asyncio.sleep(0.2)
    await alice.delete(f"/nodes/{agent.node_id}")
    problem(await asyncio.wait_for(asking, 5), 401, "not_authenticated")
    problem(await agent.try_poll(), 401, "not_authenticated")
    problem(await agent.started("0" * 26), 401, "not_authenticated")


async def test_an_agent_that_waits_is_told_at_once(alice: httpx.AsyncClient, new_agent: NewAgent, world: World) -> None:
    agent = await new_agent()
    asking = asyncio.create_task(agent.poll(wait_seconds=30))
    await asyncio.sleep(0.3)
    assert not asking.done()
    begun = time.monotonic()
    (command,) = await checks(alice, agent.node_id, 1)
    answer = await asyncio.wait_for(asking, 5)
    assert [each["id"] for each in answer["commands"]] == [command]
    assert time.monotonic() - begun < 1


async def test_an_agent_that_waits_at_another_replica_is_told_within_two_seconds(
    alice: httpx.AsyncClient, new_agent: NewAgent, world: World, application: FastAPI
) -> None:
    agent = await new_agent()
    asking = asyncio.create_task(agent.poll(wait_seconds=30))
    await asyncio.sleep(0.3)
    # Another process: nothing of this one's memory.
    application.state.tools = world.toolbox()
    await checks(alice, agent.node_id, 1)
    begun = time.monotonic()
    assert len((await asyncio.wait_for(asking, 10))["commands"]) == 1
    assert time.monotonic() - begun < 2.5


async def test_a_question_ends_when_its_time_is_over_or_the_agent_asks_anew_or_the_process_ends(
    new_agent: NewAgent, world: World
) -> None:
    agent = await new_agent()
    begun = time.monotonic()
    assert (await agent.poll(wait_seconds=1))["commands"] == []
    assert 0.9 < time.monotonic() - begun < 4
    first = asyncio.create_task(agent.poll(wait_seconds=30))
    await asyncio.sleep(0.2)
    second = asyncio.create_task(agent.poll(wait_seconds=30))
    assert (await asyncio.wait_for(first, 5))["commands"] == []
    assert not second.done()
    world.tools.node_calls.close()
    assert (await asyncio.wait_for(second, 5))["commands"] == []
    assert (await asyncio.wait_for(agent.poll(wait_seconds=30), 5))["commands"] == []


async def test_only_so_many_agents_wait(new_agent: NewAgent, world: World) -> None:
    first, second = await new_agent(), await new_agent("other", "instance00000002")
    limited = world.settings.nodes.model_copy(update={"max_waiting_agents": 1})
    world.tools.settings_in_force.now = world.settings.model_copy(update={"nodes": limited})
    asking = asyncio.create_task(first.poll(wait_seconds=30))
    await asyncio.sleep(0.2)
    problem(await second.try_poll(), 503, "unavailable")
    world.tools.node_calls.close()
    await asking


@pytest.mark.parametrize(
    "body",
    [
        {"capacity": 1001},
        {"waitSeconds": 51},
        {"running": ["x"] * 1001},
        {"health": ["x" * 501]},
        {"platform": "a" * 201},
        {"freeBytes": {"send": -1}},
        {"receiver": {"host": "a", "port": 70000, "certificateSha256": "0" * 64}},
        {"instanceId": "../../etc"},
    ],
    ids=lambda body: next(iter(body)),
)
async def test_what_an_agent_may_not_say_is_refused(new_agent: NewAgent, body: dict[str, Any]) -> None:
    agent = await new_agent()
    good = {"version": "1", "platform": "x", "running": [], "capacity": 1, "waitSeconds": 0}
    problem(await agent.ask("poll", **{**good, **body}), 400, "validation_error")


@pytest.mark.parametrize("result", [{"x": "y" * 70_000}, []])
async def test_a_result_that_is_too_large_or_no_object_is_refused(
    alice: httpx.AsyncClient, new_agent: NewAgent, result: object
) -> None:
    agent = await new_agent()
    (command,) = await checks(alice, agent.node_id, 1)
    await agent.poll()
    problem(await agent.ended(command, result=result), 400, "validation_error")
    assert (await states(alice, agent)) == {command: "delivered"}
