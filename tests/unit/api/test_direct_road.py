"""The direct road as agents and people see it over HTTP: commands with their keys, progress, checks, sends by hand."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.fakes.node_agent import NodeAgent
from tests.fakes.world import World
from tests.unit.api.answers import problem
from tests.unit.api.test_node_relays import begin, enrolled, on, seen

from stagecoach.core.nodes import CommandKind

ADDRESS = {"host": "vault.example.org", "port": 8443, "certificateSha256": "0" * 64}
SAYS: dict[str, Any] = {"kinds": [kind.value for kind in CommandKind], "receiver": ADDRESS, "capacity": 8}
SEND = {
    "sourcePath": "/run1/out.bin",
    "isDirectory": False,
    "endpoint": {"host": "s3.example.org", "port": 9000},
    "bucket": "data",
    "fileName": "out.bin",
    "accessKeyId": "their-key",
    "secretAccessKey": "their-very-secret",
}


@pytest.fixture
async def sender(alice: httpx.AsyncClient, anonymous: httpx.AsyncClient, world: World) -> NodeAgent:
    agent = await enrolled(alice, anonymous, world, "instance0000000a")
    await agent.poll(**SAYS)
    return agent


@pytest.fixture
async def receiver(alice: httpx.AsyncClient, anonymous: httpx.AsyncClient, world: World) -> NodeAgent:
    made = NodeAgent(anonymous, world.store.follow, "instance0000000b")
    answer = await alice.post("/nodes", json={"name": "vault"})
    await made.enrol(answer.json()["enrolmentToken"])
    await made.poll(**SAYS)
    return made


async def straight(alice: httpx.AsyncClient, sender: NodeAgent, receiver: NodeAgent, **more: Any) -> httpx.Response:
    ends = {
        name: {"system": system, "path": path}
        for name, (system, path) in (("source", on(sender, "/run1/out.bin")), ("destination", on(receiver, "/in/out.bin")))
    }
    return await alice.post("/transfers", json={**ends, **more})


async def test_commands_carry_what_both_ends_need_and_keys_are_shown_to_agents_alone(
    alice: httpx.AsyncClient, sender: NodeAgent, receiver: NodeAgent, world: World
) -> None:
    begun = await straight(alice, sender, receiver, road="direct", rateLimitBytesPerSecond=10**6)
    assert begun.status_code == 201, begun.text
    transfer = begun.json()["transfer"]
    assert (transfer["road"], transfer["wantedRoad"], transfer["rateLimitBytesPerSecond"]) == ("direct", "direct", 10**6)
    (receive,) = (await receiver.poll(**SAYS))["commands"]
    assert (receive["kind"], receive["transferId"], receive["ticketUrl"]) == ("receive", transfer["id"], None)
    assert receive["spec"] == {"transferId": transfer["id"], "targetPath": "/in/out.bin", "isDirectory": False, "maxBytes": None}
    assert (await sender.poll(**SAYS))["commands"] == []
    assert (await receiver.started(receive["id"])).status_code == 204
    await world.work(2)
    (send,) = (await sender.poll(**SAYS))["commands"]
    assert send["secret"] == receive["secret"]
    assert send["spec"] == {
        "transferId": transfer["id"],
        "sourcePath": "/run1/out.bin",
        "isDirectory": False,
        "endpoint": ADDRESS,
        "bucket": "data",
        "folder": "",
        "fileName": "out.bin",
        "rateLimitBytesPerSecond": 10**6,
        "inParts": False,
    }
    listed = (await alice.get(f"/nodes/{sender.node_id}/commands")).text + (await alice.get(f"/transfers/{transfer['id']}")).text
    assert send["secret"]["secretAccessKey"] not in listed


async def test_parts_are_sent_to_whom_can_join_them_and_to_nobody_else(
    alice: httpx.AsyncClient, sender: NodeAgent, receiver: NodeAgent, world: World
) -> None:
    says = {**SAYS, "kinds": [*SAYS["kinds"], "join_parts", "of a later version".replace(" ", "_")]}
    await receiver.poll(**says)
    await straight(alice, sender, receiver)
    (receive,) = (await receiver.poll(**says))["commands"]
    await receiver.started(receive["id"])
    await world.work(2)
    (send,) = (await sender.poll(**SAYS))["commands"]
    assert send["spec"]["inParts"] is True


async def test_progress_and_the_network_check_are_shown(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, sender: NodeAgent, receiver: NodeAgent, world: World
) -> None:
    transfer = (await straight(alice, sender, receiver)).json()["transfer"]
    (receive,) = (await receiver.poll(**SAYS))["commands"]
    await receiver.started(receive["id"])
    await world.work(2)
    (send,) = (await sender.poll(**SAYS))["commands"]
    said = {"attempt": 1, "bytesDone": 40, "bytesTotal": 100, "filesDone": 1, "filesTotal": 3, "rateBytesPerSecond": 20.0}
    problem(await sender.ask(f"commands/{send['id']}/progress", **said), 409, "wrong_state")
    await sender.started(send["id"])
    problem(await alice.get(f"/transfers/{transfer['id']}/network-check"), 404, "not_found")
    check = {"probeBytesPerSecond": 1e6, "words": "All is well."}
    answer = await sender.ask(f"commands/{send['id']}/progress", **said, currentFile="a\nb", notices=["One link."], check=check)
    assert answer.json() == {"rateLimitBytesPerSecond": None, "maxBytes": None}, answer.text
    problem(await receiver.ask(f"commands/{send['id']}/progress", **said), 404, "node_not_found")
    too_much = {"check": {"x": "y" * 20_000}}
    problem(await sender.ask(f"commands/{send['id']}/progress", **said, **too_much), 400, "validation_error")
    await world.work(2)
    shown = await seen(alice, transfer["id"])
    assert (shown["bytesStaged"], shown["sizeBytes"], shown["currentFile"], shown["secondsLeft"]) == (40, 100, "a b", 3.0)
    assert (shown["filesMoved"], shown["fileCount"], shown["notices"]) == (1, 3, ["One link."])
    found = (await alice.get(f"/transfers/{transfer['id']}/network-check")).json()
    assert (found["check"], found["rates"]) == (check, [])
    problem(await bob.get(f"/transfers/{transfer['id']}/network-check"), 404, "transfer_not_found")
    problem(await bob.post(f"/transfers/{transfer['id']}/stop"), 404, "transfer_not_found")
    stopped = (await alice.post(f"/transfers/{transfer['id']}/stop")).json()
    assert (stopped["state"], stopped["code"]) == ("failed", "stopped")
    assert stopped["retryUntil"] is not None


async def test_who_insists_on_a_road_that_is_closed_is_told(
    alice: httpx.AsyncClient, sender: NodeAgent, receiver: NodeAgent
) -> None:
    await receiver.poll(capacity=8)
    body = problem(await straight(alice, sender, receiver, road="direct"), 409, "road_closed")
    assert "does not know the direct road" in body["message"]
    shown = (await straight(alice, sender, receiver)).json()["transfer"]
    assert (shown["road"], shown["wantedRoad"]) == ("staged", None)
    assert "does not know the direct road" in shown["roadReason"]
    cluster = await alice.post(
        "/transfers", json={"source": {"system": "alps", "path": "/home/alice/x"}, "destination": None, "road": "direct"}
    )
    problem(cluster, 409, "road_closed")


async def test_a_send_by_hand_is_its_owners_and_hides_its_key(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, sender: NodeAgent, world: World
) -> None:
    route = f"/nodes/{sender.node_id}/sends"
    problem(await bob.post(route, json=SEND), 404, "node_not_found")
    problem(await alice.post(route, json={**SEND, "sourcePath": "/../etc"}), 400, "path_refused")
    made = await alice.post(route, json=SEND)
    assert made.status_code == 201, made.text
    assert "very-secret" not in made.text
    (command,) = (await sender.poll(**SAYS))["commands"]
    assert (command["kind"], command["transferId"]) == ("send_to_store", None)
    assert command["secret"] == {"accessKeyId": "their-key", "secretAccessKey": "their-very-secret"}
    assert command["spec"]["endpoint"] == {
        "host": "s3.example.org",
        "port": 9000,
        "tls": True,
        "caPem": None,
        "certificateSha256": None,
    }
    assert "secretAccessKey" not in command["spec"]
    await sender.started(command["id"])
    said = {"attempt": 1, "bytesDone": 4, "bytesTotal": 10}
    assert (await sender.ask(f"commands/{command['id']}/progress", **said)).status_code == 200
    shown = (await alice.get(f"/nodes/{sender.node_id}/commands/{command['id']}")).json()
    assert (shown["sourcePath"], shown["progress"]["bytesDone"]) == ("/run1/out.bin", 4)
    assert (await sender.ended(command["id"], result={"sizeBytes": 10, "files": 1, "verified": True})).status_code == 204
    assert await world.tools.node_commands.sealed(sender.node_id, command["id"]) is None
    refused = await alice.post(route, json={**SEND, "secretAccessKey": "x-very-secret", "bucket": "no/bucket"})
    assert "very-secret" not in problem(refused, 400)["message"] + refused.text


async def test_an_old_agent_gets_no_command_that_it_does_not_know(alice: httpx.AsyncClient, sender: NodeAgent) -> None:
    assert (await alice.post(f"/nodes/{sender.node_id}/sends", json=SEND)).status_code == 201
    assert (await sender.poll(capacity=8))["commands"] == []
    await sender.poll(capacity=8)
    problem(await alice.post(f"/nodes/{sender.node_id}/sends", json=SEND), 409, "road_closed")


async def test_its_owner_takes_the_receiving_off_his_queue_and_with_it_the_transfer(
    alice: httpx.AsyncClient, sender: NodeAgent, receiver: NodeAgent
) -> None:
    transfer = (await straight(alice, sender, receiver)).json()["transfer"]
    (listed,) = (await alice.get(f"/nodes/{receiver.node_id}/commands")).json()["commands"]
    assert (listed["kind"], listed["transferId"]) == ("receive", transfer["id"])
    assert (await alice.delete(f"/nodes/{receiver.node_id}/commands/{listed['id']}")).status_code == 204
    assert (await seen(alice, transfer["id"]))["state"] == "cancelled"


async def test_a_relay_that_says_nothing_of_roads_is_as_before(
    alice: httpx.AsyncClient, sender: NodeAgent, receiver: NodeAgent
) -> None:
    begun = await begin(alice, ("alps", "/home/alice/nothing"), on(receiver, "/x"))
    assert begun.status_code == 404
