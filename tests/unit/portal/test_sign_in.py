"""Signing in, out and up: by name and password, by token, on one's own machine; and what the cookie is."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.world import World
from tests.unit.api.conftest import Issuer
from tests.unit.portal.conftest import PASSWORD, URL, Browser, Maker, browser_on

from stagecoach.flows.make_account import add_account
from stagecoach.portal.app import MachineSignIn


async def make_account(world: World, name: str = "alice", user: str | None = "alice") -> None:
    await add_account(world.tools, name, PASSWORD, user, is_admin=False)


async def test_who_is_not_signed_in_signs_in_first_and_comes_back(world: World, stranger: Browser) -> None:
    await make_account(world)
    await stranger.open("/portal/tokens")
    assert stranger.page.url.path == "/portal/sign-in"
    await stranger.send("/portal/sign-in", name="alice", password=PASSWORD)
    assert stranger.page.url.path == "/portal/tokens"


async def test_a_wrong_password_is_told_without_saying_what_is_wrong(world: World, stranger: Browser) -> None:
    await make_account(world)
    for name, password in (("alice", "wrong"), ("nobody", PASSWORD)):
        await stranger.open("/portal/sign-in")
        await stranger.send("/portal/sign-in", 401, name=name, password=password)
        assert "The name or the password is not right." in stranger.text
        assert password not in stranger.page.text
        assert f'value="{name}"' in stranger.page.text


async def test_signing_out_ends_the_session_at_the_api_as_well(world: World, stranger: Browser, application: FastAPI) -> None:
    await make_account(world)
    await stranger.open("/portal/sign-in")
    await stranger.send("/portal/sign-in", name="alice", password=PASSWORD)
    stolen = dict(stranger.client.cookies)
    await stranger.send("/portal/sign-out")
    assert "You are signed out." in stranger.text
    thief = browser_on(application)
    thief.client.cookies.update(stolen)
    await thief.open("/portal/account")
    assert thief.page.url.path == "/portal/sign-in"


async def test_the_cookie_tells_nothing_and_is_kept_from_scripts_and_other_sites(
    world: World, stranger: Browser, application: FastAPI
) -> None:
    await make_account(world)
    await stranger.open("/portal/sign-in")
    answer = await stranger.client.post(
        "/portal/sign-in", data={"csrf": stranger.csrf, "name": "alice", "password": PASSWORD}, follow_redirects=False
    )
    (line,) = answer.headers.get_list("set-cookie")
    assert line.startswith("stagecoach-8080=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(line.split("; "))
    assert "Secure" not in line
    assert "scs_" not in line
    secure = browser_on(application, "https://stagecoach")
    answer = await secure.open("/portal/sign-in")
    line = answer.headers["set-cookie"]
    assert line.startswith("__Host-stagecoach=")
    assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= set(line.split("; "))
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


async def test_a_cookie_of_another_key_is_nobodys(issuer: Issuer, make_application: Maker) -> None:
    one, other = (make_application(cookie_key=letter * 32) for letter in "ab")
    browser = browser_on(one)
    await browser.open("/portal/sign-in")
    await browser.send("/portal/sign-in/token", token=issuer.token())
    for application, page in ((make_application(cookie_key="a" * 32), "/portal/account"), (other, "/portal/sign-in")):
        again = browser_on(application)
        again.client.cookies.update(browser.client.cookies)
        await again.open("/portal/account")
        assert again.page.url.path == page


@pytest.mark.parametrize("path", ["/portal/sign-in", "/portal/sign-out", "/portal/sign-up", "/portal/account/password"])
@pytest.mark.parametrize("token", [None, "", "wrong"])
async def test_a_form_that_is_not_ours_is_refused(world: World, stranger: Browser, path: str, token: str | None) -> None:
    await make_account(world)
    await stranger.open("/portal/sign-in")
    form = {"name": "alice", "password": PASSWORD} | ({"csrf": token} if token is not None else {})
    answer = await stranger.client.post(path, data=form)
    assert answer.status_code == 403
    assert "Nothing was changed" in answer.text


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}],
)
async def test_a_form_from_another_site_is_refused(world: World, stranger: Browser, headers: dict[str, str]) -> None:
    await make_account(world)
    await stranger.open("/portal/sign-in")
    form = {"csrf": stranger.csrf, "name": "alice", "password": PASSWORD}
    answer = await stranger.client.post("/portal/sign-in", data=form, headers=headers)
    assert answer.status_code == 403


async def test_a_link_from_another_site_still_finds_who_is_signed_in(alice: Browser, stranger: Browser) -> None:
    """A strict cookie stays at home then; the page asks for itself once more."""
    answer = await stranger.client.get("/portal/account", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert '<meta http-equiv="refresh" content="0;url=/portal/account">' in answer.text


@pytest.mark.parametrize("address", ["https://evil.example/", "//evil.example", "/portal/\\evil", "/portal/a\r\nb", "/docs"])
async def test_nobody_is_led_elsewhere_after_signing_in(issuer: Issuer, stranger: Browser, address: str) -> None:
    await stranger.open("/portal/sign-in")
    form = {"csrf": stranger.csrf, "token": issuer.token(), "next": address}
    answer = await stranger.client.post("/portal/sign-in/token", data=form, follow_redirects=False)
    assert answer.headers["location"] == "/portal/"


async def test_a_token_that_does_not_hold_signs_nobody_in(issuer: Issuer, stranger: Browser) -> None:
    await stranger.open("/portal/sign-in")
    for token in ("nonsense", "sct_" + "a" * 43, issuer.token(exp=1), "with\nbreak", ""):
        await stranger.send("/portal/sign-in/token", 422 if token in {"", "with\nbreak"} else 401, token=token)
        assert "Sign out" not in stranger.page.text
        assert not token or token not in stranger.page.text


async def test_a_log_in_that_is_over_is_told(issuer: Issuer, alice: Browser) -> None:
    issuer.time += 3600
    await alice.open("/portal/account")
    assert alice.page.url.path == "/portal/sign-in"
    assert "You were signed out" in alice.text


async def test_a_stranger_registers_and_is_told_what_is_missing(stranger: Browser) -> None:
    await stranger.open("/portal/sign-up")
    await stranger.send("/portal/sign-up", 422, name="dora", password=PASSWORD, repeated="other")
    await stranger.send("/portal/sign-up", 400, name="Dora", password=PASSWORD, repeated=PASSWORD)
    assert "A name begins with a small letter" in stranger.text
    await stranger.send("/portal/sign-up", 400, name="dora", password="short", repeated="short")
    assert "12 to 256 characters" in stranger.text
    await stranger.send("/portal/sign-up", name="dora", password=PASSWORD, repeated=PASSWORD)
    assert stranger.page.url.path == "/portal/account"
    assert "no user on the clusters yet" in stranger.text
    await stranger.open("/portal/")
    assert stranger.page.url.path == "/portal/account"
    other = stranger
    await other.send("/portal/sign-out")
    await other.open("/portal/sign-up")
    await other.send("/portal/sign-up", 409, name="dora", password=PASSWORD, repeated=PASSWORD)


async def test_on_ones_own_machine_the_code_of_the_terminal_signs_in(issuer: Issuer, make_application: Maker) -> None:
    machine = MachineSignIn("alice", "the-code-of-the-terminal", issuer.token())
    browser = browser_on(make_application(machine))
    await browser.open("/portal/sign-in")
    assert machine.code not in browser.page.text
    await browser.send("/portal/sign-in/machine", 401, code="guessed")
    await browser.send("/portal/sign-in/machine", code=machine.code)
    assert "Sign out" in browser.page.text


async def test_without_such_a_machine_there_is_no_code(stranger: Browser) -> None:
    await stranger.open("/portal/sign-in")
    answer = await stranger.client.post("/portal/sign-in/machine", data={"csrf": stranger.csrf, "code": ""})
    assert answer.status_code == 404


async def test_the_root_leads_to_the_portal_and_the_api_stays_where_it_is(stranger: Browser) -> None:
    answer = await stranger.client.get("/", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "/portal/")
    assert (await stranger.client.get("/transfers")).json()["code"] == "not_authenticated"
    assert (await stranger.client.get("/portals")).headers["content-type"] == "application/json"


async def test_what_is_not_there_is_told_on_a_page(stranger: Browser, alice: Browser) -> None:
    for browser in (stranger, alice):
        await browser.open("/portal/nothing", 404)
        assert "There is no such page." in browser.text
        assert browser.page.headers["x-request-id"] in browser.text


async def test_a_form_larger_than_any_is_refused(stranger: Browser) -> None:
    await stranger.open("/portal/sign-in")
    answer = await stranger.client.post("/portal/sign-in", data={"csrf": stranger.csrf, "name": "a" * 70_000})
    assert answer.status_code == 403


async def test_the_client_of_the_api_is_the_person_not_the_portal(world: World, application: FastAPI) -> None:
    """Limits and the audit log go by where people are."""
    await make_account(world)
    transport = httpx.ASGITransport(application, client=("198.51.100.7", 4711))
    async with httpx.AsyncClient(transport=transport, base_url=URL, follow_redirects=True) as client:
        browser = Browser(client)
        await browser.open("/portal/sign-in")
        await browser.send("/portal/sign-in", name="alice", password=PASSWORD)
    from stagecoach.core.audit_log import AuditFilter
    from stagecoach.flows.record_act import audit_lines

    lines = [line async for line in audit_lines(world.tools, AuditFilter()) if line.what == "session.begin"]
    assert [line.address for line in lines] == ["198.51.100.7"]


async def test_cookies_of_other_programs_do_no_harm(alice: Browser) -> None:
    """Names and values as no standard lets them be, before ours."""
    ours = "; ".join(f"{name}={value}" for name, value in alice.client.cookies.items())
    answer = await alice.client.get("/portal/account", headers={"Cookie": f'a:b={{"x": "y"}}; =; ; c=ä; {ours}'.encode()})
    assert answer.url.path == "/portal/account"


async def test_a_body_with_two_lengths_is_refused(stranger: Browser) -> None:
    headers = {"Content-Length": "3", "Transfer-Encoding": "chunked"}
    answer = await stranger.client.post("/portal/sign-in", content=b"a=b", headers=headers)
    assert answer.status_code == 400
