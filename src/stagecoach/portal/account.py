"""Who one is here: the account, its password, its sessions, and the tokens for one's programs."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from stagecoach.portal.api_calls import ApiRefusal
from stagecoach.portal.visits import Visit, action, page

ACCOUNT, TOKENS = "/portal/account", "/portal/tokens"
# Scopes in the order of the page, with what they let a program do.
SCOPES = {
    "transfers:read": "See transfers and their events",
    "transfers:write": "Begin, finish, retry and cancel transfers",
    "files:read": "List directories and read small files",
    "files:write": "Make, change and remove files",
    "jobs:read": "See jobs, nodes and partitions",
    "jobs:write": "Submit and cancel jobs, which lets it do all that you can do there",
    "nodes:read": "See your nodes, their queues, and what you were granted",
    "nodes:write": "Register, change and revoke nodes, and allow others to send to them",
    "tokens:manage": "List and revoke tokens",
    "admin": "What administrators may",
}
USUAL_SCOPES = frozenset({"transfers:read", "transfers:write", "files:read", "files:write"})
USUAL_DAYS = 30


@page
async def show_account(visit: Visit) -> Response:
    """Name, user on the clusters, password."""
    return visit.render("account.html", complaint="")


@page
async def change_password(visit: Visit) -> Response:
    """Ends every other session."""
    current, new = visit.form.get("current", ""), visit.form.get("new", "")
    if new != visit.form.get("repeated", ""):
        return visit.render("account.html", 422, complaint="The two new passwords differ; type them again.")
    change = {"currentPassword": current, "newPassword": new, "revokeTokens": visit.form.get("revoke") == "yes"}
    try:
        await visit.api("PUT", "/accounts/password", json=change)
    except ApiRefusal as refusal:
        if refusal.status == 401:
            raise
        words = refusal.message
        if refusal.code == "validation_error":
            words = "A password has 12 to 256 characters; several words make a good one."
        return visit.render("account.html", refusal.status, complaint=words)
    visit.say("Your password is changed. Everywhere else you are signed out.")
    return visit.go(ACCOUNT)


@action(ACCOUNT)
async def sign_out_everywhere(visit: Visit) -> Response:
    """This browser too."""
    await visit.api("DELETE", "/accounts/sessions")
    visit.slot.session = None
    visit.say("You are signed out everywhere.")
    return visit.go("/portal/sign-in")


@page
async def show_tokens(visit: Visit) -> Response:
    """Those that are there, and the form for another."""
    return await _tokens_page(visit)


@page
async def make_token(visit: Visit) -> Response:
    """Its secret is on the answer, and nowhere afterwards."""
    scopes = [scope for scope in SCOPES if visit.form.get(f"scope-{scope}") == "yes"]
    days = visit.form.get("days", "")
    wanted = {"name": visit.form.get("name", "").strip(), "scopes": scopes, "expiresInDays": days}
    if not wanted["name"]:
        return await _tokens_page(visit, 422, "Say what the token is for.", wanted)
    if not scopes:
        return await _tokens_page(visit, 422, "Choose at least one thing that the token may do.", wanted)
    if not (days.isascii() and days.isdigit() and 0 < int(days[:5]) <= 3650):
        return await _tokens_page(visit, 422, "Say for how many days it holds, as a number.", wanted)
    try:
        made = await visit.api("POST", "/tokens", json={**wanted, "expiresInDays": int(days)})
    except ApiRefusal as refusal:
        if refusal.status == 401:
            raise
        return await _tokens_page(visit, refusal.status, refusal.message, wanted)
    return visit.render("token_made.html", 201, made=made, scopes=SCOPES)


@action(TOKENS)
async def revoke_token(visit: Visit) -> Response:
    """It holds no more."""
    await visit.api("DELETE", f"/tokens/{visit.part('token_id')}")
    visit.say("The token is revoked; programs that use it are refused from now on.")
    return visit.go(TOKENS)


async def _tokens_page(visit: Visit, status: int = 200, complaint: str = "", wanted: dict[str, Any] | None = None) -> Response:
    tokens = (await visit.api("GET", "/tokens"))["tokens"]
    held = set(visit.me["scopes"])
    return visit.render(
        "tokens.html",
        status,
        tokens=tokens,
        complaint=complaint,
        scopes={scope: words for scope, words in SCOPES.items() if scope in held},
        chosen=set(wanted["scopes"]) if wanted else USUAL_SCOPES,
        name=wanted["name"] if wanted else "",
        days=wanted["expiresInDays"] if wanted else USUAL_DAYS,
        may_make=visit.me["signedInBy"] != "personal",
        max_days=visit.portal.settings.personal_tokens.max_days,
    )


routes = [
    Route(ACCOUNT, show_account, methods=["GET"]),
    Route(f"{ACCOUNT}/password", change_password, methods=["POST"]),
    Route(f"{ACCOUNT}/sign-out-everywhere", sign_out_everywhere, methods=["POST"]),
    Route(TOKENS, show_tokens, methods=["GET"]),
    Route(TOKENS, make_token, methods=["POST"]),
    Route(f"{TOKENS}/{{token_id}}/revoke", revoke_token, methods=["POST"]),
]
