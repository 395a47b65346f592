"""The application on a world of fakes, an issuer of tokens, and callers with good ones."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey
from tests.fakes.world import World

from stagecoach.api.app import create_app
from stagecoach.api.tokens import TokenChecker
from stagecoach.flows.toolbox import Toolbox
from stagecoach.settings import AuthSettings, IssuerSettings

ISSUER, AUDIENCE = "https://sso.example.org", "stagecoach"
NOW = 1_900_000_000


def encoded(document: Any) -> str:
    """Base64url of JSON, as in a token."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


@dataclass
class Issuer:
    """Signs tokens; its public keys lie in ``jwks_file``."""

    jwks_file: Path
    key: ECKey | RSAKey
    time: float = NOW

    def publish(self, *keys: ECKey | RSAKey) -> None:
        """The key set holds the public halves of ``keys``."""
        public = [{**key.as_dict(private=False), "use": "sig"} for key in keys]
        self.jwks_file.write_text(json.dumps({"keys": public}))

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Those of a good token of alice's, changed; None leaves a claim out."""
        claims: dict[str, Any] = {"preferred_username": "alice", "iss": ISSUER, "aud": AUDIENCE, "exp": int(self.time) + 300}
        return {name: value for name, value in {**claims, **changes}.items() if value is not None}

    def token(self, header: dict[str, Any] | None = None, key: ECKey | RSAKey | None = None, **changes: Any) -> str:
        """Signed."""
        key = key or self.key
        algorithm = "ES256" if isinstance(key, ECKey) else "RS256"
        return self.signed({"alg": algorithm, "kid": key.kid, **(header or {})}, json.dumps(self.claims(**changes)), key)

    def signed(self, header: dict[str, Any], payload: str, key: ECKey | RSAKey) -> str:
        """Any payload under a signature that holds."""
        return jws.serialize_compact(header, payload.encode(), key)


def new_key() -> ECKey:
    """A key pair with an id."""
    key = ECKey.generate_key("P-256", private=True)
    key.ensure_kid()
    return key


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    """With one key, published."""
    made = Issuer(tmp_path / "jwks.json", new_key())
    made.publish(made.key)
    return made


@pytest.fixture
def application(world: World, issuer: Issuer) -> FastAPI:
    """On the world; tokens are checked against the issuer's clock."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Toolbox]:
        yield world.tools

    auth = AuthSettings(issuers=(IssuerSettings(jwks=str(issuer.jwks_file), issuer=ISSUER, audience=AUDIENCE),))
    made = create_app(opened, auth)
    made.state.tools = world.tools
    made.state.tokens = TokenChecker(auth, lambda: issuer.time)
    return made


@pytest.fixture
async def anonymous(application: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Without a token."""
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://stagecoach") as client:
        yield client


def with_token(application: FastAPI, token: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://stagecoach", headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
async def alice(application: FastAPI, issuer: Issuer) -> AsyncIterator[httpx.AsyncClient]:
    """Calls as alice."""
    async with with_token(application, issuer.token()) as client:
        yield client


@pytest.fixture
async def bob(application: FastAPI, issuer: Issuer) -> AsyncIterator[httpx.AsyncClient]:
    """Calls as bob."""
    async with with_token(application, issuer.token(preferred_username="bob")) as client:
        yield client


@pytest.fixture
async def admin(application: FastAPI, issuer: Issuer) -> AsyncIterator[httpx.AsyncClient]:
    """Calls as an administrator."""
    token = issuer.token(preferred_username="carol", roles=["x", "stagecoach-admin"])
    async with with_token(application, token) as client:
        yield client
