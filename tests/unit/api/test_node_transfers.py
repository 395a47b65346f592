"""Transfers to and from nodes, by the same requests as a cluster's: from a client to a node and from a node to a client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fakes.node_agent import NodeAgent
from tests.fakes.systems import put_by_urls
from tests.fakes.world import World, open_world, world_settings
from tests.unit.api.answers import problem
from tests.unit.api.test_nodes import registered

from stagecoach.core.nodes import CommandKind, CommandState, NodeCommand
from stagecoach.flows.audit_fix import run_audit
from stagecoach.flows.audit_looks import Scope

CONTENT = bytes(range(256)) * 90_000
RECEIPT_GRACE = 20
DAY_SECONDS = 24 * 3600


@pytest.fixture
async def world(tmp_path: Path, database_template: Path) -> AsyncIterator[World]:
    """Where what failed is kept for a while."""
    async with open_world(tmp_path, database_template, world_settings()) as opened:
        yield opened


@pytest.fixture
async def agent(alice: httpx.AsyncClient, anonymous: httpx.AsyncClient, world: World) -> NodeAgent:
    """Of alice's node."""
    made = NodeAgent(anonymous, world.store.follow)
    await made.enrol((await registered(alice))["enrolmentToken"])
    return made


async def begin_upload(client: httpx.AsyncClient, node_id: str, path: str, content: bytes, **more: Any) -> dict[str, Any]:
    body = {"path": path, "transferDirectives": {"transferMethod": "s3", "fileSize": len(content)}, **more}
    answer = await client.post(f"/filesystem/node:{node_id}/transfer/upload", json=body)
    assert answer.status_code == 201, answer.text
    begun: dict[str, Any] = answer.json()
    return begun


def put(world: World, begun: dict[str, Any], content: bytes) -> None:
    directives = begun["transferDirectives"]
    urls, complete = directives["partsUploadUrls"], directives["completeUploadUrl"]
    assert put_by_urls(world.store.follow, content, directives["maxPartSize"], urls, complete)


async def begin_download(client: httpx.AsyncClient, node_id: str, path: str, **more: Any) -> dict[str, Any]:
    body = {"path": path, "transferDirectives": {"transferMethod": "s3"}, **more}
    answer = await client.post(f"/filesystem/node:{node_id}/transfer/download", json=body)
    assert answer.status_code == 201, answer.text
    begun: dict[str, Any] = answer.json()
    return begun


async def seen(client: httpx.AsyncClient, begun: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"/transfers/{begun['transferId']}")).json()
    return found


async def queue(client: httpx.AsyncClient, agent: NodeAgent) -> list[tuple[str, str]]:
    listed = (await client.get(f"/nodes/{agent.node_id}/commands")).json()["commands"]
    return [(command["transferId"], command["state"]) for command in listed]


@pytest.mark.parametrize("content", [CONTENT, b""], ids=["of three parts", "empty"])
async def test_a_client_sends_to_a_node(alice: httpx.AsyncClient, agent: NodeAgent, world: World, content: bytes) -> None:
    begun = await begin_upload(alice, agent.node_id, "/run1/data.bin", content)
    assert begun["transferJob"]["system"] == f"node:{agent.node_id}"
    assert begun["transferJob"]["workingDirectory"] == ""
    assert await queue(alice, agent) == [(begun["transferId"], "held")]
    await world.work(3)
    assert await agent.work() == []
    put(world, begun, content)
    await world.work(2)
    assert await queue(alice, agent) == [(begun["transferId"], "pending")]
    given = await agent.poll()
    (command,) = given["commands"]
    assert (command["kind"], command["transferId"]) == ("move", begun["transferId"])
    assert command["spec"] == {"direction": "fetch"}
    ticket = agent.ticket(command)
    assert ticket["place"] == "receive"
    assert "root_base64" not in ticket
    await agent.started(command["id"])
    await world.work(1)
    assert (await seen(alice, begun))["state"] == "moving"
    assert agent.move(command) == 0
    assert (await agent.ended(command["id"])).status_code == 204
    await world.work(3)
    done = await seen(alice, begun)
    assert (done["state"], done["system"]) == ("done", f"node:{agent.node_id}")
    assert agent.receive == {"/run1/data.bin": content}
    assert world.left_outside() == []
    assert await queue(alice, agent) == [(begun["transferId"], "done")]


