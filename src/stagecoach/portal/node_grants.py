"""Who may send to one's node: grants and invitation links; and the page on which an invitation is redeemed."""

from __future__ import annotations

import re
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from stagecoach.portal.api_calls import ApiRefusal, query_text
from stagecoach.portal.nodes import NODES, ONE, api_path, page_path, shown_node
from stagecoach.portal.visits import Visit, action, open_page, page
from stagecoach.portal.words import bytes_of, end_of_day

INVITATION = "/portal/invitation"
# Where the API's own links lead; what is behind the '#' stays in the browser.
INVITATION_LINK = "/invitation"
_TOKEN = re.compile(r"sci_[A-Za-z0-9_-]{20,100}", re.ASCII)


@page
async def show_grants(visit: Visit) -> Response:
    """Grants and invitations that nobody has redeemed, newest first."""
    return await _grants_page(visit)


@page
async def grant(visit: Visit) -> Response:
    """For somebody whose user name is known."""
    user = visit.form.get("user", "").strip()
    if not user:
        return await _grants_page(visit, 422, "Say who may send.", "grant")
    try:
        await visit.api("POST", f"{api_path(visit)}/grants", json={"user": user, **_terms(visit)})
    except ApiRefusal as refusal:
        if refusal.status == 401:
            raise
        return await _grants_page(visit, refusal.status, refusal.message, "grant")
    visit.say(f"{user} may send to this node now.")
    return visit.go(f"{page_path(visit)}/grants")


@page
async def invite(visit: Visit) -> Response:
    """The link is on the answer, and nowhere afterwards."""
    try:
        made = await visit.api("POST", f"{api_path(visit)}/invitations", json=_terms(visit))
    except ApiRefusal as refusal:
        if refusal.status == 401:
            raise
        return await _grants_page(visit, refusal.status, refusal.message, "invite")
    link = f"{visit.service_url}{INVITATION_LINK}#{made['token']}"
    return visit.render("invitation_made.html", 201, **await shown_node(visit), made=made, link=link)


@action(NODES)
async def revoke_grant(visit: Visit) -> Response:
    """Nothing new is sent by it."""
    await visit.api("DELETE", f"{api_path(visit)}/grants/{visit.part('grant_id')}")
    visit.say("It is revoked: nothing new is sent by it.")
    return visit.go(f"{page_path(visit)}/grants")


@open_page
async def show_invitation(visit: Visit) -> Response:
    """Who is not signed in signs in first; the browser keeps the link's token meanwhile."""
    if visit.credential is not None:
        try:
            visit.me = await visit.api("GET", "/accounts/me")
        except ApiRefusal as refusal:
            if refusal.status != 401:
                raise
    return _invitation_page(visit)


@page
async def redeem(visit: Visit) -> Response:
    """Once, by the first who comes."""
    # People paste the whole link, too.
    found = _TOKEN.search(visit.form.get("token", ""))
    if found is None:
        return _invitation_page(visit, 422, "This is no invitation: it begins with “sci_”. Copy the whole link.")
    try:
        held = await visit.api("POST", "/invitations/redeem", json={"token": found[0]})
    except ApiRefusal as refusal:
        if refusal.status == 401:
            raise
        return _invitation_page(visit, refusal.status, refusal.message)
    visit.say(f"You may send to “{held['nodeName']}” of {held['nodeOwner']} now.")
    return visit.go(f"{NODES}/{held['nodeId']}/upload?{query_text({'path': held['folder']})}")


def _invitation_page(visit: Visit, status: int = 200, complaint: str = "") -> Response:
    return visit.render("invitation.html", status, complaint=complaint, sign_in="/portal/sign-in?next=/portal/invitation")


async def _grants_page(visit: Visit, status: int = 200, complaint: str = "", about: str = "") -> Response:
    shown = await shown_node(visit)
    grants = (await visit.api("GET", f"{api_path(visit)}/grants"))["grants"]
    form = visit.form if about else {}
    return visit.render("node_grants.html", status, **shown, grants=grants, complaint=complaint, about=about, form=form)


def _terms(visit: Visit) -> dict[str, Any]:
    """Folder, bytes, date and a word for oneself. Raises ApiRefusal for what is none."""
    most, until = visit.form.get("most", "").strip(), visit.form.get("until", "").strip()
    max_bytes = bytes_of(most) if most else None
    if most and not max_bytes:
        raise ApiRefusal(422, "validation_error", "This is no size; write one with its unit, such as 500 GB or 1 TiB.")
    ends = end_of_day(until)
    if until and ends is None:
        raise ApiRefusal(422, "validation_error", "This is no day; write it as 2030-12-31.")
    return {
        "folder": "/" + visit.form.get("folder", "").strip().strip("/"),
        "maxBytes": max_bytes,
        "expiresAt": ends.isoformat() if ends is not None else None,
        "label": visit.form.get("label", "").strip() or None,
    }


routes = [
    Route(f"{ONE}/grants", show_grants, methods=["GET"]),
    Route(f"{ONE}/grants", grant, methods=["POST"]),
    Route(f"{ONE}/invitations", invite, methods=["POST"]),
    Route(f"{ONE}/grants/{{grant_id}}/revoke", revoke_grant, methods=["POST"]),
    Route(INVITATION, show_invitation, methods=["GET"]),
    Route(INVITATION, redeem, methods=["POST"]),
]
