"""Tokens of real providers over HTTP: found by their metadata, told apart, rotated; every wrong one is a 401 that repeats
nothing of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from joserfc.jwk import RSAKey
from tests.fakes.provider import AUDIENCE, CLIENT_ID, ENDPOINTS, SERVICE_ID, SERVICE_SECRET, Provider, new_key
from tests.fakes.world import World, migrated_database, open_world, world_settings

from stagecoach.api.app import create_app
from stagecoach.api.issuer_keys import IssuerKeys
from stagecoach.api.tokens import TokenChecker
from stagecoach.core.errors import SettingsError, Unavailable
from stagecoach.flows.toolbox import Toolbox
from stagecoach.settings import AuthSettings, IssuerSettings


@pytest.fixture
def now() -> dict[str, float]:
    """The providers' clock."""
    return {"time": 1_900_000_000.0}


@pytest.fixture
def ours(now: dict[str, float]) -> Iterator[Provider]:
    """The site's own provider."""
    with Provider("hpc", lambda: now["time"]).serving() as provider:
        yield provider


@pytest.fixture
def theirs(now: dict[str, float]) -> Iterator[Provider]:
    """A partner's, whose alice is somebody else."""
    with Provider("partner", lambda: now["time"]).serving() as provider:
        yield provider


@pytest.fixture
def auth(ours: Provider, theirs: Provider) -> AuthSettings:
    site = IssuerSettings(issuer=ours.issuer, audience=AUDIENCE, user_names="site", client_id=CLIENT_ID)
    partner = IssuerSettings(
        issuer=theirs.issuer, audience=AUDIENCE, user_names="mapped", user_map={"carol@partner": "carol"}, admin_role="nobody"
    )
    return AuthSettings(issuers=(site, partner))


@pytest.fixture
async def world(tmp_path: Path, auth: AuthSettings) -> AsyncIterator[World]:
    await migrated_database(tmp_path / "template.db")
    settings = world_settings(auth=auth.model_dump())
    async with open_world(tmp_path, tmp_path / "template.db", settings) as opened:
        yield opened


@pytest.fixture
def application(world: World, auth: AuthSettings, now: dict[str, float]) -> FastAPI:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Toolbox]:
        yield world.tools

    made = create_app(opened, auth)
    made.state.tokens = TokenChecker(auth, lambda: now["time"])
    return made


