"""The account's pages: password, sessions elsewhere, tokens whose secret is seen once."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from tests.fakes.world import World
from tests.unit.api.conftest import with_token as api_with_token
from tests.unit.portal.conftest import PASSWORD, Browser, browser_on

from stagecoach.flows.make_account import add_account

OTHER = "eleven quiet harbours"


async def signed_in(application: FastAPI, password: str = PASSWORD) -> Browser:
    browser = browser_on(application)
    await browser.open("/portal/sign-in")
    await browser.send("/portal/sign-in", name="alice", password=password)
    return browser


@pytest.fixture
async def alice(application: FastAPI, world: World) -> AsyncIterator[Browser]:
    """By her account's password."""
    await add_account(world.tools, "alice", PASSWORD, "alice", is_admin=False)
    browser = await signed_in(application)
    yield browser
    await browser.client.aclose()


async def test_a_password_is_changed_and_other_browsers_are_signed_out(alice: Browser, application: FastAPI) -> None:
    elsewhere = await signed_in(application)
    await alice.open("/portal/account")
    for status, current, new, repeated, words in (
        (422, PASSWORD, OTHER, "else", "differ"),
        (403, "wrong", OTHER, OTHER, "The current password is not right."),
        (400, PASSWORD, "short", "short", "12 to 256 characters"),
    ):
        await alice.send("/portal/account/password", status, current=current, new=new, repeated=repeated, revoke="yes")
        assert words in alice.text
        assert OTHER not in alice.page.text
    await alice.send("/portal/account/password", current=PASSWORD, new=OTHER, repeated=OTHER)
    assert "Your password is changed." in alice.text
    await elsewhere.open("/portal/account")
    assert elsewhere.page.url.path == "/portal/sign-in"
    await signed_in(application, OTHER)


async def test_one_signs_out_everywhere(alice: Browser, application: FastAPI) -> None:
    elsewhere = await signed_in(application)
    await alice.open("/portal/account")
    await alice.send("/portal/account/sign-out-everywhere")
    for browser in (alice, elsewhere):
        await browser.open("/portal/account")
        assert browser.page.url.path == "/portal/sign-in"


async def test_a_token_is_shown_once_works_and_is_revoked(alice: Browser, application: FastAPI) -> None:
    await alice.open("/portal/tokens")
    assert "No tokens yet" in alice.text
    wanted = {"name": "nightly <b>", "days": "7", "scope-transfers:read": "yes"}
    await alice.send("/portal/tokens", 201, **wanted)
    secret = re.search(r'value="(sct_[^"]+)"', alice.page.text)
    assert secret
    async with api_with_token(application, secret[1]) as program:
        assert (await program.get("/transfers")).status_code == 200
        assert (await program.post("/tokens", json={})).status_code in {400, 403}
        await alice.open("/portal/tokens")
        assert "nightly <b>" in alice.text
        assert secret[1] not in alice.page.text
        (address,) = re.findall(r'action="(/portal/tokens/[^"]+/revoke)"', alice.page.text)
        await alice.send(address)
        assert "is revoked" in alice.text
        assert (await program.get("/transfers")).status_code == 401


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"name": " "}, 422),
        ({"days": "soon"}, 422),
        ({"days": "0"}, 422),
        ({"days": "9" * 400}, 422),
        ({"days": "400"}, 400),
        ({"scope-transfers:read": "no"}, 422),
        ({"scope-admin": "yes"}, 403),
    ],
)
async def test_a_token_that_cannot_be_is_explained_and_what_was_typed_stays(
    alice: Browser, changes: dict[str, str], status: int
) -> None:
    await alice.open("/portal/tokens")
    await alice.send("/portal/tokens", status, **{"name": "robot", "days": "7", "scope-transfers:read": "yes", **changes})
    assert 'role="alert"' in alice.page.text
    assert changes.get("name", 'value="robot"') in alice.page.text


async def test_a_token_makes_no_token(alice: Browser, application: FastAPI) -> None:
    await alice.open("/portal/tokens")
    await alice.send("/portal/tokens", 201, **{"name": "x", "days": "7", "scope-tokens:manage": "yes"})
    secret = re.search(r'value="(sct_[^"]+)"', alice.page.text)
    assert secret
    program = browser_on(application)
    await program.open("/portal/sign-in")
    await program.send("/portal/sign-in/token", 403, token=secret[1])
    assert "does not hold the scope" in program.text
    await program.open("/portal/tokens")
    assert "tokens are made by people" in program.text
