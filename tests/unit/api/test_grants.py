"""Who may send to whose node: by grants and by invitations, within their folder, their bytes and their time."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.node_agent import NodeAgent
from tests.fakes.world import World
from tests.unit.api.answers import problem
from tests.unit.api.conftest import Issuer, with_token
from tests.unit.api.test_node_transfers import begin_upload, put, seen
from tests.unit.api.test_nodes import registered


@pytest.fixture
async def agent(alice: httpx.AsyncClient, anonymous: httpx.AsyncClient, world: World) -> NodeAgent:
    """Of alice's node."""
    made = NodeAgent(anonymous, world.store.follow)
    await made.enrol((await registered(alice))["enrolmentToken"])
    return made


async def granted(client: httpx.AsyncClient, agent: NodeAgent, **terms: Any) -> dict[str, Any]:
    answer = await client.post(f"/nodes/{agent.node_id}/grants", json={"user": "bob", **terms})
    assert answer.status_code == 201, answer.text
    grant: dict[str, Any] = answer.json()
    return grant


async def invited(client: httpx.AsyncClient, agent: NodeAgent, **terms: Any) -> dict[str, Any]:
    answer = await client.post(f"/nodes/{agent.node_id}/invitations", json=terms)
    assert answer.status_code == 201, answer.text
    invitation: dict[str, Any] = answer.json()
    return invitation


async def try_upload(client: httpx.AsyncClient, node_id: str, path: str = "/x", size_bytes: int = 4) -> httpx.Response:
    return await client.post(f"/filesystem/node:{node_id}/transfer/upload", json={"path": path, "fileSize": size_bytes})


async def used(client: httpx.AsyncClient, agent: NodeAgent) -> list[int]:
    return [grant["usedBytes"] for grant in (await client.get(f"/nodes/{agent.node_id}/grants")).json()["grants"]]


def in_days(world: World, days: float) -> str:
    return world.tools.soon(days * 24 * 3600).isoformat()


async def test_whoever_holds_a_grant_sends(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, agent: NodeAgent, world: World
) -> None:
    grant = await granted(alice, agent, folder="/from-bob", maxBytes=100, expiresAt=in_days(world, 3), label="the campaign")
    assert (grant["user"], grant["usedBytes"], grant["label"]) == ("bob", 0, "the campaign")
    begun = await begin_upload(bob, agent.node_id, "/from-bob/run1/x", b"data")
    put(world, begun, b"data")
    await world.work(2)
    (command,) = (await alice.get(f"/nodes/{agent.node_id}/commands")).json()["commands"]
    assert (command["owner"], command["transferId"]) == ("bob", begun["transferId"])
    assert len(await agent.work()) == 1
    await world.work(3)
    assert (await seen(bob, begun))["state"] == "done"
    assert agent.receive == {"/from-bob/run1/x": b"data"}
    assert await used(alice, agent) == [4]
    (held,) = (await bob.get("/grants")).json()["grants"]
    assert (held["nodeName"], held["nodeOwner"], held["folder"], held["usedBytes"]) == ("archive", "alice", "/from-bob", 4)


