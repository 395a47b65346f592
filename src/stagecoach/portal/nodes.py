"""Data transfer nodes: one's own and those that one was granted, the command that makes a machine one, its settings, its end."""

from __future__ import annotations

import re
import shlex
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from stagecoach.portal.api_calls import ApiRefusal
from stagecoach.portal.places import MAY_WRITE, held_grants, own_nodes
from stagecoach.portal.visits import Visit, action, page

NODES = "/portal/nodes"
ONE = NODES + "/{node_id}"
STATE_WORDS = {
    "waiting": "Waits for its agent",
    "online": "Online",
    "offline": "Offline",
    "revoked": "Revoked",
}
MOST_PARALLEL = 64
_COUNT = re.compile(r"[0-9]{1,4}", re.ASCII)
# Where the command has something to say before the person says it.
SEND_DIRECTORY, RECEIVE_DIRECTORY = "/data/outgoing", "/data/incoming"


@page
async def show_nodes(visit: Visit) -> Response:
    """Newest first, and the nodes of others that one may send to."""
    return await _nodes_page(visit)


@page
async def show_rows(visit: Visit) -> Response:
    """The rows alone, for the script that keeps the table up to date."""
    return visit.fragment("node_rows.html", nodes=await own_nodes(visit), words=STATE_WORDS)


@page
async def register(visit: Visit) -> Response:
    """The command with the token is on the answer, and nowhere afterwards."""
    name = visit.form.get("name", "").strip()
    if not name:
        return await _nodes_page(visit, 422, "Give the machine a name, to know it again.")
    try:
        made = await visit.api("POST", "/nodes", json={"name": name})
    except ApiRefusal as refusal:
        if refusal.status == 401:
            raise
        return await _nodes_page(visit, refusal.status, _words(refusal), name)
    return _enrolment(visit, made, is_new=True)


@page
async def show_settings(visit: Visit) -> Response:
    """What its owner may change."""
    return visit.render("node_settings.html", **await shown_node(visit), most_parallel=MOST_PARALLEL)


@action(NODES)
async def change(visit: Visit) -> Response:
    """Its name, and how much at once."""
    parallel = visit.form.get("parallel", "")
    count = int(parallel) if _COUNT.fullmatch(parallel) else 0
    if not 0 < count <= MOST_PARALLEL:
        raise ApiRefusal(422, "validation_error", f"Say how many transfers at once, from 1 to {MOST_PARALLEL}.")
    wanted = {"name": visit.form.get("name", "").strip(), "parallel": count}
    try:
        await visit.api("PATCH", api_path(visit), json=wanted)
    except ApiRefusal as refusal:
        if refusal.status == 401:
            raise
        raise ApiRefusal(refusal.status, refusal.code, _words(refusal)) from None
    visit.say("The node is changed.")
    return visit.go(f"{page_path(visit)}/settings")


@action(NODES)
async def renew_enrolment(visit: Visit) -> Response:
    """For another machine, or after a loss."""
    return _enrolment(visit, await visit.api("POST", f"{api_path(visit)}/enrolment"), is_new=False)


@action(NODES)
async def revoke(visit: Visit) -> Response:
    """At once, when its name was typed."""
    node = await visit.api("GET", api_path(visit))
    if visit.form.get("name", "").strip() != node["name"].strip():
        raise ApiRefusal(422, "validation_error", f"Nothing was revoked: type the node’s name, “{node['name']}”.")
    await visit.api("DELETE", api_path(visit))
    visit.say(f"“{node['name']}” is revoked: its agent is refused from now on, and nobody can send to it.")
    return visit.go(NODES)


async def shown_node(visit: Visit) -> dict[str, Any]:
    """What every page of one node begins with."""
    node = await visit.api("GET", api_path(visit))
    return {
        "node": node,
        "words": STATE_WORDS,
        "is_mine": node["owner"] == visit.me["user"],
        "may_change": MAY_WRITE in visit.me["scopes"],
    }


def api_path(visit: Visit) -> str:
    """Of the node that the page's path names."""
    return f"/nodes/{visit.part('node_id')}"


def page_path(visit: Visit) -> str:
    """The same, of the portal."""
    return f"{NODES}/{visit.part('node_id')}"


def enrol_command(server: str, token: str, send: str, receive: str) -> str:
    """For any shell. The token comes by standard input, where no other user of the machine sees it."""
    words = ["stagecoach", "agent", "enrol", "--server", server, "--token", "-", "--send", send, "--receive", receive]
    return f"{shlex.join(words)} <<'END'\n{token}\nEND"


async def _nodes_page(visit: Visit, status: int = 200, complaint: str = "", name: str = "") -> Response:
    return visit.render(
        "nodes.html",
        status,
        nodes=await own_nodes(visit),
        grants=await held_grants(visit),
        words=STATE_WORDS,
        complaint=complaint,
        name=name,
        send=visit.form.get("send", SEND_DIRECTORY),
        receive=visit.form.get("receive", RECEIVE_DIRECTORY),
        may_change=MAY_WRITE in visit.me["scopes"],
    )


def _enrolment(visit: Visit, made: dict[str, Any], *, is_new: bool) -> Response:
    send = visit.form.get("send", "").strip() or SEND_DIRECTORY
    receive = visit.form.get("receive", "").strip() or RECEIVE_DIRECTORY
    command = enrol_command(visit.service_url, made["enrolmentToken"], send, receive)
    return visit.render("node_enrolment.html", 201, node=made, command=command, is_new=is_new)


def _words(refusal: ApiRefusal) -> str:
    """The shape of a name is told in a field's terms by the API, and here for people."""
    if refusal.code == "validation_error":
        return "A name has 1 to 100 characters, and none that cannot be seen."
    return refusal.message


routes = [
    Route(NODES, show_nodes, methods=["GET"]),
    Route(NODES, register, methods=["POST"]),
    Route(f"{NODES}/rows", show_rows),
    Route(f"{ONE}/settings", show_settings, methods=["GET"]),
    Route(f"{ONE}/settings", change, methods=["POST"]),
    Route(f"{ONE}/enrolment", renew_enrolment, methods=["POST"]),
    Route(f"{ONE}/revoke", revoke, methods=["POST"]),
]
