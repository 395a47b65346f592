"""A service's nodes and grants, answering as the real one does."""

from __future__ import annotations

import json
from typing import Any

import httpx

AT = "2030-01-01T00:00:00Z"
ARCHIVE, SCOPE = "01hzy0000000000000000000aa", "01hzy0000000000000000000bb"
OTHER_SCOPE, GRANT, CHECK = "01hzy0000000000000000000cc", "01hzy0000000000000000000dd", "01hzy0000000000000000000ee"
ENROLMENT_TOKEN, INVITATION_TOKEN = "sce_an-enrolment-token", "sci_an-invitation-token"
COMMAND = f"stagecoach agent enrol --server https://transfer.example.org --token {ENROLMENT_TOKEN}"


def node(node_id: str = ARCHIVE, name: str = "archive", owner: str = "alice", **more: Any) -> dict[str, Any]:
    shown = {"id": node_id, "containerId": node_id, "system": f"node:{node_id}", "name": name, "owner": owner}
    return {**shown, "state": "online", "lastSeen": AT, **more}


def held(node_id: str, name: str, owner: str) -> dict[str, Any]:
    names = {"nodeId": node_id, "containerId": node_id, "system": f"node:{node_id}", "nodeName": name, "nodeOwner": owner}
    return {"id": GRANT, **names, "folder": "/in", "maxBytes": 2048, "usedBytes": 1024, "expiresAt": None}


def grant(user: str | None = "bob", **more: Any) -> dict[str, Any]:
    shown = {"id": GRANT, "nodeId": ARCHIVE, "user": user, "folder": "/", "maxBytes": None, "usedBytes": 0}
    return {**shown, "createdAt": AT, "expiresAt": None, "invitationExpiresAt": None, "redeemedAt": None, "label": None, **more}


def command(state: str = "done", **more: Any) -> dict[str, Any]:
    shown = {"id": CHECK, "number": 3, "kind": "check_network", "state": state, "owner": "alice", "cancelAsked": False}
    return {**shown, "createdAt": AT, "attempt": 1, **more}


class FakeNodes:
    """``told`` is what came with the last change; ``own``, ``held``, ``commands`` are what there is."""

    def __init__(self) -> None:
        free = {"receive": 2 * 1024**3, "send": None}
        self.own = [node(version="1.0", freeBytes=free, health=["The send directory is not there."], parallel=2)]
        self.held = [held(SCOPE, "scope", "bob")]
        self.grants = [grant(), grant(None, invitationExpiresAt=AT, label="a\x1b[2Jguest")]
        self.commands = [command()]
        self.told: tuple[str, Any] | None = None

    def answers(self, request: httpx.Request) -> httpx.Response | None:
        """None for what is no question about nodes."""
        path, method = request.url.path, request.method
        if path == "/grants":
            return httpx.Response(200, json={"grants": self.held})
        if path == "/nodes" and method == "GET":
            return httpx.Response(200, json={"nodes": self.own})
        if path == "/nodes" or path == "/invitations/redeem" or (path.startswith("/nodes/") and method != "GET"):
            self.told = (f"{method} {path}", json.loads(request.content) if request.content else None)
        if path == "/invitations/redeem":
            return httpx.Response(200, json=self.held[0])
        if path == "/nodes":
            token = {"enrolmentToken": ENROLMENT_TOKEN, "enrolmentExpiresAt": AT, "command": COMMAND}
            return httpx.Response(201, json={**node(state="waiting", lastSeen=None), **token})
        if not path.startswith("/nodes/"):
            return None
        node_id, _, below = path.removeprefix("/nodes/").partition("/")
        known = {each["id"]: each for each in self.own} | {each["nodeId"]: self._sendable(each) for each in self.held}
        if node_id not in known:
            problem = {"errorType": "error", "code": "node_not_found", "message": "There is no node with this id."}
            return httpx.Response(404, json=problem)
        return self._of_node(known[node_id], method, below)

    @staticmethod
    def _sendable(each: dict[str, Any]) -> dict[str, Any]:
        return node(each["nodeId"], each["nodeName"], each["nodeOwner"])

    def _of_node(self, shown: dict[str, Any], method: str, below: str) -> httpx.Response:
        invitation = {"token": INVITATION_TOKEN, "url": f"https://transfer.example.org/invitation#{INVITATION_TOKEN}"}
        answers: dict[str, Any] = {
            "GET ": shown,
            "PATCH ": {**shown, **(self.told[1] or {} if self.told else {})},
            "GET commands": {"commands": self.commands, "next": "3"},
            "POST commands": self.commands[0],
            "POST sends": command("pending", kind="send_to_store", sourcePath="/run1"),
            "GET grants": {"grants": self.grants},
            "POST grants": self.grants[0],
            "POST invitations": {**grant(None, invitationExpiresAt=AT), **invitation},
        }
        if method == "DELETE":
            return httpx.Response(204)
        if method == "GET" and below.startswith("commands/"):
            return httpx.Response(200, json=self.commands[0] if len(self.commands) == 1 else self.commands.pop(0))
        return httpx.Response(201 if method == "POST" else 200, json=answers[f"{method} {below}"])