async def test_the_holder_of_a_grant_sees_the_node_and_no_more(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, agent: NodeAgent
) -> None:
    await agent.poll(health=["Something secret."], freeBytes={"receive": 5})
    await granted(alice, agent)
    shown = (await bob.get(f"/nodes/{agent.node_id}")).json()
    assert (shown["name"], shown["state"]) == ("archive", "online")
    hidden = ("version", "platform", "freeBytes", "address", "health", "parallel", "createdAt", "enrolledAt")
    assert [shown[name] for name in hidden] == [None] * len(hidden)
    assert (await bob.get("/nodes")).json()["nodes"] == []
    path = f"/nodes/{agent.node_id}"
    for method, tail, body in (
        ("PATCH", "", {"name": "mine"}),
        ("DELETE", "", None),
        ("POST", "/enrolment", None),
        ("GET", "/commands", None),
        ("POST", "/commands", {"kind": "check_network"}),
        ("GET", "/grants", None),
        ("POST", "/grants", {"user": "eve"}),
        ("POST", "/invitations", {}),
    ):
        problem(await bob.request(method, path + tail, json=body), 404, "node_not_found")
    answer = await bob.post(f"/filesystem/node:{agent.node_id}/transfer/download", json={"path": "/x"})
    problem(answer, 404, "node_not_found")


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("never granted", "node_not_found"),
        ("granted to another", "node_not_found"),
        ("revoked", "node_not_found"),
        ("expired", "node_not_found"),
        ("only invited", "node_not_found"),
        ("node revoked", "node_not_found"),
        ("for another node", "node_not_found"),
        ("outside its folder", "path_refused"),
        ("beside its folder", "path_refused"),
        ("over its bytes", "grant_exceeded"),
        ("over its bytes in the end", "grant_exceeded"),
    ],
)
async def test_who_may_not_send_is_refused_and_nothing_is_made(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, agent: NodeAgent, world: World, case: str, code: str
) -> None:
    path, begun = "/in/x", []
    match case:
        case "granted to another":
            await granted(alice, agent, user="carol")
        case "revoked":
            grant = await granted(alice, agent)
            assert (await alice.delete(f"/nodes/{agent.node_id}/grants/{grant['id']}")).status_code == 204
        case "expired":
            await granted(alice, agent, expiresAt=in_days(world, 0.01))
            world.clock.advance(1000)
        case "only invited":
            await invited(alice, agent)
        case "node revoked":
            await granted(alice, agent)
            await alice.delete(f"/nodes/{agent.node_id}")
        case "for another node":
            other = await registered(alice, "other")
            await alice.post(f"/nodes/{other['id']}/grants", json={"user": "bob"})
        case "outside its folder":
            await granted(alice, agent, folder="/out")
        case "beside its folder":
            await granted(alice, agent, folder="/i")
        case "over its bytes":
            await granted(alice, agent, maxBytes=3)
        case "over its bytes in the end":
            await granted(alice, agent, maxBytes=7)
            begun.append(await begin_upload(bob, agent.node_id, path, b"data"))
    status = {"node_not_found": 404, "path_refused": 400, "grant_exceeded": 409}[code]
    body = problem(await try_upload(bob, agent.node_id, path), status, code)
    if code == "node_not_found":
        nobodys = problem(await try_upload(bob, "0" * 26, path), 404, code)
        assert body == nobodys
    assert [transfer.id for transfer in await world.all_transfers()] == [each["transferId"] for each in begun]
    assert len(await world.tools.node_commands.open_of(agent.node_id, None)) == len(begun)


