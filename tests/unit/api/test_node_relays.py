"""From a node to a node, and between nodes and clusters: relays through the staging area, allowed by grants."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.fakes.node_agent import NodeAgent
from tests.fakes.world import World
from tests.unit.api.answers import problem
from tests.unit.api.test_grants import in_days
from tests.unit.api.test_nodes import registered

CONTENT = bytes(range(256)) * 90_000


async def enrolled(owner: httpx.AsyncClient, anonymous: httpx.AsyncClient, world: World, instance_id: str) -> NodeAgent:
    made = NodeAgent(anonymous, world.store.follow, instance_id)
    await made.enrol((await registered(owner))["enrolmentToken"])
    return made


@pytest.fixture
async def sender(alice: httpx.AsyncClient, anonymous: httpx.AsyncClient, world: World) -> NodeAgent:
    """Of alice's node, with something to send."""
    agent = await enrolled(alice, anonymous, world, "instance0000000a")
    agent.send = {"/run1/out.bin": CONTENT, "/empty": b""}
    return agent


@pytest.fixture
async def receiver(bob: httpx.AsyncClient, anonymous: httpx.AsyncClient, world: World) -> NodeAgent:
    """Of bob's."""
    return await enrolled(bob, anonymous, world, "instance0000000b")


async def grant(bob: httpx.AsyncClient, receiver: NodeAgent, world: World, **terms: Any) -> str:
    body = {"user": "alice", "expiresAt": in_days(world, 1), **terms}
    made = await bob.post(f"/nodes/{receiver.node_id}/grants", json=body)
    assert made.status_code == 201, made.text
    grant_id: str = made.json()["id"]
    return grant_id


async def begin(client: httpx.AsyncClient, source: tuple[str, str], destination: tuple[str, str]) -> httpx.Response:
    ends = {name: {"system": system, "path": path} for name, (system, path) in (("source", source), ("destination", destination))}
    return await client.post("/transfers", json=ends)


def on(agent: NodeAgent, path: str) -> tuple[str, str]:
    return f"node:{agent.node_id}", path


async def seen(client: httpx.AsyncClient, transfer_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"/transfers/{transfer_id}")).json()
    return found


async def settle(world: World) -> None:
    """The cluster and the worker do all that they can."""
    for _ in range(6):
        await world.work(seconds=20)
        world.let_cluster_work()


async def sent(alice: httpx.AsyncClient, world: World, sender: NodeAgent, receiver: NodeAgent, path: str, to: str) -> str:
    begun = await begin(alice, on(sender, path), on(receiver, to))
    assert begun.status_code == 201, begun.text
    transfer_id: str = begun.json()["transfer"]["id"]
    assert len(await sender.work()) == 1
    await world.work(4)
    return transfer_id


@pytest.mark.parametrize(("path", "content"), [("/run1/out.bin", CONTENT), ("/empty", b"")], ids=["some", "empty"])
async def test_a_node_sends_to_a_node_that_granted_it(
    alice: httpx.AsyncClient,
    bob: httpx.AsyncClient,
    sender: NodeAgent,
    receiver: NodeAgent,
    world: World,
    path: str,
    content: bytes,
) -> None:
    await grant(bob, receiver, world, maxBytes=len(CONTENT))
    transfer_id = await sent(alice, world, sender, receiver, path, "/from/alice.bin")
    assert len(await receiver.work()) == 1
    await world.work(4)
    done = await seen(alice, transfer_id)
    assert (done["state"], done["sizeBytes"]) == ("done", len(content))
    assert receiver.receive == {"/from/alice.bin": content}
    assert (await alice.get("/grants")).json()["grants"][0]["usedBytes"] == len(content)
    assert world.left_outside() == []


async def test_what_is_too_much_for_the_grant_ends_when_it_has_been_measured(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, sender: NodeAgent, receiver: NodeAgent, world: World
) -> None:
    await grant(bob, receiver, world, maxBytes=len(CONTENT) - 1)
    transfer_id = await sent(alice, world, sender, receiver, "/run1/out.bin", "/alice.bin")
    failed = await seen(alice, transfer_id)
    assert (failed["state"], failed["code"]) == ("failed", "grant_exceeded")
    assert await receiver.work() == []
    await world.work(4)
    assert (await alice.get("/grants")).json()["grants"][0]["usedBytes"] == 0
    assert world.left_outside() == []


async def test_a_grant_that_is_revoked_on_the_way_lets_nothing_in(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, sender: NodeAgent, receiver: NodeAgent, world: World
) -> None:
    grant_id = await grant(bob, receiver, world)
    begun = (await begin(alice, on(sender, "/run1/out.bin"), on(receiver, "/alice.bin"))).json()["transfer"]
    assert (await bob.delete(f"/nodes/{receiver.node_id}/grants/{grant_id}")).status_code == 204
    await sender.work()
    await world.work(6)
    failed = await seen(alice, begun["id"])
    assert (failed["state"], failed["code"]) == ("failed", "node_not_found")
    assert await receiver.work() == []
    assert world.left_outside() == []


@pytest.mark.parametrize("direction", ["to a node without a grant", "from another's node", "to a granted folder's neighbour"])
async def test_what_is_not_granted_is_refused_and_nothing_is_made(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, sender: NodeAgent, receiver: NodeAgent, world: World, direction: str
) -> None:
    source, destination = on(sender, "/run1/out.bin"), on(receiver, "/alice.bin")
    expected = (404, "node_not_found")
    if direction == "from another's node":
        await grant(bob, receiver, world)
        source, destination = on(receiver, "/theirs"), on(sender, "/mine")
    if direction == "to a granted folder's neighbour":
        await grant(bob, receiver, world, folder="/for/alice")
        expected = (400, "path_refused")
    problem(await begin(alice, source, destination), *expected)
    assert (await alice.get("/transfers")).json()["transfers"] == []
    assert await sender.work() == []
    assert await receiver.work() == []
    assert world.left_outside() == []


async def test_a_node_sends_to_a_cluster_and_a_cluster_to_a_node(
    alice: httpx.AsyncClient, sender: NodeAgent, world: World
) -> None:
    there = "/home/alice/from-node.bin"
    begun = (await begin(alice, on(sender, "/run1/out.bin"), ("alps", there))).json()["transfer"]
    await sender.work()
    await settle(world)
    assert (await seen(alice, begun["id"]))["state"] == "done"
    back = (await begin(alice, ("alps", there), on(sender, "/back.bin"))).json()["transfer"]
    await settle(world)
    await sender.work()
    await world.work(4)
    assert (await seen(alice, back["id"]))["state"] == "done"
    assert sender.receive == {"/back.bin": CONTENT}
    assert world.left_outside() == []
