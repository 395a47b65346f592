"""An agent of a node: speaks the service's protocol over HTTP, and moves data with the tickets' URLs alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
from tests.fakes.systems import put_by_urls

Follow = Callable[[str, str, bytes], tuple[int, Mapping[str, str], bytes]]


class NodeAgent:
    """``receive`` and ``send`` are its two directories, by path; ``has`` are the commands that it was given and has not ended."""

    def __init__(self, client: httpx.AsyncClient, follow: Follow | None = None, instance_id: str = "instance00000001") -> None:
        self._client = client
        self._follow = follow
        self.instance_id = instance_id
        self.credential = ""
        self.node_id = ""
        self.receive: dict[str, bytes] = {}
        self.send: dict[str, bytes] = {}
        self.has: dict[str, dict[str, Any]] = {}

    async def ask(self, path: str, **body: Any) -> httpx.Response:
        """A question with its credential."""
        headers = {"Authorization": f"Bearer {self.credential}"}
        return await self._client.post(f"/agent/{path}", json={"instanceId": self.instance_id, **body}, headers=headers)

    async def try_enrol(self, token: str) -> httpx.Response:
        """Whatever the answer is."""
        body = {"token": token, "instanceId": self.instance_id, "version": "1.2", "platform": "Linux x86_64"}
        return await self._client.post("/agent/enrol", json=body)

    async def enrol(self, token: str) -> dict[str, Any]:
        """It has its credential."""
        answer = await self.try_enrol(token)
        assert answer.status_code == 200, answer.text
        enrolled: dict[str, Any] = answer.json()
        self.credential, self.node_id = enrolled["credential"], enrolled["nodeId"]
        return enrolled

    async def try_poll(self, *, capacity: int = 1, wait_seconds: int = 0, **more: Any) -> httpx.Response:
        """Whatever the answer is."""
        said = {"version": "1.2", "platform": "Linux x86_64", "running": sorted(self.has), **more}
        return await self.ask("poll", capacity=capacity, waitSeconds=wait_seconds, **said)

    async def poll(self, *, capacity: int = 1, wait_seconds: int = 0, **more: Any) -> dict[str, Any]:
        """What it is told; what it is given it has from now on."""
        response = await self.try_poll(capacity=capacity, wait_seconds=wait_seconds, **more)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        self.has |= {command["id"]: command for command in answer["commands"]}
        return answer

    async def started(self, command_id: str, attempt: int = 1) -> httpx.Response:
        """It has begun a command."""
        return await self.ask(f"commands/{command_id}/started", attempt=attempt)

    async def ended(self, command_id: str, attempt: int = 1, **said: Any) -> httpx.Response:
        """It has ended a command."""
        self.has.pop(command_id, None)
        return await self.ask(f"commands/{command_id}/ended", attempt=attempt, **{"exitCode": 0, **said})

    async def work(self, **options: Any) -> list[str]:
        """One poll, and all that it gives is carried out; the ids."""
        answer = await self.poll(**options)
        for command_id in [*answer["cancel"], *answer["unknown"]]:
            await self.ended(command_id, exitCode=1, code="cancelled")
        for command in answer["commands"]:
            assert (await self.started(command["id"], command["attempt"])).status_code == 204
            exit_code = self.move(command) if command["kind"] == "move" else 0
            ended = await self.ended(command["id"], command["attempt"], exitCode=exit_code)
            assert ended.status_code == 204, ended.text
        return [command["id"] for command in answer["commands"]]

    def ticket(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """As the mover gets it."""
        assert self._follow is not None
        status, _, body = self._follow("GET", command["ticketUrl"], b"")
        assert status == 200
        found: dict[str, Any] = json.loads(body)
        return found

    def move(self, command: Mapping[str, Any]) -> int:
        """What the mover does; its exit code."""
        ticket = self.ticket(command)
        assert ticket["kind"] == command["spec"]["direction"]
        path = base64.b64decode(ticket["path_base64"]).decode()
        if ticket["kind"] == "fetch":
            assert ticket["place"] == "receive"
            moved, code = self._fetch(ticket, path)
        else:
            assert ticket["place"] == "send"
            moved, code = self._put(ticket, path)
        self.tell(ticket, moved, code)
        return 0 if moved is not None else 1

    def tell(self, ticket: Mapping[str, Any], moved: int | None, code: str | None) -> None:
        """The receipt."""
        assert self._follow is not None
        receipt = {
            "version": 1,
            "transfer_id": ticket["transfer_id"],
            "attempt": ticket["attempt"],
            "kind": ticket["kind"],
            "ok": moved is not None,
            "code": code,
            "message": "Whole." if moved is not None else f"The mover says {code}.",
            "size_bytes": moved or 0,
            "bytes_moved": moved or 0,
            "bytes_resumed": 0,
            "proved": [{"how": "size", "value": str(moved)}] if moved is not None else [],
        }
        self._follow("PUT", ticket["receipt_url"], json.dumps(receipt).encode())

    def _fetch(self, ticket: Mapping[str, Any], path: str) -> tuple[int | None, str | None]:
        assert self._follow is not None
        status, _, body = self._follow("GET", ticket["object"]["get_url"], b"")
        if status != 200 or len(body) != ticket["size_bytes"]:
            return None, "store_refused"
        self.receive[path] = body
        return len(body), None

    def _put(self, ticket: Mapping[str, Any], path: str) -> tuple[int | None, str | None]:
        assert self._follow is not None
        assert ticket["size_bytes"] is None
        content = self.send.get(path)
        if content is None:
            return None, "source_missing"
        urls, least = ticket["upload"], ticket["part_size_bytes"]
        part_size = least * max(1, -(-len(content) // (least * len(urls["part_urls"]))))
        count = max(1, -(-len(content) // part_size))
        if not put_by_urls(self._follow, content, part_size, urls["part_urls"][:count], urls["complete_url"]):
            return None, "store_refused"
        return len(content), None
