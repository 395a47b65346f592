"""Stands before everything: no token, no reading; and no body larger than any that we understand.

A plain ASGI layer, because the framework reads and parses a body before it asks who sent it.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stagecoach.api.problems import BodyTooLarge, problem_answer
from stagecoach.core.errors import NotAuthenticated

MAX_BODY_BYTES = 256 * 1024
OPEN_PATHS = frozenset({"/healthz", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"})


class Gate:
    """Wraps the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if scope["path"] not in OPEN_PATHS and not request.headers.get("authorization", "").lower().startswith("bearer "):
            refusal = problem_answer(request, NotAuthenticated("Send a token: Authorization: Bearer <token>."))
            await refusal(scope, receive, send)
            return
        announced = request.headers.get("content-length", "0")
        if announced.isascii() and announced.isdigit() and int(announced[:20]) > MAX_BODY_BYTES:
            await problem_answer(request, BodyTooLarge(MAX_BODY_BYTES))(scope, receive, send)
            return
        counted = 0

        async def counting() -> Message:
            nonlocal counted
            message = await receive()
            counted += len(message.get("body", b""))
            if counted > MAX_BODY_BYTES:
                raise BodyTooLarge(MAX_BODY_BYTES).as_http()
            return message

        await self._app(scope, counting, send)