async def test_what_waits_on_its_node_for_longer_than_its_address_works_gets_another_one(
    alice: httpx.AsyncClient, agent: NodeAgent, world: World
) -> None:
    agent.send = {"/run1/out.bin": CONTENT}
    begun = await begin_download(alice, agent.node_id, "/run1/out.bin")
    (command,) = (await agent.poll())["commands"]
    assert command["ticketSeconds"] == 7 * DAY_SECONDS
    assert (await agent.poll())["ticketUrls"] == []
    await agent.started(command["id"])
    for _ in range(6):
        # Its agent is heard of all the time, and is slow.
        world.clock.advance(1.5 * DAY_SECONDS)
        for _ in range(3):
            await agent.poll()
            await world.work(2)
    assert world.store.follow("GET", command["ticketUrl"], b"")[0] == 403
    answer = await agent.poll(expiring=[command["id"], "unknown"])
    (renewed,) = answer["ticketUrls"]
    assert (renewed["id"], renewed["ticketSeconds"]) == (command["id"], 7 * DAY_SECONDS)
    assert agent.move({**command, "ticketUrl": renewed["ticketUrl"]}) == 0
    await agent.ended(command["id"])
    await world.work(3)
    assert (await seen(alice, begun))["state"] == "staged"
    assert (await agent.poll(expiring=[command["id"]], running=[command["id"]]))["ticketUrls"] == [], "it has ended"


@pytest.mark.parametrize("content", [CONTENT, b""], ids=["of three parts", "empty"])
async def test_a_client_fetches_from_a_node(alice: httpx.AsyncClient, agent: NodeAgent, world: World, content: bytes) -> None:
    agent.send = {"/run1/out.bin": content}
    begun = await begin_download(alice, agent.node_id, "/run1/out.bin")
    assert (await seen(alice, begun))["sizeBytes"] is None
    assert len(await agent.work()) == 1
    await world.work(3)
    staged = await seen(alice, begun)
    assert (staged["state"], staged["sizeBytes"]) == ("staged", len(content))
    status, _, body = world.store.follow("GET", begun["transferDirectives"]["downloadUrl"], b"")
    assert (status, body) == (200, content)
    assert (await alice.post(f"/transfers/{begun['transferId']}/finish")).json()["state"] == "done"
    await world.work(3)
    assert world.left_outside() == []


async def test_a_directory_goes_to_a_node_as_a_tar_stream(alice: httpx.AsyncClient, agent: NodeAgent, world: World) -> None:
    begun = await begin_upload(alice, agent.node_id, "/run1", bytes(1024), archive="tar")
    put(world, begun, bytes(1024))
    await world.work(2)
    (command,) = (await agent.poll())["commands"]
    assert (agent.ticket(command)["archive"], agent.ticket(command)["place"]) == ("tar", "receive")
    begun = await begin_download(alice, agent.node_id, "/", archive="tar")
    assert (await seen(alice, begun))["path"] == "/"


async def test_what_is_not_on_the_node_fails_in_the_movers_words(
    alice: httpx.AsyncClient, agent: NodeAgent, world: World
) -> None:
    begun = await begin_download(alice, agent.node_id, "/nothing")
    await agent.work()
    await world.work(3)
    failed = await seen(alice, begun)
    assert (failed["state"], failed["code"]) == ("failed", "source_missing")
    assert world.left_outside() == []


async def test_a_command_that_ends_without_a_receipt_fails_in_the_agents_words(
    alice: httpx.AsyncClient, agent: NodeAgent, world: World
) -> None:
    begun = await begin_download(alice, agent.node_id, "/x")
    (command,) = (await agent.poll())["commands"]
    await agent.ended(command["id"], exitCode=3, code="no_python", message="The mover cannot be started.")
    await world.work(RECEIPT_GRACE)
    failed = await seen(alice, begun)
    assert failed["state"] == "failed"
    assert failed["reason"].startswith("The node did not do it: The mover cannot be started.")


@pytest.mark.parametrize("path", ["relative", "/a/../b", "/", "/x/", "/" + "y" * 256, "/a\0b"])
async def test_a_path_that_leads_nowhere_is_refused(alice: httpx.AsyncClient, agent: NodeAgent, world: World, path: str) -> None:
    for way, body in (("upload", {"fileSize": 1}), ("download", {})):
        answer = await alice.post(f"/filesystem/node:{agent.node_id}/transfer/{way}", json={"path": path, **body})
        problem(answer, 400, "path_refused")
    assert await world.all_transfers() == []


