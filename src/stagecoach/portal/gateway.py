"""``/portal/api/…``: the API for the pages' own scripts, with the credential of the cookie.

It adds ``Authorization`` and passes everything on as it comes, streams included; only what scripts need gets through.
What changes anything needs the header ``X-CSRF-Token`` with the value of ``<main data-csrf>``.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from stagecoach.portal.layer import Slot
from stagecoach.portal.same_site import HEADER, SAFE_METHODS, ForeignRequest, require_own_page, require_same_origin
from stagecoach.wire.shapes import Problem

PREFIX = "/portal/api"
_TRANSFER, _SYSTEM = r"/transfers/[A-Za-z0-9_-]{1,64}", r"/filesystem/[A-Za-z0-9._:-]{1,64}"
ALLOWED = tuple(
    (method, re.compile(pattern))
    for method, pattern in (
        ("GET", "/status/systems"),
        ("GET", "/accounts/me"),
        ("GET", "/transfers"),
        ("GET", _TRANSFER),
        ("DELETE", _TRANSFER),
        ("GET", _TRANSFER + "/(parts|events|download-url)"),
        ("POST", _TRANSFER + "/(finish|retry)"),
        ("POST", _SYSTEM + "/transfer/(upload|download)"),
        ("GET", _SYSTEM + "/ops/(ls|stat)"),
        ("POST", _SYSTEM + "/ops/mkdir"),
    )
)
# Of a request's headers, what the API reads; neither cookies nor a credential from elsewhere.
_PASSED = frozenset(
    b"accept content-length content-type host idempotency-key last-event-id transfer-encoding user-agent x-request-id".split()
)


def is_allowed(method: str, path: str) -> bool:
    """Whether a script may ask this of the API."""
    return any(method == allowed and pattern.fullmatch(path) for allowed, pattern in ALLOWED)


class Gateway:
    """An ASGI application."""

    def __init__(self, api: ASGIApp, own_url: str | None) -> None:
        self._api = api
        self._own_url = own_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        request = Request(scope)
        slot: Slot = request.state.slot
        path = scope["path"].removeprefix(PREFIX)
        if not is_allowed(request.method, path):
            await _refusal(404, "route_not_found", "Scripts of the portal have no such way.")(scope, receive, send)
            return
        try:
            if request.method in SAFE_METHODS:
                require_same_origin(request, self._own_url)
            else:
                require_own_page(request, slot, self._own_url, request.headers.get(HEADER))
        except ForeignRequest as error:
            await _refusal(403, "foreign_request", str(error))(scope, receive, send)
            return
        if slot.session is None or slot.session.credential is None:
            await _refusal(401, "not_authenticated", "You are signed out; sign in again.")(scope, receive, send)
            return
        await self._api(forwarded(scope, path, slot.session.credential), receive, send)


def forwarded(scope: Scope, path: str, credential: str, query_string: bytes | None = None) -> Scope:
    """The same request, to another path of the API, by whom the credential names."""
    headers = [(name, value) for name, value in scope["headers"] if name in _PASSED - {b"x-request-id"}]
    headers += [(b"authorization", f"Bearer {credential}".encode()), (b"x-request-id", scope["state"]["request_id"].encode())]
    kept = {name: scope[name] for name in ("type", "asgi", "http_version", "method", "scheme") if name in scope}
    kept |= {name: scope.get(name) for name in ("server", "client")}
    return {
        **kept,
        "path": path,
        "raw_path": quote(path).encode(),
        "root_path": "",
        "query_string": scope["query_string"] if query_string is None else query_string,
        "headers": headers,
        "state": {},
    }


def _refusal(status: int, code: str, message: str) -> JSONResponse:
    problem = Problem(errorType="error", code=code, message=message)
    return JSONResponse(problem.model_dump(mode="json"), status_code=status)
