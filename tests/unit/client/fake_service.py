"""A service of one transfer, answering as the real one does, before a store that can fail."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.unit.client.fake_nodes import FakeNodes
from tests.unit.mover.faulty_store import PART, FaultyStore, md5

from stagecoach.client.asking import Clock

URL, TOKEN, ID = "https://transfer.example.org", "s3cret-t0ken-of-alice", "01hzy0000000000000000000ab"
AT = "2030-01-01T00:00:00Z"


def problem(status: int, code: str, message: str = "It says why.", **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"errorType": "error", "code": code, "message": message}, headers=headers)


def listed(name: str, **changes: str | None) -> dict[str, Any]:
    """A line of a listing."""
    file = {"name": name, "type": "-", "linkTarget": None, "user": "alice", "group": "users", "permissions": "rw-r--r--"}
    return {**file, "lastModified": "2030-01-01T00:00:00", "size": "5", **changes}


class Patience:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)

    def clock(self) -> Clock:
        return Clock(lambda: self.now, self.sleep, lambda: 1.0)


@dataclass
class FakeService:
    """``answers_first`` are given before anything else, ``asked`` is what was asked, ``keys`` are those of
    beginnings. ``names_directory``: what downloads ask for is one. ``is_repeated``: the upload was begun and completed before."""

    store: FaultyStore
    size_bytes: int | None = 0
    direction: str = "upload"
    state: str = "receiving"
    code: str | None = None
    reason: str | None = None
    retry_until: str | None = None
    archive: str | None = None
    names_directory: bool = False
    answers_first: list[httpx.Response | Exception] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    is_repeated: bool = False
    begun_with: dict[str, Any] = field(default_factory=dict)
    finished_with: dict[str, Any] | None = None
    takes_digests: bool = True
    """With the end of an upload: not where the staging job has its ticket already."""
    loses_answer_to_finish: bool = False
    listing: list[dict[str, Any]] = field(default_factory=list)
    listed_with: dict[str, str] | None = None
    source: dict[str, Any] | None = None
    destination: dict[str, Any] | None = None
    looks_until_done: int | None = None
    """How often a relay is looked at before it is done."""
    nodes: FakeNodes = field(default_factory=FakeNodes)

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        what = f"{request.method} {request.url.path}"
        self.asked.append(what)
        if "/transfer/" in request.url.path or what == "POST /transfers":
            self.keys.append(request.headers["Idempotency-Key"])
        if self.answers_first:
            first = self.answers_first.pop(0)
            if isinstance(first, Exception):
                raise first
            return first
        if request.url.path == "/auth/methods":
            # As a service of an earlier version.
            return problem(404, "route_not_found", "Not Found")
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return problem(401, "not_authenticated", "The token is not valid.")
        if (answered := self.nodes.answers(request)) is not None:
            return answered
        if request.url.path.endswith("/transfer/upload"):
            body = self.begun_with = json.loads(request.content)
            self.size_bytes, self.archive = body["transferDirectives"]["fileSize"], body.get("archive")
            if self.is_repeated:
                return self._begun({})
            return self._begun({"partsUploadUrls": list(self.part_urls().values()), "completeUploadUrl": self._complete_url()})
        if request.url.path.endswith("/transfer/download"):
            self.begun_with = json.loads(request.content)
            self.archive = self.begun_with.get("archive")
            if self.archive is None and self.names_directory:
                return problem(400, "not_a_file", "It is a directory.")
            if self.archive is not None and not self.names_directory:
                return problem(400, "not_a_directory", "It is a file.")
            self.direction, self.state = "download", "staged"
            self.size_bytes = len(self.store.objects["object"])
            return self._begun({"downloadUrl": self.store.url("object")})
        if what == "POST /transfers":
            return self._begin_relay(json.loads(request.content))
        if request.url.path == "/filesystem/alps/ops/ls":
            self.listed_with = dict(request.url.params)
            return httpx.Response(200, json={"output": self.listing})
        if request.url.path == "/transfers":
            return httpx.Response(200, json={"transfers": [self.view()], "next": None})
        if request.url.path.split("/")[2] != ID:
            return problem(404, "transfer_not_found", "There is no transfer with this id among yours.")
        return {
            f"GET /transfers/{ID}": self._show,
            f"DELETE /transfers/{ID}": self._cancel,
            f"POST /transfers/{ID}/retry": self._retry,
            f"POST /transfers/{ID}/stop": self._stop,
            f"GET /transfers/{ID}/parts": self._parts,
            f"POST /transfers/{ID}/finish": lambda: self._finish(json.loads(request.content)),
            f"GET /transfers/{ID}/download-url": self._download_url,
        }[what]()

    def view(self) -> dict[str, Any]:
        count = None if self.size_bytes is None else max(1, -(-self.size_bytes // PART))
        numbers = {"sizeBytes": self.size_bytes, "partSizeBytes": PART, "partCount": count}
        words = {
            "path": "/scratch/a.bin",
            "archive": self.archive,
            "state": self.state,
            "meaning": "A sentence.",
            "code": self.code,
            "reason": self.reason,
            "retryUntil": self.retry_until,
        }
        bytes_done = {"bytesStaged": 0, "bytesMoved": 0, "rateBytesPerSecond": 0.0, "createdAt": AT, "updatedAt": AT}
        whose = {"id": ID, "owner": "alice", "system": "alps", "direction": self.direction}
        if self.destination is not None:
            words |= {"path": self.destination["path"], "source": self.source, "destination": self.destination}
            whose["system"] = self.destination["system"]
        return {**whose, **numbers, **words, **bytes_done}

    def _begin_relay(self, body: dict[str, Any]) -> httpx.Response:
        self.begun_with, self.archive = body, body.get("archive")
        if self.archive is not None and not self.names_directory:
            return problem(400, "not_a_directory", "It is a file.")
        if self.archive is None and self.names_directory:
            return problem(400, "not_a_file", "It is a directory.")
        self.source, self.destination = body["source"], body["destination"]
        return httpx.Response(201, json={"transfer": self.view(), "upload": None, "downloadUrl": None, "transferState": None})

    def _legs(self) -> list[dict[str, Any]]:
        """Of a relay that has come half the way of each leg."""
        if self.source is None or self.destination is None:
            return []
        numbers = {"sizeBytes": self.size_bytes, "bytesMoved": 50, "rateBytesPerSecond": 1.0, "jobId": "8", "jobLog": "a word\n"}
        return [
            {"leg": leg, "transferId": ID, "state": "moving", **end, **numbers}
            for leg, end in (("source", self.source), ("destination", self.destination))
        ]

    def part_urls(self) -> dict[int, str]:
        count = max(1, -(-(self.size_bytes or 0) // PART))
        return {n: self.store.url("object", uploadId="u1", partNumber=n) for n in range(1, count + 1)}

    def _complete_url(self) -> str:
        return self.store.url("object", uploadId="u1")

    def _begun(self, directives: dict[str, Any]) -> httpx.Response:
        job = {"jobId": "7", "system": "alps", "workingDirectory": "/", "logs": {"outputLog": "/o", "errorLog": "/e"}}
        directives = {"transferMethod": "s3", "maxPartSize": PART, **directives}
        return httpx.Response(201, json={"transferId": ID, "transferJob": job, "transferDirectives": directives})

    def _show(self) -> httpx.Response:
        if self.looks_until_done is not None:
            self.looks_until_done -= 1
            self.state = "receiving" if self.looks_until_done > 0 else "done"
        history = [{"at": AT, "state": self.state, "message": "Begun."}]
        return httpx.Response(200, json={**self.view(), "legs": self._legs(), "history": history})

    def _cancel(self) -> httpx.Response:
        self.state = "cancelled"
        return httpx.Response(200, json=self.view())

    def _retry(self) -> httpx.Response:
        if self.state != "failed" or self.retry_until is None:
            return problem(409, "wrong_state", "Nothing is kept of this transfer; begin a new transfer.")
        self.state, self.retry_until = "queued" if self.direction == "download" else "receiving", None
        return httpx.Response(200, json=self.view())

    def _stop(self) -> httpx.Response:
        self.state, self.retry_until = "failed", "2031-01-01T00:00:00Z"
        return httpx.Response(200, json=self.view())

    def _parts(self) -> httpx.Response:
        if self.state != "receiving" or self.store.completed:
            return problem(409, "wrong_state", "The upload is already complete.")
        have = self.store.parts
        stored = [{"number": n, "sizeBytes": len(data), "etag": f'"{md5(data)}"'} for n, data in sorted(have.items())]
        missing = [
            {"number": n, "offsetBytes": (n - 1) * PART, "sizeBytes": PART, "url": url}
            for n, url in self.part_urls().items()
            if n not in have
        ]
        sizes = {"partSizeBytes": PART, "partCount": len(self.part_urls())}
        urls = {"missing": missing, "completeUploadUrl": self._complete_url()}
        return httpx.Response(200, json={"id": ID, **sizes, "stored": stored, **urls})

    def _finish(self, said: dict[str, Any]) -> httpx.Response:
        if self.state not in {"receiving", "staged", "done"} or ("partDigests" in said and not self.takes_digests):
            return problem(409, "wrong_state", f"The transfer is {self.state}.")
        with self.store.lock:
            if self.state == "receiving" and self.store.parts and not self.store.completed:
                if len(self.store.parts) < len(self.part_urls()):
                    return problem(409, "parts_missing", "Parts are missing.")
                self.store.keep("object", b"".join(data for _, data in sorted(self.store.parts.items())))
                self.store.completed += 1
        self.finished_with, self.state = said, "done"
        if self.loses_answer_to_finish:
            self.loses_answer_to_finish = False
            raise httpx.ReadError("lost")
        return httpx.Response(200, json=self.view())

    def _download_url(self) -> httpx.Response:
        url = self.store.url("object")
        return httpx.Response(200, json={"downloadUrl": url, "headUrl": url, "expiresAt": AT})
