"""The service as an agent sees it: one node, its queue of commands, and everything that can go wrong between the two."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from stagecoach.wire.agent import (
    EndedReport,
    Enrolled,
    EnrolRequest,
    PollAnswer,
    PollRequest,
    ProgressAnswer,
    ProgressReport,
    StartedReport,
)

TOKEN = "sce_" + "enrolment-token-of-the-tests-0123456789"
CREDENTIAL = "scn_" + "credential-of-the-tests-0123456789-abc"
LOOK_SECONDS = 0.01
# These do not count against what a node's owner lets run at once.
BESIDE = frozenset({"receive", "place", "discard"})


@dataclass
class QueuedCommand:
    """``ticket_url`` is signed when the command is delivered; ``secret`` has ``accessKeyId`` and ``secretAccessKey``."""

    id: str
    kind: str = "move"
    spec: dict[str, Any] = field(default_factory=dict)
    transfer_id: str | None = None
    ticket_url: Callable[[], str] | None = None
    ticket_seconds: int | None = None
    """None: it is not told, as by a service of before, and no other address is given."""
    secret: dict[str, str] | None = None
    attempt: int = 0
    state: str = "pending"
    cancel_asked: bool = False
    starts: list[StartedReport] = field(default_factory=list)
    ends: list[EndedReport] = field(default_factory=list)
    progress: list[ProgressReport] = field(default_factory=list)
    bounds: ProgressAnswer | None = None
    """Answered to reports of progress; None: nothing is, as by a service of before."""

    @property
    def ending(self) -> EndedReport:
        assert self.state == "ended", f"{self.id} is {self.state}"
        return self.ends[-1]


class NodeService:
    """Used from the thread of its server and from that of the test."""

    def __init__(self) -> None:
        self.name = "lab one"
        self.parallel = 1
        self.poll_seconds = 20
        self.lease_seconds = 60
        self.commands: dict[str, QueuedCommand] = {}
        self.enrolments: list[EnrolRequest] = []
        self.polls: list[PollRequest] = []
        self.refused = 0
        self.is_away = False
        self.is_revoked = False
        self.rename_to: str | None = None
        self.lost: dict[str, int] = {}
        """How many answers to ``enrol``, ``poll``, ``started`` or ``ended`` do not arrive; the request does."""
        self.unknown: set[str] = set()
        self.again: set[str] = set()
        """Commands under way that are delivered once more."""
        self.app = FastAPI()
        for route in ("/agent/enrol", "/agent/poll", "/agent/commands/{command_id}/{report}"):
            self.app.add_api_route(route, self._answer, methods=["POST"])

    def queue(self, command_id: str, **more: Any) -> QueuedCommand:
        self.commands[command_id] = QueuedCommand(command_id, **more)
        return self.commands[command_id]

    @contextmanager
    def serving(self, port: int = 0) -> Iterator[str]:
        """On a real port, in a thread of its own; gives the address."""
        server = uvicorn.Server(uvicorn.Config(self.app, port=port, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            until(lambda: server.started)
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            self.is_away = True  # whoever waits for an answer gets one
            server.should_exit = True
            thread.join(20)

    async def _answer(self, request: Request) -> Response:
        *_, what = request.url.path.split("/")
        body = await request.json()
        if self.is_away:
            self.refused += 1
            return Response("<html>Bad gateway</html>", 502)
        if what == "enrol":
            answer = self._enrol(EnrolRequest.model_validate(body))
        elif request.headers.get("Authorization") != f"Bearer {CREDENTIAL}" or self.is_revoked:
            answer = problem(401, "credential_revoked", "The node was revoked.")
        elif what == "poll":
            answer = await self._poll(PollRequest.model_validate(body))
        else:
            answer = self._report(request.path_params["command_id"], what, body)
        if self.lost.get(what, 0) > 0:
            self.lost[what] -= 1
            return Response("", 504)
        return answer

    def _enrol(self, request: EnrolRequest) -> Response:
        if request.token != TOKEN or (self.enrolments and self.enrolments[0].instance_id != request.instance_id):
            return problem(401, "enrolment_token_refused", "This token was used already, or never given.")
        self.enrolments.append(request)
        return shaped(Enrolled(node_id="n0de", name=self.name, credential=CREDENTIAL, poll_seconds=self.poll_seconds))

    async def _poll(self, request: PollRequest) -> Response:
        self.polls.append(request)
        deadline = time.monotonic() + request.wait_seconds
        while True:
            answer = self._due(request)
            told = answer.commands or answer.ticket_urls or answer.cancel or answer.unknown or answer.rename_to
            if told or self.is_revoked or self.is_away or time.monotonic() > deadline:
                return shaped(answer) if not self.is_revoked else problem(401, "credential_revoked", "The node was revoked.")
            await asyncio.sleep(LOOK_SECONDS)

    def _due(self, request: PollRequest) -> PollAnswer:
        under_way = [one for one in self.commands.values() if one.state in {"delivered", "running"}]
        commands, active = [], sum(1 for one in under_way if one.kind not in BESIDE)
        for one in [command for command in self.commands.values() if command.id not in self.unknown]:
            is_lost = one.state in {"delivered", "running"} and one.id not in request.running
            is_free = one.kind in BESIDE or active < self.parallel
            is_next = one.state == "pending" and is_free and request.capacity > len(commands)
            if is_lost or is_next or (one.id in self.again and one.id in request.running):
                self.again.discard(one.id)
                active += is_next and one.kind not in BESIDE
                one.attempt += 1
                one.state = "delivered" if one.state == "pending" else one.state
                url = None if one.ticket_url is None else one.ticket_url()
                more = {
                    "transferId": one.transfer_id,
                    "spec": one.spec,
                    "ticketUrl": url,
                    "ticketSeconds": one.ticket_seconds,
                    "secret": one.secret,
                    "fromTheFuture": 1,
                }
                commands.append({"id": one.id, "kind": one.kind, "attempt": one.attempt, **more})
        cancel = [one.id for one in self.commands.values() if one.cancel_asked and one.state in {"delivered", "running"}]
        unknown = [known for known in request.running if known in self.unknown or known not in self.commands]
        rename_to, self.rename_to = self.rename_to, None
        renewed = [
            {"id": one.id, "ticketUrl": one.ticket_url(), "ticketSeconds": one.ticket_seconds}
            for one in under_way
            if one.id in request.expiring and one.ticket_url is not None and one.ticket_seconds is not None
        ]
        document = {"commands": commands, "cancel": cancel, "unknown": unknown, "renameTo": rename_to}
        document |= {"ticketUrls": renewed}
        return PollAnswer.model_validate({**document, "leaseSeconds": self.lease_seconds})

    def _report(self, command_id: str, what: str, body: Any) -> Response:
        command = self.commands.get(command_id)
        if command is None or command_id in self.unknown:
            return problem(404, "command_not_found", "There is no such command.")
        if what == "started":
            command.starts.append(StartedReport.model_validate(body))
            command.state = "running" if command.state == "delivered" else command.state
        elif what == "progress":
            if command.state != "running":
                return problem(409, "wrong_state", "The command does not run.")
            command.progress.append(ProgressReport.model_validate(body))
            if command.bounds is not None:
                return shaped(command.bounds)
        else:
            command.ends.append(EndedReport.model_validate(body))
            command.state = "ended"
        return Response(status_code=204)


def shaped(answer: Enrolled | PollAnswer | ProgressAnswer) -> Response:
    return JSONResponse(answer.model_dump(mode="json", by_alias=True))


def problem(status: int, code: str, message: str) -> Response:
    return JSONResponse({"errorType": "error", "code": code, "message": message}, status)


def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Waits for it; fails when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(LOOK_SECONDS)
