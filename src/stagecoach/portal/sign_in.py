"""Signing in and out, signing up, and where one lands."""

from __future__ import annotations

import hmac
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from stagecoach.core.bearer_secrets import SESSION_PREFIX
from stagecoach.portal.api_calls import ApiRefusal
from stagecoach.portal.providers import CALLBACK_PATH, ProviderTrouble
from stagecoach.portal.sessions import Session, cookie_line, cookies_of, signed_in
from stagecoach.portal.visits import Visit, open_page, own_page, page

HOME, SIGN_IN = "/portal/", "/portal/sign-in"
# While somebody is at their provider's page; that answer comes from another site, so no strict cookie comes with it.
MEMORY_COOKIE = "stagecoach-sign-in"
MEMORY_SECONDS = 600


@page
async def show_home(visit: Visit) -> Response:
    """Where people begin: their files, or, with a service of their own and nothing done yet, the first upload."""
    if visit.portal.machine is not None and visit.me["user"] is not None:
        begun = await visit.api("GET", "/transfers", params={"limit": 1})
        if not begun["transfers"]:
            return visit.go("/portal/welcome")
    return visit.go("/portal/files" if visit.me["user"] is not None else "/portal/account")


@open_page
async def show_sign_in(visit: Visit) -> Response:
    """The ways that this service has."""
    return await _sign_in_page(visit, own_page(visit.query.get("next"), HOME))


@open_page
async def sign_in(visit: Visit) -> Response:
    """With an account's name and password."""
    wanted = own_page(visit.form.get("next"), HOME)
    name, password = visit.form.get("name", "").strip(), visit.form.get("password", "")
    if not name or not password:
        return await _sign_in_page(visit, wanted, 422, "Enter your name and your password.", name)
    try:
        begun = await visit.portal.api.call(
            visit.request, None, "POST", "/accounts/sessions", json={"name": name, "password": password}
        )
    except ApiRefusal as refusal:
        words = "The name or the password is not right." if refusal.status in {400, 401} else refusal.message
        return await _sign_in_page(visit, wanted, refusal.status, words, name)
    return _enter(visit, signed_in(begun["token"]), wanted)


@open_page
async def sign_in_with_token(visit: Visit) -> Response:
    """With a token that the API believes, a provider's or a personal one."""
    wanted = own_page(visit.form.get("next"), HOME)
    token = visit.form.get("token", "").strip()
    if not token.isascii() or not token.isprintable() or not token:
        return await _sign_in_page(visit, wanted, 422, "Paste a token of this service.")
    try:
        await visit.portal.api.call(visit.request, token, "GET", "/accounts/me")
    except ApiRefusal as refusal:
        return await _sign_in_page(visit, wanted, refusal.status, refusal.message)
    return _enter(visit, signed_in(token), wanted)


@open_page
async def sign_in_on_machine(visit: Visit) -> Response:
    """``stagecoach up``: with the code that the terminal shows. Anybody on this machine can reach the page."""
    machine = visit.portal.machine
    wanted = own_page(visit.form.get("next"), HOME)
    if machine is None:
        return await _sign_in_page(visit, wanted, 404, "This service has no such way to sign in.")
    code = visit.form.get("code", "").strip()
    if not hmac.compare_digest(code.encode("utf-8", "surrogateescape"), machine.code.encode()):
        words = "This is not the code that the terminal shows: open the whole link that it printed, or copy the code again."
        return await _sign_in_page(visit, wanted, 401, words)
    return _enter(visit, signed_in(machine.token), wanted)


@open_page
async def go_to_provider(visit: Visit) -> Response:
    """To the identity provider's own page."""
    wanted = own_page(visit.query.get("next"), HOME)
    try:
        log_in = await visit.portal.providers.begin(visit.query.get("issuer", ""), wanted)
    except ProviderTrouble as trouble:
        return await _sign_in_page(visit, wanted, 503, str(trouble))
    answer = RedirectResponse(log_in.url, 303)
    sealed = visit.portal.cookies.sealer.seal(log_in.memory)
    answer.headers.append("Set-Cookie", _memory_line(visit.request, sealed, MEMORY_SECONDS))
    return answer


