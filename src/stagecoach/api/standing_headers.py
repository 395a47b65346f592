"""The headers that every answer has: FirecREST's, the request's id, and what tells browsers to be careful."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# FirecREST's client reads this version from every answer and switches wire forms by it.
FIRECREST_VERSION = "2.6.0"
MAX_ID_LENGTH = 128
HSTS_SECONDS = 365 * 24 * 3600


class StandingHeaders:
    """Outermost of the layers, so that refusals have them too. A header that a route has set itself stays."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = _printable(Headers(scope=scope).get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = given or secrets.token_hex(16)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in standing_headers(scope).items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)


def standing_headers(scope: Scope) -> Mapping[str, str]:
    """For the answer to this request."""
    headers = {
        "f7t-appversion": FIRECREST_VERSION,
        "f7t-timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "X-Request-Id": scope.get("state", {}).get("request_id", ""),
    }
    if correlation_id := _printable(Headers(scope=scope).get("x-correlation-id")):
        headers["X-Correlation-Id"] = correlation_id
    if scope.get("scheme") == "https":
        headers["Strict-Transport-Security"] = f"max-age={HSTS_SECONDS}"
    return {name: value for name, value in headers.items() if value}


def _printable(value: str | None) -> str | None:
    is_fit = value and len(value) <= MAX_ID_LENGTH and value.isascii() and value.isprintable()
    return value if is_fit else None
