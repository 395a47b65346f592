"""Every route says who may call it, and lets nobody else; what is another's is not there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from tests.fakes.world import World
from tests.unit.api.answers import problem

from stagecoach.api.access import Guard, declared_routes, open_to_all, requires
from stagecoach.api.guard import DOCUMENT_PATHS, open_routes
from stagecoach.core.access import Scope

# The parameters of paths that name what is everybody's.
# Where a request without a body is none.
BODIES = {
    "/compute/{system}/jobs/{job_id}/attach": {"command": "id"},
    "/nodes/{node_id}": {"name": "mine"},
    "/transfers/{transfer_id}": {"rateLimitBytesPerSecond": 4096},
    "/nodes/{node_id}/commands": {"kind": "check_network"},
    "/nodes/{node_id}/sends": {
        "sourcePath": "/x",
        "isDirectory": False,
        "endpoint": {"host": "s3.example.org", "port": 443},
        "bucket": "data",
        "fileName": "x",
        "accessKeyId": "key",
        "secretAccessKey": "secret",
    },
    "/nodes/{node_id}/order": {"ids": ["0" * 26]},
    "/nodes/{node_id}/grants": {"user": "bob"},
    "/nodes/{node_id}/invitations": {},
}
EVERYBODYS = {"system"}


def operations(application: FastAPI) -> Iterator[tuple[str, str, set[str]]]:
    """Method, path and the path's parameters, from the OpenAPI document."""
    for path, verbs in application.openapi()["paths"].items():
        for verb in verbs:
            yield verb.upper(), path, set(re.findall(r"\{(\w+)\}", path))


def test_every_route_is_in_the_document(application: FastAPI) -> None:
    documented = {(method, path) for method, path, _ in operations(application)}
    assert documented == {(route.method, route.path) for route in declared_routes(application)} - {
        (method, path) for method in ("GET", "HEAD") for path in DOCUMENT_PATHS
    }


@pytest.mark.parametrize("dependencies", [[], [open_to_all(), requires(Scope.ADMIN)]])
def test_an_application_with_a_route_that_does_not_say_who_may_call_it_cannot_be_made(dependencies: list[Any]) -> None:
    app, router = FastAPI(), APIRouter()
    router.add_api_route("/forgotten", lambda: None, dependencies=dependencies)
    app.include_router(router, prefix="/some")
    with pytest.raises(RuntimeError, match="/some/forgotten"):
        open_routes(app)


def test_a_route_is_open_by_its_method_and_path() -> None:
    app = FastAPI()
    app.add_api_route("/a", lambda: None, methods=["GET"], dependencies=[open_to_all()])
    app.add_api_route("/a", lambda: None, methods=["POST"], dependencies=[requires(Scope.TRANSFERS_READ)])
    found = open_routes(app)
    assert {route for route in found if route[1] not in DOCUMENT_PATHS} == {("GET", "/a")}
    assert ("GET", "/docs") in found


async def test_only_administrators_get_to_what_is_theirs(
    application: FastAPI, alice: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    for route in declared_routes(application):
        if route.declares == (Guard(Scope.ADMIN),):
            assert problem(await alice.request(route.method, route.path), 403, "permission_denied")["user"] == "alice"
            assert (await admin.request(route.method, route.path)).status_code not in {401, 403}, route


async def test_another_users_things_are_not_there(
    application: FastAPI, world: World, alice: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    """Every route of the document that names a thing of somebody's; one with a parameter not known here fails the test."""
    begun = (await alice.post("/filesystem/alps/transfer/upload", json={"path": "/home/alice/x", "fileSize": 10})).json()
    alices = {"transfer_id": begun["transferId"], "job_id": begun["transferJob"]["jobId"]}
    made = (await alice.post("/tokens", json={"name": "mine", "scopes": ["transfers:read"], "expiresInDays": 1})).json()
    alices |= {"token_id": made["id"]}
    node = (await alice.post("/nodes", json={"name": "archive"})).json()
    command = (await alice.post(f"/nodes/{node['id']}/commands", json={"kind": "check_network"})).json()
    grant = (await alice.post(f"/nodes/{node['id']}/grants", json={"user": "dave"})).json()
    alices |= {"node_id": node["id"], "command_id": command["id"], "grant_id": grant["id"]}
    nobodys = {**dict.fromkeys(alices, "0" * 26), "job_id": "99999999"}
    before = await world.get(alices["transfer_id"])
    administrators = {
        (route.method, route.path) for route in declared_routes(application) if route.declares == (Guard(Scope.ADMIN),)
    }
    walked = 0
    for method, path, names in operations(application):
        if (method, path) in administrators or path.startswith("/agent/"):
            # Those are for agents alone: test_agent.py walks through them.
            continue
        owned = names - EVERYBODYS
        assert owned <= set(alices), f"{path}: say here whose {owned - set(alices)} is"
        if not owned:
            continue
        walked += 1
        answers = []
        for ids in (alices, nobodys):
            answer = await bob.request(method, path.format(system="alps", **ids), json=BODIES.get(path))
            body = problem(answer, 404)
            assert alices["transfer_id"] not in json.dumps(body), path
            answers.append({**body, "data": None})
        assert answers[0] == answers[1], f"{path}: tells that it is there"
    assert walked >= 21
    assert [token["id"] for token in (await alice.get("/tokens")).json()["tokens"]] == [made["id"]]
    assert await world.get(alices["transfer_id"]) == before
    assert (await alice.get(f"/nodes/{node['id']}")).json()["state"] == "waiting"
    (kept,) = (await alice.get(f"/nodes/{node['id']}/commands")).json()["commands"]
    assert kept == command
    assert (await alice.get(f"/nodes/{node['id']}/grants")).json()["grants"] == [grant]
    assert (await bob.get("/nodes")).json()["nodes"] == (await bob.get("/grants")).json()["grants"] == []
    listed = (await bob.get("/transfers", params={"owner": "alice"})).json()
    assert listed["transfers"] == []


async def test_an_administrator_sees_and_cancels_everybodys_transfers(
    world: World, alice: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    begun = (await alice.post("/filesystem/alps/transfer/upload", json={"path": "/home/alice/x", "fileSize": 10})).json()
    listed = (await admin.get("/transfers")).json()["transfers"]
    assert [transfer["owner"] for transfer in listed] == ["alice"]
    assert (await admin.get("/transfers", params={"owner": "bob"})).json()["transfers"] == []
    assert (await admin.get(f"/transfers/{begun['transferId']}")).json()["owner"] == "alice"
    assert (await admin.delete(f"/transfers/{begun['transferId']}")).json()["state"] == "cancelled"
    assert world.left_outside() == []