@open_page
async def come_back(visit: Visit) -> Response:
    """From the provider, with its answer in the query."""
    sealed = cookies_of(visit.request.headers).get(MEMORY_COOKIE, "")
    memory = visit.portal.cookies.sealer.open(sealed, MEMORY_SECONDS) or {}
    wanted = own_page(str(memory.get("next")), HOME)
    try:
        session = await visit.portal.providers.finish(memory, visit.query)
        await visit.portal.api.call(visit.request, session.credential, "GET", "/accounts/me")
    except ProviderTrouble as trouble:
        answer = await _sign_in_page(visit, wanted, 401, str(trouble))
    except ApiRefusal as refusal:
        answer = await _sign_in_page(visit, wanted, refusal.status, refusal.message)
    else:
        # Not a redirect: it would count as sent by the provider, and the new cookie would stay at home.
        answer = visit.render("again.html", again=wanted)
        visit.slot.session = session
    answer.headers.append("Set-Cookie", _memory_line(visit.request, "", 0))
    return answer


@open_page
async def sign_out(visit: Visit) -> Response:
    """The session ends at the API, or the provider, and here."""
    session = visit.slot.session
    if session is not None and session.credential is not None:
        await visit.portal.providers.forget(session)
        await _end_session(visit, session.credential)
    visit.slot.session = None
    visit.say("You are signed out.")
    return visit.go(SIGN_IN)


@open_page
async def show_sign_up(visit: Visit) -> Response:
    """Where strangers may register."""
    return await _sign_up_page(visit)


@open_page
async def sign_up(visit: Visit) -> Response:
    """A new account, signed in at once."""
    name, password = visit.form.get("name", "").strip(), visit.form.get("password", "")
    if password != visit.form.get("repeated", ""):
        return await _sign_up_page(visit, 422, "The two passwords differ; type them again.", name)
    who = {"name": name, "password": password}
    try:
        await visit.portal.api.call(visit.request, None, "POST", "/accounts", json=who)
        begun = await visit.portal.api.call(visit.request, None, "POST", "/accounts/sessions", json=who)
    except ApiRefusal as refusal:
        return await _sign_up_page(visit, refusal.status, _sign_up_words(refusal), name)
    visit.slot.session = replace(signed_in(begun["token"]), flash=("good", "Your account is made, and you are signed in."))
    return visit.go("/portal/account")


async def _end_session(visit: Visit, credential: str) -> None:
    """At the API; who signed in otherwise has none there, and one that is over needs no end."""
    if not credential.startswith(SESSION_PREFIX):
        return
    try:
        await visit.api("DELETE", "/accounts/sessions/current")
    except ApiRefusal as refusal:
        if refusal.status != 401:
            raise


def _sign_up_words(refusal: ApiRefusal) -> str:
    if refusal.code != "validation_error":
        return refusal.message
    names = {field["name"] for field in refusal.data.get("fields", ())}
    if "name" in names:
        return "A name begins with a small letter; up to 32 of a-z, 0-9, '.', '_' and '-'."
    return "A password has 12 to 256 characters; several words make a good one."


def _enter(visit: Visit, session: Session, wanted: str) -> Response:
    visit.slot.session = session
    return visit.go(wanted)


async def _sign_in_page(visit: Visit, wanted: str, status: int = 200, complaint: str = "", name: str = "") -> Response:
    methods = await visit.portal.api.call(visit.request, None, "GET", "/auth/methods")
    return visit.render(
        "sign_in.html",
        status,
        next_page=wanted,
        complaint=complaint,
        name=name,
        has_accounts=methods["accounts"],
        may_register=methods["accounts"] and methods["registration"] == "open",
        providers=visit.portal.providers.choices,
        machine=visit.portal.machine,
    )


async def _sign_up_page(visit: Visit, status: int = 200, complaint: str = "", name: str = "") -> Response:
    methods = await visit.portal.api.call(visit.request, None, "GET", "/auth/methods")
    if not methods["accounts"] or methods["registration"] != "open":
        visit.complain("Registration is closed here; ask an administrator for an account.")
        return visit.go(SIGN_IN)
    return visit.render("sign_up.html", status, complaint=complaint, name=name)


def _memory_line(request: Request, value: str, life_seconds: int) -> str:
    is_https = request.url.scheme == "https"
    return cookie_line(MEMORY_COOKIE, value, life_seconds, is_https=is_https, same_site="Lax")


routes = [
    Route(HOME, show_home),
    Route(SIGN_IN, show_sign_in, methods=["GET"]),
    Route(SIGN_IN, sign_in, methods=["POST"]),
    Route(f"{SIGN_IN}/token", sign_in_with_token, methods=["POST"]),
    Route(f"{SIGN_IN}/machine", sign_in_on_machine, methods=["POST"]),
    Route(f"{SIGN_IN}/provider", go_to_provider),
    Route(CALLBACK_PATH, come_back),
    Route("/portal/sign-out", sign_out, methods=["POST"]),
    Route("/portal/sign-up", show_sign_up, methods=["GET"]),
    Route("/portal/sign-up", sign_up, methods=["POST"]),
]
