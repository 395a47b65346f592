"""Personal tokens over HTTP: shown once, worth some of their maker's scopes, and never more than their maker."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.world import World
from tests.unit.api.answers import problem
from tests.unit.api.conftest import with_token
from tests.unit.api.test_access import STRANGERS, routes

from stagecoach.api.access import Guard
from stagecoach.core.access import Scope
from stagecoach.core.audit_log import AuditFilter
from stagecoach.flows.record_act import as_json, audit_lines


async def make(client: httpx.AsyncClient, *scopes: str, days: int = 30, name: str = "nightly") -> httpx.Response:
    return await client.post("/tokens", json={"name": name, "scopes": list(scopes), "expiresInDays": days})


async def made(client: httpx.AsyncClient, *scopes: str, **more: Any) -> dict[str, Any]:
    answer = await make(client, *scopes, **more)
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def test_a_token_acts_as_its_maker_and_is_shown_once(application: FastAPI, alice: httpx.AsyncClient, world: World) -> None:
    token = await made(alice, "transfers:read")
    assert token["token"].startswith("sct_")
    assert token["lastUsedAt"] is None
    async with with_token(application, token["token"]) as program:
        me = (await program.get("/accounts/me")).json()
        assert me == {
            "user": "alice",
            "account": None,
            "signedInBy": "personal",
            "scopes": ["transfers:read"],
            "isAdmin": False,
        }
    listed = await alice.get("/tokens")
    assert token["token"] not in listed.text
    (shown,) = listed.json()["tokens"]
    assert shown["id"] == token["id"]
    assert shown["name"] == "nightly"
    assert shown["lastUsedAt"] is not None
    assert (await alice.delete(f"/tokens/{token['id']}")).status_code == 204
    async with with_token(application, token["token"]) as program:
        problem(await program.get("/accounts/me"), 401)
    assert (await alice.get("/tokens")).json() == {"tokens": []}


@pytest.mark.parametrize("scope", [scope.value for scope in Scope if scope is not Scope.ADMIN])
async def test_each_route_is_closed_to_a_token_without_its_scope(
    application: FastAPI, alice: httpx.AsyncClient, scope: str
) -> None:
    token = (await made(alice, scope))["token"]
    refused = 0
    async with with_token(application, token) as program:
        for route in routes(application):
            declared = route.declares[0]
            if (route.method, route.path) in STRANGERS or not isinstance(declared, Guard):
                continue
            answer = await program.request(route.method, route.path.replace("{", "").replace("}", ""))
            if scope in declared.scopes:
                assert answer.status_code != 401, route
                assert answer.status_code != 403, (route, answer.text)
            else:
                problem(answer, 403, "permission_denied")
                refused += 1
    assert refused >= 3


async def test_a_token_expires(application: FastAPI, alice: httpx.AsyncClient, world: World) -> None:
    token = (await made(alice, "transfers:read", days=1))["token"]
    async with with_token(application, token) as program:
        world.clock.advance(86399)
        assert (await program.get("/transfers")).status_code == 200
        world.clock.advance(1)
        problem(await program.get("/transfers"), 401)
    assert (await alice.get("/tokens")).json() == {"tokens": []}


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "scopes": ["transfers:read"]},
        {"name": "x", "scopes": ["transfers:read"], "expiresInDays": None},
        {"name": "x", "scopes": ["transfers:read"], "expiresInDays": 0},
        {"name": "x", "scopes": ["transfers:read"], "expiresInDays": 91},
        {"name": "x", "scopes": ["transfers:read"], "expiresInDays": 10**30},
        {"name": "x", "scopes": [], "expiresInDays": 1},
        {"name": "x", "scopes": ["everything"], "expiresInDays": 1},
        {"name": "", "scopes": ["transfers:read"], "expiresInDays": 1},
        {"name": "a\nb", "scopes": ["transfers:read"], "expiresInDays": 1},
        {"name": "x" * 101, "scopes": ["transfers:read"], "expiresInDays": 1},
    ],
)
async def test_what_is_no_token_to_make_is_refused(alice: httpx.AsyncClient, body: dict[str, Any]) -> None:
    problem(await alice.post("/tokens", json=body), 400)


async def test_nobody_makes_more_than_they_are(alice: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    problem(await make(alice, "admin", days=1), 403)
    problem(await make(admin, "admin", days=2), 400)
    assert (await make(admin, "admin", days=1)).status_code == 201


async def test_an_administrators_token_without_the_scope_sees_what_a_user_sees(
    application: FastAPI, admin: httpx.AsyncClient, alice: httpx.AsyncClient
) -> None:
    await made(alice, "transfers:read")
    plain = (await made(admin, "tokens:manage"))["token"]
    async with with_token(application, plain) as program:
        problem(await program.get("/tokens", params={"owner": "alice"}), 403)
        problem(await program.get("/accounts"), 403)
    full = (await made(admin, "tokens:manage", "admin", days=1))["token"]
    async with with_token(application, full) as program:
        assert len((await program.get("/tokens", params={"owner": "alice"})).json()["tokens"]) == 1
        assert (await program.get("/accounts")).status_code == 200


async def test_a_token_makes_no_token(application: FastAPI, alice: httpx.AsyncClient) -> None:
    token = (await made(alice, "tokens:manage"))["token"]
    async with with_token(application, token) as program:
        problem(await make(program, "tokens:manage", days=1), 403)
        (shown,) = (await program.get("/tokens")).json()["tokens"]
        assert (await program.delete(f"/tokens/{shown['id']}")).status_code == 204
        problem(await program.get("/tokens"), 401)


async def test_somebody_elses_token_is_not_there(
    application: FastAPI, alice: httpx.AsyncClient, bob: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    token = await made(alice, "transfers:read")
    problem(await bob.delete(f"/tokens/{token['id']}"), 404, "token_not_found")
    problem(await bob.delete("/tokens/nothing"), 404, "token_not_found")
    assert (await bob.get("/tokens")).json() == {"tokens": []}
    problem(await bob.get("/tokens", params={"owner": "alice"}), 403)
    async with with_token(application, token["token"]) as program:
        assert (await program.get("/transfers")).status_code == 200
        assert (await admin.delete(f"/tokens/{token['id']}")).status_code == 204
        problem(await program.get("/transfers"), 401)


async def test_a_user_has_a_bounded_number(alice: httpx.AsyncClient, bob: httpx.AsyncClient, world: World) -> None:
    for _ in range(50):
        await made(alice, "transfers:read", days=1)
    problem(await make(alice, "transfers:read", days=1), 409, "too_many_tokens")
    await made(bob, "transfers:read")
    world.clock.advance(86400)
    await made(alice, "transfers:read")


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-1],
        lambda token: token + "A",
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: "scs_" + token[4:],
        lambda token: token.swapcase(),
        lambda token: "sct_",
        lambda token: "sct_" + "A" * 43,
        lambda token: "sct_" + "%" * 43,
        lambda token: "sct_" + "A" * 20_000,
    ],
)
async def test_a_token_that_is_a_little_wrong_is_refused_and_not_repeated(
    application: FastAPI, alice: httpx.AsyncClient, change: Any
) -> None:
    wrong = change((await made(alice, "transfers:read"))["token"])
    async with with_token(application, wrong) as program:
        answer = await program.get("/transfers")
    body = problem(answer, 401, "not_authenticated")
    assert body["user"] is None
    assert len(wrong) < 8 or wrong[4:] not in answer.text


async def test_a_secret_where_an_id_belongs_is_not_written_down(
    application: FastAPI, alice: httpx.AsyncClient, world: World
) -> None:
    secret = (await made(alice, "transfers:read"))["token"]
    problem(await alice.delete(f"/tokens/{secret}"), 404)
    async with with_token(application, "no.token.at-all") as forger:
        problem(await forger.delete(f"/tokens/{secret}"), 401)
    lines = [line async for line in audit_lines(world.tools, AuditFilter())]
    assert [line.what for line in lines] == ["token.make", "token.revoke", "authentication.refused"]
    assert secret not in "".join(as_json(line) for line in lines)
