"""A transfer on its way through trouble: what its client does, and what must have become of it when all is over."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tests.e2e.chaos.gates import Gate
from tests.e2e.chaos.replicas import Replicas
from tests.e2e.testbed import Person, wait_until

OLD = b"the old content"
SMALL_BYTES = 100_000
PART_BYTES = 5 * 1024 * 1024
LARGE_BYTES = 2 * PART_BYTES + 12345
PATIENCE_SECONDS = 150.0
ENDS = {"done", "failed", "cancelled", "expired"}


@dataclass
class Trip:
    """One transfer: its gate, what its client was told, and its end. ``plan`` is upload, download, finish or cancel.

    ``finish``: an upload that its client lets the service complete. ``cancel``: one that is cancelled while it receives.
    """

    plan: str
    gate: Gate
    replicas: Replicas
    person: Person
    path: Path
    content: bytes
    system: str
    is_patient: bool = False
    """Its client begins again, with the same key, when it is told that something is away."""
    begun: dict[str, Any] | None = None
    refusals: list[str] = field(default_factory=list)
    is_fetched: bool = False
    trouble: BaseException | None = None
    state: str = ""
    code: str | None = None
    thread: threading.Thread | None = None

    def __str__(self) -> str:
        return f"{self.plan}, {self.gate} ({self.gate.transfer_id})"

    # --- the client's side, in a thread of its own

    def start(self) -> None:
        self.thread = threading.Thread(target=self._run, name=str(self), daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._go()
        except Exception as error:
            self.trouble = error

    def _go(self) -> None:
        self._begin()
        if self.begun is None:
            return
        if self.plan == "upload":
            self._put_parts()
            if self.gate.point is None:
                self.gate.reached.set()
                self.gate.opened.wait(PATIENCE_SECONDS)
            self._complete()
        elif self.plan == "finish":
            self._put_parts()
            self._ask("POST", f"/transfers/{self.id}/finish")
        elif self.plan == "cancel":
            self._ask("DELETE", f"/transfers/{self.id}")
        elif self.plan == "download":
            self._fetch()

    @property
    def id(self) -> str:
        assert self.begun is not None
        return str(self.begun["transferId"])

    @property
    def is_upload(self) -> bool:
        return self.plan != "download"

    def _begin(self) -> None:
        directives = {"transferMethod": "s3", **({"fileSize": len(self.content)} if self.is_upload else {})}
        body = {"path": str(self.path), "transferDirectives": directives}
        verb = "upload" if self.is_upload else "download"
        headers = {"Idempotency-Key": f"{self.path.name}-{id(self)}"}
        where = f"/filesystem/{self.system}/transfer/{verb}"
        answer = self._ask("POST", where, json=body, headers=headers)
        while self.is_patient and answer.status_code == 503:
            time.sleep(0.5)
            answer = self._ask("POST", where, json=body, headers=headers)
        if answer.status_code == 201:
            self.begun = answer.json()
            # A client that got no answer and asked again may have been given another transfer than the one at the gate.
            if self.gate.transfer_id == self.id:
                self.gate.job_id = self.begun["transferJob"]["jobId"]
        else:
            self.refusals.append(f"{answer.status_code} {answer.json().get('code')}")

    def _put_parts(self) -> None:
        assert self.begun is not None
        directives = self.begun["transferDirectives"]
        size = directives["maxPartSize"]
        self._etags = []
        # None where a request that was sent again is answered with a transfer that has ended meanwhile.
        for number, url in enumerate(directives.get("partsUploadUrls") or ()):
            answer = self._send("PUT", url, content=self.content[number * size : (number + 1) * size])
            if answer.status_code != 200:  # a store that was killed may have forgotten the upload
                self.refusals.append(f"part {answer.status_code}")
                return
            self._etags.append(answer.headers["ETag"])

    def _complete(self) -> None:
        assert self.begun is not None
        self.gate.counts = True
        if not self._etags:
            return
        parts = "".join(f"<Part><ETag>{etag}</ETag><PartNumber>{n}</PartNumber></Part>" for n, etag in enumerate(self._etags, 1))
        body = f'<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{parts}</CompleteMultipartUpload>'
        answer = self._send("POST", self.begun["transferDirectives"]["completeUploadUrl"], content=body)
        if answer.status_code != 200:
            self.refusals.append(f"complete {answer.status_code}")

    def _fetch(self) -> None:
        assert self.begun is not None
        if self._until({"staged", *ENDS}) != "staged":
            return
        if self.gate.point is None:
            self.gate.reached.set()
            self.gate.opened.wait(PATIENCE_SECONDS)
        answer = self._send("GET", self.begun["transferDirectives"]["downloadUrl"])
        assert answer.content == self.content, f"{self}: {answer.status_code}, {len(answer.content)} bytes"
        self.is_fetched = True
        self.gate.counts = True
        self._ask("POST", f"/transfers/{self.id}/finish")

    def _until(self, states: set[str]) -> str:
        def look() -> str:
            state = str(self._ask("GET", f"/transfers/{self.id}").json()["state"])
            return state if state in states else ""

        return wait_until(look, PATIENCE_SECONDS, f"{self} reaches one of {sorted(states)}", pause=0.3)

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One of the replicas, again and again while there is no answer. 5xx are answers where they mean something."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            for replica in self.replicas.apis:
                with contextlib.suppress(httpx.TransportError):
                    answer = self.person.http.request(method, replica.url + path, timeout=90, **more)
                    if is_to_come_again(answer):
                        time.sleep(min(int(answer.headers["Retry-After"]), 2))
                    elif answer.status_code < 500 or "/filesystem/" in path:
                        return answer
            assert time.monotonic() < deadline, f"{self}: no answer to {method} {path}"
            time.sleep(0.2)

    def _send(self, method: str, url: str, **more: Any) -> httpx.Response:
        """To the store, straight, as any client does: again while it is away."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = self.replicas.testbed.store.request(method, url, **more)
                if answer.status_code < 500 or time.monotonic() > deadline:
                    return answer
            assert time.monotonic() < deadline, f"{self}: the store does not answer"
            time.sleep(0.2)

    # --- the end, as an onlooker sees it

    def transfer_ids(self) -> set[str]:
        """All that were made for this trip."""
        return {each for each in (self.gate.transfer_id, self.begun and self.id) if each}

    def look(self) -> bool:
        """Whether its client is through and all transfers that were made for it have ended."""
        assert self.thread is not None
        if self.thread.is_alive():
            return False
        ends = []
        for transfer_id in self.transfer_ids():
            answer = self._ask("GET", f"/transfers/{transfer_id}")
            if answer.status_code == 404 and transfer_id != (self.begun and self.id):
                continue  # cut off before its row was written
            shown = answer.json()
            if shown["state"] not in ENDS:
                return False
            ends.append(shown)
            if transfer_id == (self.begun and self.id) or self.begun is None:
                self.state, self.code = shown["state"], shown.get("code")
            assert shown["state"] == "done" or shown.get("reason"), shown
            assert shown["state"] != "failed" or shown.get("code"), shown
        if not ends:
            self.state = "refused"
        return True

    def check(self) -> None:
        """``done`` with equal bytes, or not done and the old target whole. Nothing in between."""
        if self.trouble is not None:
            raise self.trouble
        assert self.state, self
        found = self.path.read_bytes()
        if not self.is_upload:
            assert digest(found) == digest(self.content), f"{self}: the source was touched"
            assert self.state != "done" or self.is_fetched, self
        elif self.state == "done":
            assert digest(found) == digest(self.content), f"{self}: {len(found)} bytes"
        else:
            assert found == OLD, f"{self} ended {self.state}, {len(found)} bytes in the old target's place"
        if self.plan == "cancel" and self.begun is not None:
            assert self.state == "cancelled", f"{self} ended {self.state}"

    @property
    def outcome(self) -> str:
        return self.state + (f" ({self.code})" if self.code else "") + (f" [{', '.join(self.refusals)}]" if self.refusals else "")


def is_to_come_again(answer: httpx.Response) -> bool:
    """Too many at once, or the same request, sent before and cut off, is still being carried out."""
    return answer.status_code == 429 or (answer.status_code == 409 and answer.json()["code"] == "request_under_way")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
