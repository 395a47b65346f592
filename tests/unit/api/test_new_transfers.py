"""``POST /transfers``: a transfer by its two ends, as a client's upload or download, or from one system to another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.receiver import SECRET
from tests.fakes.systems import put_by_urls
from tests.fakes.world import World, open_world, world_settings
from tests.unit.api.answers import problem
from tests.unit.api.test_events import SECONDS, Event, events, states, until_told
from tests.unit.api.test_transfers import require_nothing_made

from stagecoach.core.audit_log import AuditFilter
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows.record_act import audit_lines

CONTENT = b"content " * 100
SOURCE, TARGET = "/home/alice/source", "/home/alice/target"
RELAY: dict[str, Any] = {
    "source": {"system": "alps", "path": SOURCE},
    "destination": {"system": "bora", "path": TARGET, "account": "acc"},
}
URL = "https://hooks.example.org/in"


@pytest.fixture
async def world(tmp_path: Path, database_template: Path) -> AsyncIterator[World]:
    """With quick streams and webhooks."""
    changes: dict[str, Any] = {
        "events": {"poll_seconds": 0.05, "heartbeat_seconds": 0.2},
        "webhooks": {"allowed_hosts": ["hooks.example.org"], "signing_secret": SECRET},
    }
    async with open_world(tmp_path, database_template, world_settings(**changes)) as opened:
        opened.files.add_file(SOURCE, "alice", CONTENT)
        yield opened


async def rows(world: World) -> tuple[Transfer, Transfer]:
    """The leg and the transfer."""
    leg, transfer = sorted(await world.all_transfers(), key=lambda row: row.relay_of is None)
    return leg, transfer


async def begun(client: httpx.AsyncClient, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    answer = await client.post("/transfers", json=body, headers={name.replace("_", "-"): text for name, text in headers.items()})
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def test_an_upload(alice: httpx.AsyncClient, world: World) -> None:
    body = {"destination": {"system": "alps", "path": TARGET}, "sizeBytes": len(CONTENT)}
    answer = await begun(alice, body)
    assert set(answer) == {"transfer", "upload", "downloadUrl", "transferState"}
    assert (answer["downloadUrl"], answer["transferState"]) == (None, None)
    upload = answer["upload"]
    assert put_by_urls(world.store.follow, CONTENT, upload["partSizeBytes"], upload["partUrls"], upload["completeUrl"])
    shown = answer["transfer"]
    assert (shown["direction"], shown["state"], shown["source"]) == ("upload", "receiving", None)
    assert shown["destination"] == {"system": "alps", "path": TARGET}
    for _ in range(4):
        await world.work()
        world.let_cluster_work()
    assert world.files.entries[TARGET].content == CONTENT


async def test_a_download(alice: httpx.AsyncClient, world: World) -> None:
    answer = await begun(alice, {"source": {"system": "alps", "path": SOURCE}, "destination": None})
    assert answer["upload"] is None
    for _ in range(4):
        world.let_cluster_work()
        await world.work()
    assert world.store.follow("GET", answer["downloadUrl"], b"")[2] == CONTENT
    shown = (await alice.get(f"/transfers/{answer['transfer']['id']}")).json()
    assert (shown["source"], shown["destination"], shown["legs"]) == ({"system": "alps", "path": SOURCE}, None, [])


async def test_from_one_system_to_another(alice: httpx.AsyncClient, world: World) -> None:
    answer = await begun(alice, RELAY)
    assert (answer["upload"], answer["downloadUrl"]) == (None, None)
    transfer_id = answer["transfer"]["id"]
    leg, transfer = await rows(world)
    assert (transfer.id, transfer.account, leg.account) == (transfer_id, "acc", None)
    world.nodes.move_some(leg.job_id or "", 300)
    await world.work(2)
    shown = (await alice.get(f"/transfers/{transfer_id}")).json()
    assert shown["source"] == {"system": "alps", "path": SOURCE}
    assert shown["destination"] == {"system": "bora", "path": TARGET}
    source, destination = shown["legs"]
    assert (source["leg"], source["transferId"], source["state"], source["bytesMoved"]) == ("source", leg.id, "moving", 300)
    assert (destination["leg"], destination["transferId"]) == ("destination", transfer_id)
    assert (destination["state"], destination["bytesMoved"], destination["jobId"]) == ("receiving", 0, None)
    assert (shown["bytesStaged"], shown["bytesMoved"]) == (300, 0)
    of_leg = (await alice.get(f"/transfers/{leg.id}")).json()
    assert (of_leg["relayOf"], of_leg["direction"]) == (transfer_id, "download")
    for system in ("", "?system=alps", "?system=bora"):
        listed = (await alice.get(f"/transfers{system}")).json()["transfers"]
        assert [each["id"] for each in listed] == [transfer_id]
    for _ in range(9):
        await world.work(seconds=20)
        world.let_cluster_work()
    shown = (await alice.get(f"/transfers/{transfer_id}")).json()
    assert [shown["state"], *(each["state"] for each in shown["legs"])] == ["done", "done", "done"]
    assert [each["jobLog"] for each in shown["legs"]] == ["job output\n"] * 2
    assert shown["proved"]
    assert world.files.entries[TARGET].content == CONTENT


async def test_the_account_is_for_both_ends_unless_one_has_its_own(alice: httpx.AsyncClient, world: World) -> None:
    ends = {"source": {"system": "bora", "path": SOURCE, "account": "one"}, "destination": {"system": "bora", "path": TARGET}}
    await begun(alice, {**ends, "account": "both"})
    assert [row.account for row in await rows(world)] == ["one", "both"]


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({}, 400, "invalid_request"),
    ({"source": None, "destination": None, "sizeBytes": 1}, 400, "invalid_request"),
    ({"destination": RELAY["destination"]}, 400, "size_refused"),
    ({**RELAY, "sizeBytes": 800}, 400, "size_refused"),
    ({**RELAY, "partDigests": {"algorithm": "md5", "values": ["0" * 32]}}, 400, "digest_refused"),
    ({"source": RELAY["source"], "sha256": "0" * 64}, 400, "digest_refused"),
    ({**RELAY, "source": {"system": "alps", "path": "relative"}}, 400, "path_refused"),
    ({**RELAY, "source": {"system": "a/b", "path": SOURCE}}, 400, "validation_error"),
    ({**RELAY, "source": {"system": "none", "path": SOURCE}}, 404, "system_not_found"),
    ({**RELAY, "destination": {"system": "none", "path": SOURCE}}, 404, "system_not_found"),
    ({**RELAY, "destination": {"system": "bora", "path": TARGET}}, 400, "account_required"),
    ({**RELAY, "archive": "zip"}, 400, "validation_error"),
    ({**RELAY, "archive": "tar"}, 400, "not_a_directory"),
    ({**RELAY, "webhookUrl": "https://elsewhere.example.org"}, 400, "webhook_refused"),
    ({**RELAY, "source": {"system": "alps", "path": "/home/alice/none"}}, 404, "file_missing"),
]


@pytest.mark.parametrize(("body", "status", "code"), REFUSED)
async def test_a_refusal_leaves_nothing(
    alice: httpx.AsyncClient, world: World, body: dict[str, Any], status: int, code: str
) -> None:
    problem(await alice.post("/transfers", json=body), status, code)
    await require_nothing_made(world)


@pytest.mark.parametrize(
    "body",
    [RELAY, {"source": RELAY["source"]}, {"destination": {"system": "alps", "path": TARGET}, "sizeBytes": "800"}],
    ids=["relay", "download", "upload"],
)
async def test_the_same_key_is_the_same_transfer(alice: httpx.AsyncClient, world: World, body: dict[str, Any]) -> None:
    first = await begun(alice, body, Idempotency_Key="k")
    again = await begun(alice, body, Idempotency_Key="k")
    assert again["transfer"]["id"] == first["transfer"]["id"]
    assert (first["transferState"], again["transferState"]) == (None, again["transfer"]["state"])
    assert world.scheduler.count("submit") == 1
    changed = await alice.post("/transfers", json={**body, "account": "other"}, headers={"Idempotency-Key": "k"})
    problem(changed, 422, "idempotency_key_reused")


async def test_nothing_is_begun_without_the_right_to(anonymous: httpx.AsyncClient, bob: httpx.AsyncClient, world: World) -> None:
    problem(await anonymous.post("/transfers", json=RELAY), 401, "not_authenticated")
    problem(await bob.post("/transfers", json=RELAY), 400, "path_refused")
    await require_nothing_made(world)


async def test_it_is_written_down_who_began_it(alice: httpx.AsyncClient, world: World) -> None:
    begun_one = await begun(alice, RELAY)
    lines = [line async for line in audit_lines(world.tools, AuditFilter())]
    assert [(line.who, line.what, line.target) for line in lines] == [("alice", "transfer.relay", begun_one["transfer"]["id"])]
    assert lines[0].detail == {"system": "bora", "path": TARGET, "source_system": "alps", "source_path": SOURCE}


async def test_a_leg_is_left_to_its_transfer(alice: httpx.AsyncClient, world: World) -> None:
    await begun(alice, RELAY)
    leg, transfer = await rows(world)
    for method, route in (("DELETE", ""), ("POST", "/retry"), ("POST", "/finish"), ("GET", "/download-url")):
        refused = problem(await alice.request(method, f"/transfers/{leg.id}{route}"), 409, "wrong_state")
        assert refused["data"]["transfer_id"] == transfer.id
    for method, route in (("GET", "/parts"), ("POST", "/finish"), ("GET", "/download-url")):
        problem(await alice.request(method, f"/transfers/{transfer.id}{route}"), 409, "wrong_state")
    assert (await alice.delete(f"/transfers/{transfer.id}")).json()["state"] == "cancelled"
    assert world.left_outside() == []


async def test_the_webhook_is_told_of_the_transfer_and_not_of_its_leg(alice: httpx.AsyncClient, world: World) -> None:
    answer = await begun(alice, {**RELAY, "webhookUrl": URL})
    for _ in range(9):
        await world.work(seconds=20)
        world.let_cluster_work()
    told = await world.tools.deliveries.claim_due(world.clock.now(), 60, 100)
    assert {delivery.transfer_id for delivery in told} == {answer["transfer"]["id"]}


async def test_the_events_tell_of_both_legs(alice: httpx.AsyncClient, world: World, application: FastAPI) -> None:
    world.application = application  # type: ignore[attr-defined]
    transfer_id = (await begun(alice, RELAY))["transfer"]["id"]
    leg, _ = await rows(world)
    stream = asyncio.create_task(alice.get(f"/transfers/{transfer_id}/events"))
    await until_told(world, transfer_id, lambda told: told.state is State.RECEIVING)
    world.nodes.move_some(leg.job_id or "", 300)
    await world.work(2)
    await until_told(world, transfer_id, lambda told: told.bytes_staged == 300)
    for _ in range(9):
        await world.work()
        world.let_cluster_work()
    found = events((await asyncio.wait_for(stream, SECONDS)).text)
    assert states(found, "state")[0] == "receiving"
    assert states(found, "state")[-1] == "done"
    first = next(event for event in found if event.kind == "progress")
    assert (first.data["bytesStaged"], first.data["bytesMoved"]) == (300, 0)
    assert legs(first) == [("source", "moving", 300), ("destination", "receiving", 0)]
    last = [event for event in found if event.kind == "state"][-1]
    assert [leg for leg, _, _ in legs(last)] == ["source", "destination"]


def legs(event: Event) -> list[tuple[str, str, int]]:
    return [(leg["leg"], leg["state"], leg["bytesMoved"]) for leg in event.data["legs"]]
