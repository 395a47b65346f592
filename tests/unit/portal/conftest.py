"""The portal in front of the API on a world of fakes, and browsers that keep cookies and send forms as people do."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.world import World, open_world, world_settings
from tests.unit.api.conftest import AUDIENCE, ISSUER, Issuer, new_key

from stagecoach.api.app import create_app
from stagecoach.api.tokens import TokenChecker
from stagecoach.flows.toolbox import Toolbox
from stagecoach.portal.app import MachineSignIn, PortalInFront, make_portal
from stagecoach.settings import AuthSettings, IssuerSettings, Settings
from stagecoach.settings.portal import PortalSettings

PASSWORD = "seven llamas read maps"
URL = "http://stagecoach"
CSP_PIECES = ("default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "form-action 'self'")
VOID = {"meta", "link", "input", "img", "br", "hr", "path", "progress"} - {"progress", "path"}


class Outline(HTMLParser):
    """Reads a page as a machine that takes nothing for granted: what is opened is closed, in order, and ids differ."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.ids: set[str] = set()
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        found = dict(attrs)
        assert not [name for name in names if name == "style" or name.startswith("on")], f"<{tag}> has inline script or style"
        if (name := found.get("id")) is not None:
            assert name not in self.ids, f"the id {name} stands there twice"
            self.ids.add(name)
        self.elements.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        assert not (self.open and self.open[-1] in {"script", "style"} and data.strip()), "inline script or style"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def checked_page(answer: httpx.Response) -> Outline:
    """What holds of every page: policy, language, one heading and main, labels, no secret."""
    assert answer.headers["content-type"] == "text/html; charset=utf-8", answer.text[:300]
    policy = answer.headers["content-security-policy"]
    assert all(piece in policy for piece in CSP_PIECES), policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    outline = Outline(answer.text)
    assert answer.text.lower().startswith("<!doctype html>")
    assert outline.all("html") == [{"lang": "en"}]
    assert len(outline.all("h1")) == 1
    assert len(outline.all("main")) == 1
    assert len(outline.all("title")) == 1
    labelled = {each.get("for") for each in outline.all("label")}
    for tag in ("input", "select", "textarea"):
        for each in outline.all(tag):
            is_seen = each.get("type") not in {"hidden", "checkbox", "radio"} and "hidden" not in each
            assert not is_seen or each.get("id") in labelled or "aria-label" in each, each
    for form in outline.all("form"):
        action = str(form.get("action"))
        assert action.startswith("/portal/"), form
    for table_header in outline.all("th"):
        assert table_header.get("scope") in {"col", "row"}
    assert len(outline.all("caption")) == len(outline.all("table"))
    # Not within the random letters of a form's own token.
    assert re.search(r"(?<![A-Za-z0-9_-])scs_", answer.text) is None
    assert not re.search(r"eyJ[\w-]+\.eyJ", answer.text)
    return outline


@dataclass
class Browser:
    """Follows redirects, keeps cookies, and fills in forms that it has seen."""

    client: httpx.AsyncClient
    page: httpx.Response = field(init=False)

    async def open(self, path: str, status: int = 200) -> httpx.Response:
        """A page, checked."""
        self.page = await self.client.get(path)
        assert self.page.status_code == status, self.page.text[-1500:]
        checked_page(self.page)
        return self.page

    @property
    def text(self) -> str:
        """What is on the page, without markup."""
        return re.sub(r"\s+", " ", " ".join(Outline(self.page.text).text)).replace(" ,", ",")

    @property
    def csrf(self) -> str:
        found = re.search(r'<main [^>]*data-csrf="([^"]+)"', self.page.text)
        assert found, self.page.text[:500]
        return html.unescape(found[1])

    async def send(self, action: str, status: int = 200, **fields: Any) -> httpx.Response:
        """A form of the page that is open, with its hidden fields."""
        forms = re.findall(rf'<form[^>]*action="{re.escape(html.escape(action))}".*?</form>', self.page.text, re.DOTALL)
        assert forms, f"no form leads to {action}"
        hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', forms[0]))
        values = {name: html.unescape(value) for name, value in hidden.items()} | fields
        headers = {"Origin": URL, "Sec-Fetch-Site": "same-origin"}
        self.page = await self.client.post(action, data=values, headers=headers)
        assert self.page.status_code == status, self.page.text[-1500:]
        checked_page(self.page)
        return self.page