async def test_bytes_are_counted_once_however_many_ask_at_once_and_given_back_when_nothing_was_made(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, agent: NodeAgent, world: World
) -> None:
    await granted(alice, agent, maxBytes=10)
    answers = await asyncio.gather(*(try_upload(bob, agent.node_id, f"/{number}", 4) for number in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 201, 409, 409, 409]
    assert await used(alice, agent) == [8]
    world.store.failing = True
    problem(await try_upload(bob, agent.node_id, "/y", 2), 503)
    world.store.failing = False
    assert await used(alice, agent) == [8]
    assert (await try_upload(bob, agent.node_id, "/y", 2)).status_code == 201


async def test_of_several_grants_the_first_that_covers_it_counts(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, agent: NodeAgent, world: World
) -> None:
    for folder, most in (("/a", 4), ("/a/b", 100)):
        await granted(alice, agent, folder=folder, maxBytes=most)
        world.clock.advance(1)
    assert [(await try_upload(bob, agent.node_id, path)).status_code for path in ("/a/b/x", "/a/b/y", "/a/z")] == [201, 201, 409]
    assert await used(alice, agent) == [4, 4]


async def test_an_invitation_is_redeemed_once(
    application: FastAPI,
    issuer: Issuer,
    alice: httpx.AsyncClient,
    bob: httpx.AsyncClient,
    agent: NodeAgent,
    world: World,
) -> None:
    invitation = await invited(alice, agent, folder="/in", label="for the other lab")
    token = invitation["token"]
    assert token.startswith("sci_")
    assert invitation["url"].endswith(f"/invitation#{token}")
    assert (invitation["user"], invitation["folder"]) == (None, "/in")
    problem(await alice.post("/invitations/redeem", json={"token": token}), 404, "node_not_found")
    async with with_token(application, issuer.token(preferred_username="carol")) as carol:
        clients = [bob, carol]
        answers = await asyncio.gather(*(client.post("/invitations/redeem", json={"token": token}) for client in clients))
        assert sorted(answer.status_code for answer in answers) == [200, 404]
        uploads = [await try_upload(client, agent.node_id, "/in/x") for client in clients]
        assert [(answer.status_code == 200) for answer in answers] == [upload.status_code == 201 for upload in uploads]
    (grant,) = (await alice.get(f"/nodes/{agent.node_id}/grants")).json()["grants"]
    assert grant["user"] in {"bob", "carol"}
    assert grant["redeemedAt"] is not None


@pytest.mark.parametrize("case", ["revoked", "expired", "its grant expired", "its node revoked", "none"])
async def test_an_invitation_that_does_not_hold_makes_nobody_welcome(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, agent: NodeAgent, world: World, case: str
) -> None:
    invitation = await invited(alice, agent, **({"expiresAt": in_days(world, 1)} if case == "its grant expired" else {}))
    token = invitation["token"] if case != "none" else "sci_" + "A" * 43
    if case == "revoked":
        await alice.delete(f"/nodes/{agent.node_id}/grants/{invitation['id']}")
    elif case == "its node revoked":
        await alice.delete(f"/nodes/{agent.node_id}")
    world.clock.advance({"expired": 8, "its grant expired": 2}.get(case, 0) * 24 * 3600)
    problem(await bob.post("/invitations/redeem", json={"token": token}), 404, "node_not_found")
    assert (await bob.get("/grants")).json()["grants"] == []


@pytest.mark.parametrize(
    "terms",
    [
        {"folder": "relative"},
        {"folder": "/a/../b"},
        {"maxBytes": 0},
        {"maxBytes": "5"},
        {"expiresAt": "2001-01-01T00:00:00Z"},
        {"expiresAt": "2035-01-01T00:00:00"},
        {"user": "alice"},
        {"user": ""},
        {"label": "a\nb"},
    ],
    ids=repr,
)
async def test_terms_that_make_no_sense_are_refused(alice: httpx.AsyncClient, agent: NodeAgent, terms: dict[str, Any]) -> None:
    problem(await alice.post(f"/nodes/{agent.node_id}/grants", json={"user": "bob", **terms}), 400)
    assert (await alice.get(f"/nodes/{agent.node_id}/grants")).json()["grants"] == []


async def test_the_nodes_owner_ends_what_somebody_sends_to_him(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, agent: NodeAgent, world: World
) -> None:
    grant = await granted(alice, agent)
    begun = await begin_upload(bob, agent.node_id, "/x", b"data")
    await alice.delete(f"/nodes/{agent.node_id}/grants/{grant['id']}")
    (command,) = (await alice.get(f"/nodes/{agent.node_id}/commands")).json()["commands"]
    problem(await alice.get(f"/transfers/{begun['transferId']}"), 404, "transfer_not_found")
    assert (await alice.delete(f"/nodes/{agent.node_id}/commands/{command['id']}")).status_code == 204
    cancelled = await seen(bob, begun)
    assert cancelled["state"] == "cancelled"
    assert "Cancelled by alice." in [line["message"] for line in cancelled["history"]]
    assert world.left_outside() == []


async def test_no_secret_of_an_invitation_is_kept(alice: httpx.AsyncClient, admin: httpx.AsyncClient, agent: NodeAgent) -> None:
    invitation = await invited(alice, agent)
    for answer in (await admin.get("/admin/audit"), await alice.get(f"/nodes/{agent.node_id}/grants")):
        assert invitation["token"] not in answer.text
        assert invitation["id"] in answer.text
