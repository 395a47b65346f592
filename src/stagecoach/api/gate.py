"""Stands before everything: no token, no reading; and no body larger, or slower, than any that we understand.

A plain ASGI layer, because the framework reads and parses a body before it asks who sent it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from contextlib import suppress

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stagecoach.api.guard import DOCUMENT_PATHS
from stagecoach.api.problems import BodyAmbiguous, BodyTooLarge, BodyTooSlow, problem_answer
from stagecoach.api.request_rate import RequestRate, address_of
from stagecoach.core.errors import NotAuthenticated, StagecoachError, TooManyRequests

# The largest that we understand: a SHA-256 for each of 10,000 parts.
MAX_BODY_BYTES = 768 * 1024
MAX_HEARD_OUT_BYTES = 8 * 1024 * 1024
MAX_HEARD_OUT_SECONDS = 3.0
HEALTH_PATH = "/healthz"
UPLOAD_PATH = re.compile(r"/filesystem/[^/]+/ops/upload")
# Whoever uploads a file directly may be as slow as this, and no slower.
SLOWEST_BYTES_PER_SECOND = 64 * 1024


class Gate:
    """Wraps the application; ``open_routes`` (method and path) need no token. Who comes without one is counted by address;
    only asking for health is free, since a balancer that is refused would take the service for dead."""

    def __init__(
        self,
        app: ASGIApp,
        rate: RequestRate,
        open_routes: Collection[tuple[str, str]],
        body_timeout_seconds: float,
        max_upload_bytes: int,
    ) -> None:
        self._app = app
        self._rate = rate
        self._open_routes = open_routes
        self._body_timeout_seconds = body_timeout_seconds
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if "content-length" in request.headers and "transfer-encoding" in request.headers:
            # Whoever is in front may have read the one where we read the other: what follows may be somebody else's request.
            await problem_answer(request, BodyAmbiguous())(scope, receive, send)
            return
        if (refusal := self._refusal(request)) is not None:
            await problem_answer(request, refusal)(scope, receive, send)
            return
        max_bytes, timeout_seconds = self._bounds(request)
        announced = request.headers.get("content-length", "0")
        if announced.isascii() and announced.isdigit() and int(announced[:20]) > max_bytes:
            await _hear_out(receive, int(announced[:20]))
            await problem_answer(request, BodyTooLarge(max_bytes))(scope, receive, send)
            return
        body = _Body(receive, send, max_bytes, timeout_seconds)
        await self._app(scope, body.receive, body.send)

    def _bounds(self, request: Request) -> tuple[int, float]:
        """Bytes and seconds of a body: those of an uploaded file are another matter."""
        if request.method == "POST" and UPLOAD_PATH.fullmatch(request.scope["path"]):
            return self._max_upload_bytes, self._body_timeout_seconds + self._max_upload_bytes / SLOWEST_BYTES_PER_SECOND
        return MAX_BODY_BYTES, self._body_timeout_seconds

    def _refusal(self, request: Request) -> StagecoachError | None:
        path = request.scope["path"]
        has_token = request.headers.get("authorization", "").lower().startswith("bearer ")
        # Nobody looks at a token that is brought to the document of the API.
        if path == HEALTH_PATH or (has_token and path not in DOCUMENT_PATHS):
            return None
        try:
            self._rate.count_stranger(address_of(request))
        except TooManyRequests as error:
            return error
        return (
            None
            if (request.method, path) in self._open_routes
            else NotAuthenticated("Send a token: Authorization: Bearer <token>.")
        )


async def _hear_out(receive: Receive, announced_bytes: int) -> None:
    """Drop what is only a little too large before it is refused: who still sends when the line is closed never reads why."""
    if announced_bytes > MAX_HEARD_OUT_BYTES:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(MAX_HEARD_OUT_SECONDS):
            while (await receive()).get("more_body", False):
                pass


class _Body:
    """The way of one request's body to the application: counted, and timed from when it is first asked for."""

    def __init__(self, receive: Receive, send: Send, max_bytes: int, timeout_seconds: float) -> None:
        self._receive = receive
        self._send = send
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds
        self._deadline: float | None = None
        self._counted = 0
        self._is_whole = False
        self._is_answered = False

    async def send(self, message: Message) -> None:
        """To the client."""
        self._is_answered = True
        await self._send(message)

    async def receive(self) -> Message:
        """To the application. Afterwards it waits here for the client to go, as long as that takes."""
        if self._is_whole:
            return await self._receive()
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._timeout_seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            return self._refuse(BodyTooSlow(self._timeout_seconds))
        self._counted += len(message.get("body", b""))
        if self._counted > self._max_bytes:
            return self._refuse(BodyTooLarge(self._max_bytes))
        self._is_whole = not message.get("more_body", False)
        return message

    def _refuse(self, error: BodyTooLarge | BodyTooSlow) -> Message:
        if not self._is_answered:
            raise error.as_http()
        # Nobody reads it for what it says; who still sends it is as good as gone.
        return {"type": "http.disconnect"}