async def test_what_does_not_fit_is_refused(alice: httpx.AsyncClient, agent: NodeAgent, world: World) -> None:
    await agent.poll(freeBytes={"receive": 9})
    answer = await alice.post(f"/filesystem/node:{agent.node_id}/transfer/upload", json={"path": "/x", "fileSize": 10})
    problem(answer, 400, "no_space")
    assert await world.all_transfers() == []


async def test_a_node_that_is_away_is_waited_for_and_the_reason_told(
    alice: httpx.AsyncClient, agent: NodeAgent, world: World
) -> None:
    agent.send = {"/x": b"data"}
    begun = await begin_download(alice, agent.node_id, "/x")
    world.clock.advance(200)
    await world.work(1)
    waiting = await seen(alice, begun)
    assert (waiting["state"], waiting["jobReason"]) == ("queued", "NodeOffline")
    assert "not connected" in waiting["reason"]
    (command,) = (await agent.poll())["commands"]
    await agent.started(command["id"])
    await world.work(1)
    assert (await seen(alice, begun))["state"] == "moving"
    # It loses its connection, and its lease runs out; nothing fails for that.
    world.clock.advance(300)
    await world.work(2)
    assert (await seen(alice, begun))["state"] == "queued"
    agent.has = {}
    assert len(await agent.work()) == 1
    await world.work(3)
    assert (await seen(alice, begun))["state"] == "staged"


@pytest.mark.parametrize("when", ["held", "pending", "delivered", "running", "away"])
async def test_a_transfer_is_cancelled_wherever_its_command_is(
    alice: httpx.AsyncClient, agent: NodeAgent, world: World, when: str
) -> None:
    begun = await begin_upload(alice, agent.node_id, "/x", CONTENT)
    if when != "held":
        put(world, begun, CONTENT)
        await world.work(2)
    if when in {"delivered", "running", "away"}:
        (command,) = (await agent.poll())["commands"]
    if when in {"running", "away"}:
        await agent.started(command["id"])
        await world.work(1)
    if when == "away":
        world.clock.advance(400)
    if when in {"delivered", "running"}:
        asked = await world.get(begun["transferId"])
        await world.tools.system(asked.system).scheduler.cancel("alice", asked.job_id or "")
        assert (await agent.poll())["cancel"] == [command["id"]]
        await agent.ended(command["id"], exitCode=143, code="cancelled")
    assert (await alice.delete(f"/transfers/{begun['transferId']}")).json()["state"] == "cancelled"
    await world.work(3)
    world.clock.advance(100)
    await world.work(1)
    assert world.left_outside() == []
    assert await queue(alice, agent) == [(begun["transferId"], "cancelled")]
    assert (await agent.poll())["commands"] == []