@pytest.fixture
def issuer(tmp_path: Path, world: World) -> Issuer:
    """With one key, published; its clock is the world's."""
    made = Issuer(tmp_path / "jwks.json", new_key(), time=world.clock.now().timestamp())
    made.publish(made.key)
    return made


@pytest.fixture
def settings_changes() -> dict[str, Any]:
    """Sections of the world's settings, for tests to change."""
    return {"accounts": {"enabled": True, "registration": "open"}}


@pytest.fixture
async def world(tmp_path: Path, database_template: Path, settings_changes: dict[str, Any]) -> AsyncIterator[World]:
    """A service with accounts, open to strangers."""
    async with open_world(tmp_path, database_template, world_settings(**settings_changes)) as opened:
        yield opened


Maker = Callable[..., FastAPI]


@pytest.fixture
def make_application(world: World, issuer: Issuer) -> Maker:
    """The service with its portal; ``machine`` as with ``stagecoach up``."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Toolbox]:
        yield world.tools

    def make(machine: MachineSignIn | None = None, auth: AuthSettings | None = None, **portal: Any) -> FastAPI:
        auth = auth or AuthSettings(issuers=(IssuerSettings(jwks=str(issuer.jwks_file), issuer=ISSUER, audience=AUDIENCE),))
        made = create_app(opened, auth)
        made.state.tools = world.tools
        made.state.tokens = TokenChecker(auth, lambda: issuer.time)
        transport = portal.pop("provider_transport", None)
        sections = {"portal": PortalSettings(enabled=True, **portal), "auth": auth}
        settings: Settings = world.tools.settings.model_copy(update=sections)
        clock = lambda: world.clock.now().timestamp()  # noqa: E731
        front = make_portal(settings, made, machine, clock=clock, provider_transport=transport)
        made.add_middleware(PortalInFront, portal=front)
        return made

    return make


@pytest.fixture
def application(make_application: Maker) -> FastAPI:
    """As a centre would run it."""
    return make_application()


def browser_on(application: FastAPI, url: str = URL) -> Browser:
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    return Browser(httpx.AsyncClient(transport=transport, base_url=url, follow_redirects=True))


async def with_token(application: FastAPI, token: str) -> Browser:
    """Signed in."""
    browser = browser_on(application)
    await browser.open("/portal/sign-in")
    answer = await browser.send("/portal/sign-in/token", token=token)
    assert "Sign out" in answer.text
    return browser


@pytest.fixture
async def stranger(application: FastAPI) -> AsyncIterator[Browser]:
    """Nobody."""
    browser = browser_on(application)
    yield browser
    await browser.client.aclose()


@pytest.fixture
async def alice(application: FastAPI, issuer: Issuer) -> AsyncIterator[Browser]:
    """Signed in as alice."""
    browser = await with_token(application, issuer.token())
    yield browser
    await browser.client.aclose()


@pytest.fixture
async def bob(application: FastAPI, issuer: Issuer) -> AsyncIterator[Browser]:
    """Signed in as bob."""
    browser = await with_token(application, issuer.token(preferred_username="bob"))
    yield browser
    await browser.client.aclose()


@pytest.fixture
async def admin(application: FastAPI, issuer: Issuer) -> AsyncIterator[Browser]:
    """Signed in as an administrator."""
    browser = await with_token(application, issuer.token(preferred_username="carol", roles=["stagecoach-admin"]))
    yield browser
    await browser.client.aclose()


@pytest.fixture
def issuer_token(issuer: Issuer) -> str:
    """Alice's."""
    return issuer.token()
