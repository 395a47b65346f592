"""Sending from one place to another: between systems and nodes by a form, and from this browser to a node."""

from __future__ import annotations

import posixpath
import secrets
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from stagecoach.portal.api_calls import ApiRefusal
from stagecoach.portal.nodes import ONE, shown_node
from stagecoach.portal.places import Place, granted_places, held_grants, is_node, node_places, own_nodes
from stagecoach.portal.visits import Visit, page
from stagecoach.portal.words import rate_of

SEND = "/portal/send"
FIELDS = ("from", "source", "to", "target", "archive", "road", "most", "source_account", "target_account")
ROADS = {
    "auto": "Let the service choose",
    "direct": "Straight from node to node, or not at all",
    "staged": "Through the staging area",
}


@page
async def show_form(visit: Visit) -> Response:
    """Filled in as the link to it says."""
    return await _form(visit, visit.query)


@page
async def send(visit: Visit) -> Response:
    """Begins the transfer, and goes to its page."""
    said = visit.form
    wanted: dict[str, Any] = {"source": _end(said, "from", "source"), "archive": "tar" if said.get("archive") == "tar" else None}
    if wanted["source"] is None:
        return await _form(visit, said, 422, "Say where it is, and its path there.")
    # Nowhere is this computer, which fetches it by a link.
    if said.get("to"):
        wanted["destination"] = _end(said, "to", "target")
        if wanted["destination"] is None:
            return await _form(visit, said, 422, "Say the path at which it shall arrive.")
    wanted["road"] = said.get("road") if said.get("road") in ROADS else None
    most = said.get("most", "").strip()
    wanted["rateLimitBytesPerSecond"] = rate_of(most)
    if most and wanted["rateLimitBytesPerSecond"] is None:
        return await _form(visit, said, 422, "Say how much in a second, such as 20 MB, or leave it empty.")
    try:
        begun = await visit.api("POST", "/transfers", json=wanted, key=said.get("key"))
    except ApiRefusal as refusal:
        if refusal.status == 401:
            raise
        return await _form(visit, said, refusal.status, refusal.message)
    return visit.go(f"/portal/transfers/{begun['transfer']['id']}")


@page
async def upload_to_node(visit: Visit) -> Response:
    """The place to drop files on, for one folder of a node."""
    shown = await shown_node(visit)
    system = shown["node"]["system"]
    folders = {grant["folder"] for grant in await held_grants(visit) if grant["system"] == system}
    folder = visit.query.get("path") or ("/" if shown["is_mine"] or not folders else min(folders))
    return visit.render(
        "node_upload.html", **shown, folder=posixpath.normpath("/" + folder.strip("/")), folders=sorted(folders - {"/"})
    )


def _end(said: dict[str, str], system: str, path: str) -> dict[str, Any] | None:
    name, place = said.get(system, ""), said.get(path, "").strip()
    if not name or not place:
        return None
    # Paths of a node begin at its directory, whatever people write.
    path_there = place if place.startswith("/") or not is_node(name) else f"/{place}"
    return {"system": name, "path": path_there, "account": said.get(f"{path}_account", "").strip() or None}


async def _form(visit: Visit, said: dict[str, str], status: int = 200, complaint: str = "") -> Response:
    systems = [Place(system.name, system.name) for system in visit.portal.settings.systems]
    nodes = node_places(await own_nodes(visit))
    granted = granted_places(await held_grants(visit))
    return visit.render(
        "send.html",
        status,
        systems=systems,
        nodes=nodes,
        granted=granted,
        roads=ROADS,
        said={name: said.get(name, "") for name in FIELDS},
        # Sent twice by a double click, it is begun once.
        key=said.get("key") or secrets.token_hex(16),
        has_accounts=any(system.needs_account for system in visit.portal.settings.systems),
        complaint=complaint,
    )


routes = [
    Route(SEND, show_form, methods=["GET"]),
    Route(SEND, send, methods=["POST"]),
    Route(f"{ONE}/upload", upload_to_node, methods=["GET"]),
]