@pytest.fixture
async def service(application: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The real application behind a real socket."""
    server = uvicorn.Server(uvicorn.Config(application, host="127.0.0.1", port=0, log_config=None))
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done()
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client
    server.should_exit = True
    await task


async def who(service: httpx.AsyncClient, token: str) -> httpx.Response:
    return await service.get("/accounts/me", headers={"Authorization": f"Bearer {token}"})


def require_refused(answer: httpx.Response, token: str) -> None:
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"] == "Bearer"
    body = answer.json()
    assert (body["code"], body["user"], body["data"]) == ("not_authenticated", None, None)
    everything = answer.text + str(answer.headers)
    for piece in token.split("."):
        assert len(piece) < 8 or piece not in everything


def encoded(document: Any) -> str:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


async def test_a_token_of_each_provider_is_believed_by_its_own_keys(
    service: httpx.AsyncClient, ours: Provider, theirs: Provider
) -> None:
    assert (await who(service, ours.token("alice"))).json()["user"] == "alice"
    assert (await who(service, theirs.token("carol@partner"))).json()["user"] == "carol"


async def test_a_partners_alice_is_never_the_sites(service: httpx.AsyncClient, ours: Provider, theirs: Provider) -> None:
    for name in ("alice", "carol", "root"):
        token = theirs.token(name)
        require_refused(await who(service, token), token)


async def test_one_provider_cannot_speak_for_another(service: httpx.AsyncClient, ours: Provider, theirs: Provider) -> None:
    assert (await who(service, ours.token("alice"))).status_code == 200
    for token in (
        theirs.token("alice", iss=ours.issuer),
        ours.token("carol@partner", iss=theirs.issuer),
        theirs.token("alice", iss=ours.issuer, key=theirs.keys[0], header={"kid": ours.keys[0].kid}),
        theirs.token("alice", iss=[ours.issuer, theirs.issuer]),
        theirs.token("alice", iss=ours.issuer + "/"),
    ):
        require_refused(await who(service, token), token)


async def test_a_role_counts_only_where_its_provider_gives_it(
    service: httpx.AsyncClient, ours: Provider, theirs: Provider
) -> None:
    assert (await who(service, ours.token("alice", roles=["stagecoach-admin"]))).json()["isAdmin"] is True
    assert (await who(service, theirs.token("carol@partner", roles=["stagecoach-admin"]))).json()["isAdmin"] is False


def wrong_tokens(ours: Provider, now: float) -> dict[str, str]:
    """Those that the service must refuse, each for one reason."""
    key = ours.keys[0]
    good = ours.token("alice")
    header, body, signature = good.split(".")
    hs256 = encoded({"alg": "HS256", "kid": key.kid, "typ": "JWT"})
    forged = {}
    public_jwk = json.dumps(key.as_dict(private=False)).encode()
    for name, secret in (("PEM", key.as_pem(private=False)), ("JWK", public_jwk)):
        mac = hmac.new(secret, f"{hs256}.{body}".encode(), hashlib.sha256).digest()
        forged[f"HS256 signed with the public key ({name})"] = f"{hs256}.{body}.{encoded(mac)}"
    rsa = RSAKey.generate_key(2048, private=True)
    rsa.ensure_kid()
    return {
        "expired": ours.token("alice", exp=int(now) - 31),
        "not yet valid": ours.token("alice", nbf=int(now) + 31),
        "wrong issuer": ours.token("alice", iss="https://evil.example.org/realms/hpc"),
        "no issuer": ours.token("alice", iss=None),
        "wrong audience": ours.token("alice", aud="another-service"),
        "no audience": ours.token("alice", aud=None),
        "algorithm none": f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{body}.",
        "algorithm none, with a signature": f"{encoded({'alg': 'none', 'kid': key.kid})}.{body}.{signature}",
        **forged,
        "unknown kid": ours.token("alice", key=new_key()),
        "unknown RSA key": ours.token("alice", key=rsa),
        "another key under our kid": ours.token("alice", key=new_key(), header={"kid": key.kid}),
        "truncated signature": good[:-10],
        "truncated payload": f"{header}.{body[:-10]}.{signature}",
        "truncated to the header": header,
        "without its signature": f"{header}.{body}",
        "body of another": f"{header}.{ours.token('root').split('.')[1]}.{signature}",
        "no expiry": ours.token("alice", exp=None),
    }


async def test_every_wrong_token_is_refused_and_not_repeated(
    service: httpx.AsyncClient, ours: Provider, now: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert (await who(service, ours.token("alice"))).status_code == 200
    for name, token in wrong_tokens(ours, now["time"]).items():
        answer = await who(service, token)
        assert answer.status_code == 401, (name, answer.text)
        require_refused(answer, token)
        for piece in token.split("."):
            assert len(piece) < 8 or piece not in caplog.text, name


async def test_a_rotated_key_is_picked_up_and_a_withdrawn_one_falls(
    service: httpx.AsyncClient, ours: Provider, now: dict[str, float]
) -> None:
    before = ours.token("alice", exp=int(now["time"]) + 9000)
    assert (await who(service, before)).status_code == 200
    ours.rotate()
    now["time"] += 31
    assert (await who(service, ours.token("alice"))).status_code == 200
    assert (await who(service, before)).status_code == 200
    ours.rotate(keep_old=False)
    now["time"] += 31
    assert (await who(service, ours.token("alice"))).status_code == 200
    require_refused(await who(service, before), before)


async def test_a_withdrawn_key_falls_within_the_hour_though_nobody_comes_with_the_new_one(
    service: httpx.AsyncClient, ours: Provider, now: dict[str, float]
) -> None:
    before = ours.token("alice", exp=int(now["time"]) + 9000)
    assert (await who(service, before)).status_code == 200
    ours.rotate(keep_old=False)
    now["time"] += 3601
    require_refused(await who(service, before), before)


async def test_a_provider_that_is_down_does_not_hold_up_those_whose_keys_are_known(
    service: httpx.AsyncClient, ours: Provider, theirs: Provider, now: dict[str, float]
) -> None:
    assert (await who(service, ours.token("alice"))).status_code == 200
    theirs.is_down = ours.is_down = True
    assert (await who(service, theirs.token("carol@partner"))).status_code == 503
    now["time"] += 7200
    assert (await who(service, ours.token("alice"))).status_code == 200


async def test_a_stream_of_forged_tokens_is_not_a_stream_of_readings(service: httpx.AsyncClient, ours: Provider) -> None:
    for _ in range(30):
        token = ours.token("alice", key=new_key())
        require_refused(await who(service, token), token)
    assert ours.requests.count("GET certs") == 1
    assert ours.requests.count("GET openid-configuration") == 1


async def test_a_program_comes_with_client_credentials(service: httpx.AsyncClient, ours: Provider) -> None:
    form = {"grant_type": "client_credentials", "client_id": SERVICE_ID, "client_secret": SERVICE_SECRET}
    async with httpx.AsyncClient() as program:
        answer = (await program.post(f"{ours.issuer}{ENDPOINTS}/token", data=form)).json()
    assert "refresh_token" not in answer
    assert (await who(service, answer["access_token"])).json()["user"] == f"service-account-{SERVICE_ID}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"issuer": "https://evil.example.org"}, "is not that of"),
        ({"jwks_uri": None}, "names no https"),
        ({"jwks_uri": "http://keys.example.org/certs"}, "names no https"),
        ({"jwks_uri": "file:///etc/passwd"}, "names no https"),
        ({"jwks_uri": 5}, "names no https"),
    ],
)
async def test_metadata_that_cannot_be_trusted_is_not(ours: Provider, changes: dict[str, Any], said: str) -> None:
    ours.metadata_changes = changes
    with pytest.raises(SettingsError, match=said):
        await IssuerKeys(IssuerSettings(issuer=ours.issuer, audience=AUDIENCE), lambda: 0.0).read()


async def test_a_provider_without_an_answer_is_named_to_the_operator(ours: Provider) -> None:
    ours.is_down = True
    with pytest.raises(Unavailable, match=r"auth\.issuers\.issuer"):
        await IssuerKeys(IssuerSettings(issuer=ours.issuer, audience=AUDIENCE), lambda: 0.0).read()


async def test_how_to_log_in_names_the_providers_with_a_client(service: httpx.AsyncClient, ours: Provider) -> None:
    methods = (await service.get("/auth/methods")).json()
    assert methods["issuers"] == [{"issuer": ours.issuer, "clientId": CLIENT_ID, "scopes": "openid"}]
