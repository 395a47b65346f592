"""Logging in with an identity provider: the code grant with PKCE, and tokens that are renewed while a page is open."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.world import World
from tests.unit.api.conftest import AUDIENCE, ISSUER, Issuer
from tests.unit.portal.conftest import URL, Browser, Maker, browser_on

from stagecoach.portal.sessions import MAX_CHUNKS
from stagecoach.settings import AuthSettings, IssuerSettings

CLIENT, SECRET = "stagecoach-portal", "client-secret"


@dataclass
class CodeProvider:
    """Metadata, codes that are good once and only with their verifier, and refresh tokens that are good once."""

    issuer: Issuer
    challenges: dict[str, str] = field(default_factory=dict)
    refresh_tokens: set[str] = field(default_factory=set)
    grants: list[dict[str, str]] = field(default_factory=list)
    metadata_changes: dict[str, Any] = field(default_factory=dict)
    is_down: bool = False
    requests: int = 0
    padding: str = ""

    def agree(self, url: str) -> dict[str, str]:
        """What a person's yes sends to the callback."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert asked["code_challenge_method"] == "S256"
        assert asked["client_id"] == CLIENT
        assert asked["redirect_uri"] == f"{URL}/portal/sign-in/callback"
        self.challenges["the-code"] = asked["code_challenge"]
        return {"code": "the-code", "state": asked["state"], "iss": ISSUER}

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if self.is_down:
            return httpx.Response(503)
        if request.url.path.endswith("/openid-configuration"):
            metadata = {"issuer": ISSUER, "authorization_endpoint": f"{ISSUER}/auth", "token_endpoint": f"{ISSUER}/token"}
            return httpx.Response(200, json={**metadata, "revocation_endpoint": f"{ISSUER}/revoke", **self.metadata_changes})
        form = dict(parse_qsl(request.content.decode()))
        assert (form.pop("client_id"), form.pop("client_secret")) == (CLIENT, SECRET)
        if request.url.path == "/revoke":
            self.refresh_tokens.discard(form["token"])
            return httpx.Response(200)
        self.grants.append(form)
        if form["grant_type"] == "authorization_code":
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            is_good = self.challenges.pop(form["code"], None) == challenge
        else:
            is_good = form["refresh_token"] in self.refresh_tokens
            self.refresh_tokens.discard(form["refresh_token"])
        if not is_good:
            return httpx.Response(400, json={"error": "invalid_grant"})
        fresh = f"refresh-{len(self.grants)}{self.padding}"
        self.refresh_tokens.add(fresh)
        return httpx.Response(200, json={"access_token": self.issuer.token(), "refresh_token": fresh, "expires_in": 300})


@pytest.fixture
def provider(issuer: Issuer) -> CodeProvider:
    return CodeProvider(issuer)


@pytest.fixture
def application(make_application: Maker, issuer: Issuer, provider: CodeProvider) -> FastAPI:
    """With one provider to log in with."""
    settings = IssuerSettings(
        issuer=ISSUER,
        jwks=str(issuer.jwks_file),
        audience=AUDIENCE,
        portal_client_id=CLIENT,
        portal_client_secret=SECRET,
        label_for_people="Example University",
    )
    transport = httpx.MockTransport(provider.answer)
    return make_application(auth=AuthSettings(issuers=(settings,)), url=URL, provider_transport=transport)


@pytest.fixture
async def browser(application: FastAPI) -> AsyncIterator[Browser]:
    made = browser_on(application)
    yield made
    await made.client.aclose()


async def begin(browser: Browser, then: str = "/portal/account") -> str:
    await browser.open(f"/portal/sign-in?next={then}")
    assert "Sign in with Example University" in browser.text
    answer = await browser.client.get("/portal/sign-in/provider", params={"issuer": ISSUER, "next": then}, follow_redirects=False)
    assert answer.status_code == 303
    cookie = next(line for line in answer.headers.get_list("set-cookie") if line.startswith("stagecoach-sign-in="))
    assert {"HttpOnly", "SameSite=Lax"} <= set(cookie.split("; "))
    return str(answer.headers["location"])


async def log_in(browser: Browser, provider: CodeProvider) -> None:
    query = provider.agree(await begin(browser))
    answer = await browser.client.get("/portal/sign-in/callback", params=query, headers={"Sec-Fetch-Site": "cross-site"})
    # A page, not a redirect: a strict cookie would not come with what another site has set going.
    assert answer.status_code == 200
    assert 'content="0;url=/portal/account"' in answer.text
    await browser.open("/portal/account")
    assert browser.page.url.path == "/portal/account"


