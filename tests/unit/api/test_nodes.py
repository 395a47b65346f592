"""Nodes over HTTP, for their owners: registered, changed, revoked; their queues ordered and tidied."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from tests.fakes.world import World
from tests.unit.api.answers import problem

from stagecoach.core.bearer_secrets import secret_digest
from stagecoach.settings import Settings

ENROLMENT = r"sce_[A-Za-z0-9_-]{43}"


async def registered(client: httpx.AsyncClient, name: str = "archive") -> dict[str, Any]:
    answer = await client.post("/nodes", json={"name": name})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def checks(client: httpx.AsyncClient, node_id: str, count: int) -> list[str]:
    made = [await client.post(f"/nodes/{node_id}/commands", json={"kind": "check_network"}) for _ in range(count)]
    assert [answer.status_code for answer in made] == [201] * count
    return [answer.json()["id"] for answer in made]


async def queue(client: httpx.AsyncClient, node_id: str, **wanted: Any) -> list[str]:
    """In the order in which they will be carried out."""
    listed = (await client.get(f"/nodes/{node_id}/commands", params=wanted)).json()["commands"]
    return [command["id"] for command in reversed(listed)]


async def test_a_new_node_waits_for_its_agent_and_its_token_is_shown_once(alice: httpx.AsyncClient, world: World) -> None:
    made = await registered(alice)
    token = made["enrolmentToken"]
    assert re.fullmatch(ENROLMENT, token)
    assert made["command"] == (
        f"stagecoach agent enrol --server http://stagecoach --token {token} --send DIRECTORY --receive DIRECTORY"
    )
    assert (made["state"], made["owner"], made["parallel"]) == ("waiting", "alice", 1)
    assert (made["containerId"], made["system"]) == (made["id"], f"node:{made['id']}")
    shown = await alice.get(f"/nodes/{made['id']}")
    assert "sce_" not in shown.text
    assert (await alice.get("/nodes")).json()["nodes"] == [shown.json()]
    async with world.engine.connect() as connection:
        (digest,) = (await connection.exec_driver_sql("SELECT enrolment_sha256 FROM nodes")).scalars()
    assert digest == secret_digest(token)


async def test_names_differ_among_ones_own_nodes_that_are_not_revoked(alice: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
    first, second = await registered(alice), await registered(alice, "other")
    await registered(bob)
    problem(await alice.post("/nodes", json={"name": "archive"}), 409, "name_taken")
    problem(await alice.patch(f"/nodes/{second['id']}", json={"name": "archive"}), 409, "name_taken")
    assert (await alice.delete(f"/nodes/{first['id']}")).status_code == 204
    await registered(alice)


@pytest.mark.parametrize("name", ["", " x", "a\nb", "a\0", "x" * 101, 5, None])
async def test_a_name_that_is_none_is_refused(alice: httpx.AsyncClient, name: object) -> None:
    problem(await alice.post("/nodes", json={"name": name}), 400, "validation_error")


async def test_a_node_is_renamed_and_told_how_much_at_once(alice: httpx.AsyncClient) -> None:
    made = await registered(alice)
    changed = (await alice.patch(f"/nodes/{made['id']}", json={"name": "tape", "parallel": 4})).json()
    assert (changed["name"], changed["parallel"]) == ("tape", 4)
    problem(await alice.patch(f"/nodes/{made['id']}", json={"parallel": 0}), 400, "validation_error")
    assert (await alice.get(f"/nodes/{made['id']}")).json() == changed


async def test_so_many_nodes_and_no_more(alice: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = world.settings.nodes.model_copy(update={"max_nodes_per_user": 2})
    world.tools.settings_in_force.now = world.settings.model_copy(update={"nodes": limited})
    await registered(alice, "a")
    await registered(alice, "b")
    assert problem(await alice.post("/nodes", json={"name": "c"}), 409, "limit_reached")["data"] == {"limit": 2}


async def test_where_nodes_are_switched_off_none_is_made(alice: httpx.AsyncClient, world: World) -> None:
    off = world.settings.nodes.model_copy(update={"enabled": False})
    settings: Settings = world.settings.model_copy(update={"nodes": off})
    world.tools.settings_in_force.now = settings
    problem(await alice.post("/nodes", json={"name": "c"}), 403, "permission_denied")


async def test_another_enrolment_token_ends_the_one_before(alice: httpx.AsyncClient, world: World) -> None:
    made = await registered(alice)
    again = (await alice.post(f"/nodes/{made['id']}/enrolment")).json()
    assert again["enrolmentToken"] != made["enrolmentToken"]
    async with world.engine.connect() as connection:
        (digest,) = (await connection.exec_driver_sql("SELECT enrolment_sha256 FROM nodes")).scalars()
    assert digest == secret_digest(again["enrolmentToken"])


async def test_a_revoked_node_is_gone_with_its_queue(alice: httpx.AsyncClient, admin: httpx.AsyncClient, world: World) -> None:
    made = await registered(alice)
    await checks(alice, made["id"], 2)
    assert (await admin.get(f"/nodes/{made['id']}")).json()["name"] == "archive"
    problem(await admin.get(f"/nodes/{made['id']}/commands"), 404, "node_not_found")
    assert (await admin.delete(f"/nodes/{made['id']}")).status_code == 204
    assert (await alice.get("/nodes")).json()["nodes"] == []
    problem(await alice.get(f"/nodes/{made['id']}"), 404, "node_not_found")
    problem(await alice.delete(f"/nodes/{made['id']}"), 404, "node_not_found")
    assert await world.tools.node_commands.open_of(made["id"], None) == []
    node = await world.tools.nodes.get(made["id"])
    assert node is not None
    assert node.revoked_at is not None


async def test_what_waits_is_put_in_another_order(alice: httpx.AsyncClient) -> None:
    node_id = (await registered(alice))["id"]
    first, second, third = await checks(alice, node_id, 3)
    assert await queue(alice, node_id) == [first, second, third]
    assert (await alice.put(f"/nodes/{node_id}/order", json={"ids": [third, first]})).status_code == 204
    assert await queue(alice, node_id, state="pending") == [third, second, first]
    twice = await alice.put(f"/nodes/{node_id}/order", json={"ids": [third, third]})
    problem(twice, 400, "invalid_request")
    answer = await alice.put(f"/nodes/{node_id}/order", json={"ids": [first, "0" * 26]})
    assert problem(answer, 409, "wrong_state")["data"] == {"not_waiting": ["0" * 26]}
    assert await queue(alice, node_id) == [third, second, first]


async def test_a_command_is_cancelled_and_then_taken_off_the_list(alice: httpx.AsyncClient) -> None:
    node_id = (await registered(alice))["id"]
    first, second = await checks(alice, node_id, 2)
    for state in ("cancelled", None):
        assert (await alice.delete(f"/nodes/{node_id}/commands/{first}")).status_code == 204
        listed = (await alice.get(f"/nodes/{node_id}/commands")).json()["commands"]
        assert [command["state"] for command in listed if command["id"] == first] == ([state] if state else [])
        assert second in {command["id"] for command in listed}


async def test_the_queue_is_listed_in_pages(alice: httpx.AsyncClient) -> None:
    node_id = (await registered(alice))["id"]
    made = await checks(alice, node_id, 5)
    found: list[str] = []
    following: dict[str, str] = {}
    for _ in range(3):
        page = (await alice.get(f"/nodes/{node_id}/commands", params={"limit": 2, **following})).json()
        found += [command["id"] for command in page["commands"]]
        following = {"after": page["next"]} if page["next"] else {}
    assert (found, following) == (list(reversed(made)), {})
    problem(await alice.post(f"/nodes/{node_id}/commands", json={"kind": "check_network"}), 409, "limit_reached")


async def test_what_people_do_to_nodes_is_in_the_audit_log(alice: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    made = await registered(alice)
    await alice.patch(f"/nodes/{made['id']}", json={"parallel": 2})
    await checks(alice, made["id"], 1)
    await alice.delete(f"/nodes/{made['id']}")
    await alice.delete(f"/nodes/{made['id']}")
    text = (await admin.get("/admin/audit")).text
    assert "sce_" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["what"], line["target"], line["result"]) for line in lines if line["what"].startswith("node.")] == [
        ("node.make", made["id"], "done"),
        ("node.change", made["id"], "done"),
        ("node.check", made["id"], "done"),
        ("node.revoke", made["id"], "done"),
        ("node.revoke", made["id"], "node_not_found"),
    ]