async def test_a_running_command_is_cancelled_by_the_worker_when_its_agent_takes_its_time(
    alice: httpx.AsyncClient, agent: NodeAgent, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stagecoach.flows.cancel_transfer.INLINE_SECONDS", 0.5)
    begun = await begin_upload(alice, agent.node_id, "/x", b"data")
    put(world, begun, b"data")
    await world.work(2)
    (command,) = (await agent.poll())["commands"]
    await agent.started(command["id"])
    assert (await alice.delete(f"/transfers/{begun['transferId']}")).json()["state"] == "cancelling"
    assert (await agent.poll())["cancel"] == [command["id"]]
    await agent.ended(command["id"], exitCode=143, code="cancelled")
    world.clock.advance(60)
    await world.work(3)
    assert (await seen(alice, begun))["state"] == "cancelled"
    assert world.left_outside() == []


async def test_its_owner_takes_a_transfer_off_the_queue(alice: httpx.AsyncClient, agent: NodeAgent, world: World) -> None:
    begun = await begin_upload(alice, agent.node_id, "/x", b"data")
    (command,) = (await alice.get(f"/nodes/{agent.node_id}/commands")).json()["commands"]
    assert (await alice.delete(f"/nodes/{agent.node_id}/commands/{command['id']}")).status_code == 204
    assert (await seen(alice, begun))["state"] == "cancelled"
    assert world.left_outside() == []


async def test_a_failed_one_is_retried_with_another_command(
    alice: httpx.AsyncClient, anonymous: httpx.AsyncClient, tmp_path: Path, world: World, agent: NodeAgent
) -> None:
    limits = world.settings.nodes.limits.model_copy(update={"keep_failed_seconds": 3600})
    nodes = world.settings.nodes.model_copy(update={"limits": limits})
    world.tools.settings_in_force.now = world.settings.model_copy(update={"nodes": nodes})
    begun = await begin_upload(alice, agent.node_id, "/x", b"data")
    put(world, begun, b"data")
    await world.work(2)
    (command,) = (await agent.poll())["commands"]
    agent.tell(agent.ticket(command), None, "no_space")
    await agent.ended(command["id"], exitCode=1, code="no_space")
    await world.work(3)
    failed = await seen(alice, begun)
    assert (failed["state"], failed["code"]) == ("failed", "no_space")
    retried = await alice.post(f"/transfers/{begun['transferId']}/retry")
    assert retried.json()["state"] == "staged", retried.text
    await world.work(3)
    assert len(await agent.work()) == 1
    await world.work(3)
    assert (await seen(alice, begun))["state"] == "done"
    assert agent.receive == {"/x": b"data"}


async def test_what_is_under_way_when_its_node_is_revoked_fails_and_leaves_nothing(
    alice: httpx.AsyncClient, agent: NodeAgent, world: World
) -> None:
    receiving = await begin_upload(alice, agent.node_id, "/x", b"data")
    queued = await begin_download(alice, agent.node_id, "/y")
    running = await begin_download(alice, agent.node_id, "/z")
    await alice.patch(f"/nodes/{agent.node_id}", json={"parallel": 2})
    for command in (await agent.poll(capacity=2))["commands"]:
        if command["transferId"] == running["transferId"]:
            await agent.started(command["id"])
    await world.work(2)
    assert (await alice.delete(f"/nodes/{agent.node_id}")).status_code == 204
    put(world, receiving, b"data")
    await world.work(RECEIPT_GRACE)
    codes = {(await seen(alice, begun))["code"] for begun in (receiving, queued, running)}
    assert codes == {"submission_refused", "job_cancelled"}
    assert "revoked" in (await seen(alice, queued))["reason"]
    world.clock.advance(2 * 24 * 3600)
    await world.work(5)
    assert world.left_outside() == []


async def test_what_nodes_do_not_do_is_refused_the_same_of_everybodys(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, agent: NodeAgent
) -> None:
    paths = [f"/filesystem/node:{agent.node_id}/ops/{what}" for what in ("ls?path=/", "stat?path=/x", "head?path=/x")]
    paths += [f"/compute/node:{agent.node_id}/jobs", f"/status/node:{agent.node_id}/nodes"]
    for path in paths:
        answers = [problem(await client.get(path), 400, "node_unsupported")["message"] for client in (alice, bob)]
        answers.append(problem(await alice.get(path.replace(agent.node_id, "0" * 26)), 400, "node_unsupported")["message"])
        assert len(set(answers)) == 1
    body = {"path": "/x", "targetPath": "/y"}
    problem(await alice.post(f"/filesystem/node:{agent.node_id}/transfer/mv", json=body), 400, "node_unsupported")


async def test_the_job_of_a_transfer_is_shown_as_any_other(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, agent: NodeAgent
) -> None:
    begun = await begin_upload(alice, agent.node_id, "/x", b"data")
    job_id = begun["transferJob"]["jobId"]
    path = f"/compute/node:{agent.node_id}/jobs/{job_id}"
    (job,) = (await alice.get(path)).json()["jobs"]
    assert (job["jobId"], job["cluster"]) == (job_id, f"node:{agent.node_id}")
    problem(await bob.get(path), 400, "node_unsupported")
    systems = (await alice.get("/status/systems")).json()["systems"]
    assert [system["name"] for system in systems] == ["alps", "bora"]


async def test_an_audit_finds_and_ends_a_command_that_nothing_needs(
    alice: httpx.AsyncClient, agent: NodeAgent, world: World
) -> None:
    begun = await begin_upload(alice, agent.node_id, "/x", b"data")
    transfer = await world.get(begun["transferId"])
    lost = NodeCommand(
        id=world.tools.new_id(),
        node_id=agent.node_id,
        number=0,
        kind=CommandKind.MOVE,
        name=f"{transfer.job_name}-2",
        owner="alice",
        created_at=world.clock.now(),
        transfer_id=transfer.id,
        state=CommandState.HELD,
    )
    await world.tools.node_commands.add(lost)
    assert (await alice.delete(f"/transfers/{begun['transferId']}")).json()["state"] == "cancelled"
    world.clock.advance(3600)
    await world.work(2)
    found = await run_audit(world.tools, Scope(), fix=False)
    assert [(finding.kind.value, finding.name) for finding in found.findings] == [("job", lost.id)]
    assert found.unseen == []
    assert (await run_audit(world.tools, Scope(), fix=True)).findings == []
    assert await world.tools.node_commands.open_of(agent.node_id, None) == []
