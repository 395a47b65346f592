"""Local accounts over HTTP: who may make one, whom it may be on the clusters, how its sessions begin and end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from tests.fakes.world import World, open_world, world_settings
from tests.unit.api.answers import problem
from tests.unit.api.conftest import Issuer, with_token

from stagecoach.core.audit_log import AuditFilter
from stagecoach.flows.believe_secret import believe_secret
from stagecoach.flows.record_act import as_json, audit_lines

PASSWORD = "seven llamas read maps"
OTHER = "eleven quiet harbours"


@pytest.fixture
def accounts() -> dict[str, Any]:
    """The settings' section."""
    return {"registration": "open"}


@pytest.fixture
async def world(tmp_path: Path, database_template: Path, accounts: dict[str, Any]) -> AsyncIterator[World]:
    """A service with accounts, open to strangers."""
    settings = world_settings(accounts={"enabled": True, **accounts})
    async with open_world(tmp_path, database_template, settings) as opened:
        yield opened


async def register(client: httpx.AsyncClient, name: str = "mallory", **more: Any) -> httpx.Response:
    return await client.post("/accounts", json={"name": name, "password": PASSWORD, **more})


async def log_in(client: httpx.AsyncClient, name: str = "mallory", password: str = PASSWORD) -> httpx.Response:
    return await client.post("/accounts/sessions", json={"name": name, "password": password})


async def logged_in(application: FastAPI, anonymous: httpx.AsyncClient, name: str = "mallory") -> httpx.AsyncClient:
    answer = await log_in(anonymous, name)
    assert answer.status_code == 201, answer.text
    return with_token(application, answer.json()["token"])


async def everything_stored(world: World) -> str:
    async with world.engine.connect() as connection:
        tables = ("accounts", "sessions", "personal_tokens", "log_in_tries")
        return str([[tuple(row) for row in await connection.execute(text(f"SELECT * FROM {name}"))] for name in tables])