async def test_one_logs_in_and_out(browser: Browser, provider: CodeProvider) -> None:
    await log_in(browser, provider)
    assert "alice" in browser.text
    assert provider.refresh_tokens
    await browser.send("/portal/sign-out")
    assert not provider.refresh_tokens


async def test_a_token_that_ends_soon_is_renewed_once_for_a_whole_page(
    browser: Browser, provider: CodeProvider, world: World, issuer: Issuer
) -> None:
    await log_in(browser, provider)
    old = dict(browser.client.cookies)
    world.clock.advance(280)
    issuer.time += 280
    await browser.open("/portal/transfers")
    assert browser.page.url.path == "/portal/transfers"
    assert [grant["grant_type"] for grant in provider.grants] == ["authorization_code", "refresh_token"]
    # What was asked at the same time comes with the old cookie, whose refresh token the provider takes no more.
    browser.client.cookies.clear()
    browser.client.cookies.update(old)
    assert (await browser.client.get("/portal/api/transfers")).status_code == 200
    assert len(provider.grants) == 2


async def test_who_is_logged_out_at_the_provider_is_logged_out_here(
    browser: Browser, provider: CodeProvider, world: World, issuer: Issuer
) -> None:
    await log_in(browser, provider)
    provider.refresh_tokens.clear()
    world.clock.advance(400)
    issuer.time += 400
    await browser.open("/portal/account")
    assert browser.page.url.path == "/portal/sign-in"


async def test_a_provider_that_is_down_signs_nobody_out_whose_token_holds(
    browser: Browser, provider: CodeProvider, world: World, issuer: Issuer
) -> None:
    await log_in(browser, provider)
    provider.is_down = True
    world.clock.advance(280)
    issuer.time += 280
    asked = provider.requests
    for _ in range(3):
        await browser.open("/portal/account")
        assert browser.page.url.path == "/portal/account"
    # And it is not asked again for each page.
    assert provider.requests == asked + 1
    provider.is_down = False
    world.clock.advance(16)
    issuer.time += 16
    await browser.open("/portal/account")
    assert [grant["grant_type"] for grant in provider.grants] == ["authorization_code", "refresh_token"]


async def test_long_tokens_are_kept_in_several_cookies(browser: Browser, provider: CodeProvider) -> None:
    provider.padding = "".join(hashlib.sha256(str(number).encode()).hexdigest() for number in range(120))
    await log_in(browser, provider)
    assert 2 <= len([name for name in browser.client.cookies if name.startswith("stagecoach-8080")]) <= MAX_CHUNKS
    await browser.send("/portal/sign-out")
    assert len([name for name in browser.client.cookies if name.startswith("stagecoach-8080")]) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "other"},
        {"state": ""},
        {"code": "guessed"},
        {"iss": "https://evil.example"},
        {"error": "access_denied", "code": None},
    ],
)
async def test_an_answer_that_belongs_to_nothing_here_signs_nobody_in(
    browser: Browser, provider: CodeProvider, changes: dict[str, str | None]
) -> None:
    query = {**provider.agree(await begin(browser)), **changes}
    sent = {name: value for name, value in query.items() if value is not None}
    answer = await browser.client.get("/portal/sign-in/callback", params=sent)
    assert answer.status_code == 401
    assert 'role="alert"' in answer.text
    await browser.open("/portal/account")
    assert browser.page.url.path == "/portal/sign-in"


async def test_an_answer_is_good_in_the_browser_that_asked_only(
    browser: Browser, provider: CodeProvider, application: FastAPI
) -> None:
    query = provider.agree(await begin(browser))
    victim = browser_on(application)
    answer = await victim.client.get("/portal/sign-in/callback", params=query)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://plain.example/token"},
        {"authorization_endpoint": None},
    ],
)
async def test_metadata_that_is_not_the_issuers_leads_nowhere(
    browser: Browser, provider: CodeProvider, changes: dict[str, Any]
) -> None:
    provider.metadata_changes = changes
    await browser.open("/portal/sign-in")
    answer = await browser.client.get("/portal/sign-in/provider", params={"issuer": ISSUER}, follow_redirects=False)
    assert answer.status_code == 503


async def test_a_provider_that_nobody_set_is_none(browser: Browser) -> None:
    answer = await browser.client.get("/portal/sign-in/provider?issuer=https://evil.example", follow_redirects=False)
    assert answer.status_code == 503