async def test_a_stranger_who_registers_is_nobody_until_an_administrator_says_who(
    application: FastAPI, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    made = await register(anonymous, "alice")
    assert made.status_code == 201
    assert made.json()["user"] is None
    async with await logged_in(application, anonymous, "alice") as stranger:
        me = (await stranger.get("/accounts/me")).json()
        assert (me["user"], me["account"], me["isAdmin"]) == (None, "alice", False)
        for method, path in (
            ("GET", "/transfers"),
            ("GET", "/filesystem/alps/ops/ls?path=/home/alice"),
            ("GET", "/tokens"),
            ("GET", "/accounts"),
            ("PUT", "/accounts/alice"),
        ):
            change = {"user": "alice", "disabled": False} if method == "PUT" else None
            problem(await stranger.request(method, path, json=change), 403, "permission_denied")
        token = {"name": "x", "scopes": ["transfers:read"], "expiresInDays": 1}
        problem(await stranger.post("/tokens", json=token), 403)
        mapped = await admin.put("/accounts/alice", json={"user": "bob", "disabled": False})
        assert mapped.json()["user"] == "bob"
        assert (await stranger.get("/accounts/me")).json()["user"] == "bob"
        assert (await stranger.get("/transfers")).status_code == 200


@pytest.mark.parametrize("user", ["alice", "mallory", "root"])
async def test_nobody_but_an_administrator_names_a_user_on_the_clusters(
    anonymous: httpx.AsyncClient, alice: httpx.AsyncClient, admin: httpx.AsyncClient, user: str
) -> None:
    for client in (anonymous, alice):
        problem(await register(client, user=user), 403, "permission_denied")
    assert (await register(admin, user=user)).json()["user"] == user


@pytest.mark.parametrize("accounts", [{"registration": "closed"}])
async def test_closed_registration_is_for_administrators(
    anonymous: httpx.AsyncClient, alice: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    for client in (anonymous, alice):
        problem(await register(client), 403, "permission_denied")
    assert (await register(admin, user="mallory")).status_code == 201


@pytest.mark.parametrize("accounts", [{"name_is_user": True}])
async def test_on_a_machine_of_ones_own_only_the_user_gives_himself_an_account(
    application: FastAPI, anonymous: httpx.AsyncClient, alice: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    for client in (anonymous, bob):
        problem(await register(client, "alice"), 403)
    token = (await alice.post("/tokens", json={"name": "x", "scopes": ["tokens:manage"], "expiresInDays": 1})).json()["token"]
    async with with_token(application, token) as program:
        problem(await register(program, "alice"), 403)
    assert (await register(alice, "alice")).json()["user"] == "alice"
    async with await logged_in(application, anonymous, "alice") as session:
        assert (await session.get("/accounts/me")).json()["user"] == "alice"


@pytest.mark.parametrize("accounts", [{"enabled": False}])
async def test_without_accounts_nobody_makes_one_or_logs_in(anonymous: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    for answer in (await register(anonymous), await register(admin), await log_in(anonymous)):
        problem(answer, 403, "permission_denied")


async def test_sessions_fall_with_the_setting(application: FastAPI, anonymous: httpx.AsyncClient, world: World) -> None:
    await register(anonymous)
    async with await logged_in(application, anonymous) as session:
        assert (await session.get("/accounts/me")).status_code == 200
        off = world.settings.accounts.model_copy(update={"enabled": False})
        tools = world.toolbox()
        tools.settings_in_force.now = world.settings.model_copy(update={"accounts": off})
        application.state.tools = tools
        problem(await session.get("/accounts/me"), 401)


NO_NAMES = ["", "Alice", "1st", "a" * 33, "a b", "a/b", "../x", "a\n", "älice", "me", "password", "sessions"]


@pytest.mark.parametrize("name", NO_NAMES)
async def test_names_that_look_like_others_are_none(anonymous: httpx.AsyncClient, name: str) -> None:
    problem(await register(anonymous, name), 400)


@pytest.mark.parametrize(
    "password", ["", "short", "x" * 11, "x" * 257, "aaaaaaaaaaaaaaaa", "malloryx1234", "seven \ud800 llamas read"]
)
async def test_a_weak_password_is_refused_and_not_repeated(anonymous: httpx.AsyncClient, password: str) -> None:
    body = json.dumps({"name": "mallory", "password": password})
    answer = await anonymous.post("/accounts", content=body, headers={"Content-Type": "application/json"})
    problem(answer, 400)
    assert len(password) < 6 or password.encode("utf-8", "replace").decode() not in answer.text


async def test_two_accounts_never_have_one_name(anonymous: httpx.AsyncClient) -> None:
    assert (await register(anonymous)).status_code == 201
    problem(await register(anonymous), 409, "name_taken")


async def test_nothing_that_is_stored_lets_its_reader_in(
    application: FastAPI, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient, world: World
) -> None:
    await register(admin, user="alice")
    secret = (await log_in(anonymous)).json()["token"]
    assert secret.startswith("scs_")
    async with with_token(application, secret) as session:
        body = {"name": "x", "scopes": ["transfers:read"], "expiresInDays": 1}
        token = (await session.post("/tokens", json=body)).json()["token"]
    await log_in(anonymous, PASSWORD, "typed into the wrong field")
    stored = await everything_stored(world)
    assert "$argon2id$" in stored
    for hidden in (secret, secret[4:], token, token[4:], PASSWORD):
        assert hidden not in stored


async def test_an_unknown_name_and_a_wrong_password_are_told_the_same(anonymous: httpx.AsyncClient, world: World) -> None:
    await register(anonymous)
    verified = []
    matches = world.passwords._matches

    def counted(password: str, password_hash: str) -> bool:
        verified.append(password_hash)
        return matches(password, password_hash)

    world.passwords._matches = counted  # type: ignore[method-assign]
    wrong = problem(await log_in(anonymous, "mallory", OTHER), 401, "not_authenticated")
    unknown = problem(await log_in(anonymous, "nobody", OTHER), 401, "not_authenticated")
    assert wrong == unknown
    # One hash of the same cost was computed for each: time tells nothing either.
    assert len(verified) == 2
    assert len({one.rsplit("$", 2)[0] for one in verified}) == 1


async def test_the_password_of_nobody_lets_nobody_in(anonymous: httpx.AsyncClient) -> None:
    problem(await log_in(anonymous, "nobody", "nobody's password"), 401)


async def test_the_same_password_from_another_keyboard_is_the_same(anonymous: httpx.AsyncClient) -> None:
    composed, decomposed = "se\u0301 quatre chevaux", "s\u00e9 quatre chevaux"
    assert (await anonymous.post("/accounts", json={"name": "eve", "password": composed})).status_code == 201
    assert (await log_in(anonymous, "eve", decomposed)).status_code == 201


async def test_a_log_out_ends_the_session_at_once(application: FastAPI, anonymous: httpx.AsyncClient) -> None:
    await register(anonymous)
    first, second = await logged_in(application, anonymous), await logged_in(application, anonymous)
    async with first, second:
        assert (await first.delete("/accounts/sessions/current")).status_code == 204
        problem(await first.get("/accounts/me"), 401)
        assert (await second.get("/accounts/me")).status_code == 200
        third = await logged_in(application, anonymous)
        async with third:
            assert (await second.delete("/accounts/sessions")).status_code == 204
            problem(await third.get("/accounts/me"), 401)


async def test_who_came_otherwise_has_no_session_to_end(alice: httpx.AsyncClient) -> None:
    problem(await alice.delete("/accounts/sessions/current"), 409)
    change = {"currentPassword": PASSWORD, "newPassword": OTHER}
    problem(await alice.put("/accounts/password", json=change), 403)


@pytest.mark.parametrize("accounts", [{"registration": "open", "session_idle_seconds": 600, "session_seconds": 3600}])
async def test_a_session_ends_when_unused_and_in_any_case(
    application: FastAPI, anonymous: httpx.AsyncClient, world: World
) -> None:
    await register(anonymous)
    async with await logged_in(application, anonymous) as idle:
        world.clock.advance(601)
        problem(await idle.get("/accounts/me"), 401)
    async with await logged_in(application, anonymous) as used:
        for _ in range(6):
            world.clock.advance(590)
            assert (await used.get("/accounts/me")).status_code == 200
        world.clock.advance(60)
        problem(await used.get("/accounts/me"), 401)


async def test_a_new_password_ends_the_other_sessions_and_revokes_tokens(
    application: FastAPI, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    await register(admin, user="alice")
    mine, thiefs = await logged_in(application, anonymous), await logged_in(application, anonymous)
    async with mine, thiefs:
        body = {"name": "x", "scopes": ["transfers:read"], "expiresInDays": 90}
        planted = (await thiefs.post("/tokens", json=body)).json()["token"]
        wrong = {"currentPassword": OTHER, "newPassword": OTHER}
        problem(await mine.put("/accounts/password", json=wrong), 403)
        right = {"currentPassword": PASSWORD, "newPassword": OTHER}
        assert (await mine.put("/accounts/password", json=right)).status_code == 204
        assert (await mine.get("/accounts/me")).status_code == 200
        problem(await thiefs.get("/accounts/me"), 401)
    async with with_token(application, planted) as program:
        problem(await program.get("/transfers"), 401)
    problem(await log_in(anonymous), 401)
    assert (await log_in(anonymous, password=OTHER)).status_code == 201


async def test_a_disabled_account_is_out_at_once(
    application: FastAPI, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    await register(admin, user="alice")
    async with await logged_in(application, anonymous) as session:
        body = {"name": "x", "scopes": ["transfers:read"], "expiresInDays": 1}
        token = (await session.post("/tokens", json=body)).json()["token"]
        await admin.put("/accounts/mallory", json={"user": "alice", "disabled": True})
        problem(await session.get("/accounts/me"), 401)
    async with with_token(application, token) as program:
        problem(await program.get("/transfers"), 401)
    problem(await log_in(anonymous), 401)
    problem(await admin.put("/accounts/nobody", json={"user": None, "disabled": True}), 404, "account_not_found")
    for no_truth in (0, "false", None):
        problem(await admin.put("/accounts/mallory", json={"user": "alice", "disabled": no_truth}), 400)


async def test_tries_at_one_account_are_bounded_from_everywhere(
    application: FastAPI, anonymous: httpx.AsyncClient, world: World
) -> None:
    await register(anonymous)
    for number in range(10):
        place = httpx.ASGITransport(application, raise_app_exceptions=False, client=(f"192.0.2.{number}", 1))
        async with httpx.AsyncClient(transport=place, base_url="http://stagecoach") as client:
            problem(await log_in(client, password=OTHER), 401)
    refused = await log_in(anonymous)
    problem(refused, 429, "too_many_requests")
    assert 0 < int(refused.headers["retry-after"]) <= 901
    world.clock.advance(int(refused.headers["retry-after"]))
    assert (await log_in(anonymous)).status_code == 201


async def test_tries_from_one_address_are_bounded_for_all_accounts(
    application: FastAPI, anonymous: httpx.AsyncClient, world: World
) -> None:
    for number in range(60):
        problem(await log_in(anonymous, f"user-{number}"), 401)
    problem(await log_in(anonymous, "one-more"), 429)
    problem(await register(anonymous), 429)
    elsewhere = httpx.ASGITransport(application, raise_app_exceptions=False, client=("192.0.2.1", 1))
    async with httpx.AsyncClient(transport=elsewhere, base_url="http://stagecoach") as client:
        problem(await log_in(client, "one-more"), 401)


async def test_many_tries_at_once_are_as_many_as_one_after_the_other(anonymous: httpx.AsyncClient) -> None:
    await register(anonymous)
    answers = await asyncio.gather(*(log_in(anonymous, password=OTHER) for _ in range(15)))
    assert sorted(answer.status_code for answer in answers) == [401] * 10 + [429] * 5


async def test_a_password_that_was_right_gives_the_address_its_tries_back(anonymous: httpx.AsyncClient) -> None:
    await register(anonymous)
    for _ in range(4):
        for _ in range(9):
            problem(await log_in(anonymous, password=OTHER), 401)
        assert (await log_in(anonymous)).status_code == 201


async def test_how_to_log_in_is_told_to_strangers(anonymous: httpx.AsyncClient) -> None:
    answer = await anonymous.get("/auth/methods")
    assert answer.json() == {"issuers": [], "accounts": True, "registration": "open"}


async def test_administrators_list_accounts_by_name(admin: httpx.AsyncClient, alice: httpx.AsyncClient) -> None:
    for name in ("carl", "anna", "bert"):
        await register(admin, name)
    page = (await admin.get("/accounts", params={"limit": 2})).json()
    assert [one["name"] for one in page["accounts"]] == ["anna", "bert"]
    rest = (await admin.get("/accounts", params={"after": page["next"]})).json()
    assert [one["name"] for one in rest["accounts"]] == ["carl"]
    assert rest["next"] is None
    problem(await alice.get("/accounts"), 403)


async def test_an_issuers_token_with_every_claim_stays_apart_from_accounts(
    application: FastAPI, anonymous: httpx.AsyncClient, issuer: Issuer
) -> None:
    await register(anonymous, "mallory")
    async with with_token(application, issuer.token(preferred_username="mallory")) as other:
        me = (await other.get("/accounts/me")).json()
        assert (me["user"], me["account"], me["signedInBy"]) == ("mallory", None, "issued")
        problem(await other.delete("/accounts/sessions"), 409)


async def test_an_administrators_personal_token_gives_nobody_a_user(
    application: FastAPI, admin: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    body = {"name": "x", "scopes": ["admin", "tokens:manage"], "expiresInDays": 1}
    token = (await admin.post("/tokens", json=body)).json()["token"]
    await register(anonymous)
    async with with_token(application, token) as program:
        assert (await program.get("/accounts")).status_code == 200
        problem(await program.put("/accounts/mallory", json={"user": "alice", "disabled": False}), 403)
        problem(await register(program, "other", user="alice"), 403)


@pytest.mark.parametrize("name", ["\0", "a\0b", "' OR 1=1 --", "Mallory", "mallory ", "x" * 64, "用户"])
async def test_a_name_that_is_none_is_told_as_any_other(anonymous: httpx.AsyncClient, name: str) -> None:
    await register(anonymous)
    problem(await log_in(anonymous, name), 401, "not_authenticated")


async def test_a_mapping_that_changes_takes_the_accounts_tokens_with_it(
    application: FastAPI, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    await register(admin, user="alice")
    async with await logged_in(application, anonymous) as session:
        body = {"name": "x", "scopes": ["transfers:read"], "expiresInDays": 1}
        token = (await session.post("/tokens", json=body)).json()["token"]
        async with with_token(application, token) as program:
            assert (await program.get("/transfers")).status_code == 200
            await admin.put("/accounts/mallory", json={"user": "bob", "disabled": False})
            problem(await program.get("/transfers"), 401)
        assert (await session.get("/accounts/me")).json()["user"] == "bob"
        assert (await session.get("/tokens")).json() == {"tokens": []}


async def test_what_may_be_revoked_is_looked_at_again_every_five_minutes(
    anonymous: httpx.AsyncClient, alice: httpx.AsyncClient, world: World
) -> None:
    await register(anonymous)
    session = (await log_in(anonymous)).json()["token"]
    body = {"name": "x", "scopes": ["transfers:read"], "expiresInDays": 1}
    personal = (await alice.post("/tokens", json=body)).json()["token"]
    for secret in (session, personal):
        credential = await believe_secret(world.tools, secret)
        assert credential.believed_until - world.clock.now().timestamp() == 300
        assert secret not in repr(credential)


async def test_a_token_that_nobody_looks_at_is_no_way_around_being_counted(
    application: FastAPI, anonymous: httpx.AsyncClient
) -> None:
    counted: list[str | None] = []
    application.state.rate.count_stranger = counted.append
    for path in ("/auth/methods", "/healthz"):
        assert (await anonymous.get(path, headers={"Authorization": "Bearer x"})).status_code == 200
    assert len(counted) == 1


async def test_what_happens_to_accounts_and_tokens_is_written_down_without_a_password(
    application: FastAPI, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient, world: World
) -> None:
    await register(anonymous)
    await log_in(anonymous, password=OTHER)
    await log_in(anonymous, PASSWORD.replace(" ", "-"))
    await admin.put("/accounts/mallory", json={"user": "bob", "disabled": False})
    async with await logged_in(application, anonymous) as session:
        token = await session.post("/tokens", json={"name": "nightly", "scopes": ["transfers:read"], "expiresInDays": 9})
        token_id = token.json()["id"]
        await session.post("/tokens", json={"name": "more", "scopes": ["admin"], "expiresInDays": 9})
        await session.delete(f"/tokens/{token_id}")
        await session.put("/accounts/password", json={"currentPassword": OTHER, "newPassword": OTHER})
        await session.put("/accounts/password", json={"currentPassword": PASSWORD, "newPassword": OTHER})
        await session.put("/accounts/mallory", json={"user": "root", "disabled": False})
        await session.delete("/accounts/sessions/current")
    await admin.put("/accounts/nobody", json={"user": None, "disabled": True})
    lines = [line async for line in audit_lines(world.tools, AuditFilter())]
    assert [(line.who, line.what, line.target, line.result) for line in lines] == [
        (None, "account.make", "mallory", "done"),
        (None, "authentication.refused", "/accounts/sessions", "not_authenticated"),
        (None, "authentication.refused", "/accounts/sessions", "not_authenticated"),
        ("carol", "account.change", "mallory", "done"),
        ("bob", "session.begin", "mallory", "done"),
        ("bob", "token.make", token_id, "done"),
        ("bob", "token.make", None, "permission_denied"),
        ("bob", "token.revoke", token_id, "done"),
        ("bob", "account.password", "mallory", "permission_denied"),
        ("bob", "account.password", "mallory", "done"),
        ("bob", "session.end", "mallory", "done"),
        ("carol", "account.change", "nobody", "account_not_found"),
    ]
    assert dict(lines[3].detail) == {"user": "bob", "disabled": False}
    assert dict(lines[5].detail) == {"name": "nightly", "scopes": ["transfers:read"], "days": 9}
    written = "".join(as_json(line) for line in lines)
    for secret in (PASSWORD, PASSWORD.replace(" ", "-"), OTHER, token.json()["token"]):
        assert secret not in written


async def test_what_fell_with_a_disabled_account_does_not_rise_again_with_it(
    application: FastAPI, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    await register(anonymous)
    await admin.put("/accounts/mallory", json={"user": "bob", "disabled": False})
    async with await logged_in(application, anonymous) as session:
        token = await session.post("/tokens", json={"name": "leaked", "scopes": ["transfers:read"], "expiresInDays": 9})
        async with with_token(application, token.json()["token"]) as program:
            assert (await program.get("/transfers")).status_code == 200
            for disabled in (True, False):
                await admin.put("/accounts/mallory", json={"user": "bob", "disabled": disabled})
                for client in (session, program):
                    problem(await client.get("/transfers"), 401)
