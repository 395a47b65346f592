"""Turns every failure into one body. HTTP numbers live here and nowhere else."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import Match

from stagecoach.api.standing_headers import standing_headers
from stagecoach.core import errors
from stagecoach.wire.shapes import Problem

log = logging.getLogger(__name__)


class BodyTooLarge(errors.InvalidRequest):
    """More bytes than any request of ours has."""

    code = "body_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The request's body is larger than {limit_bytes} bytes.", data={"limit_bytes": limit_bytes})

    def as_http(self) -> HTTPException:
        """For where the framework reads the body: it lets no other exception through."""
        return HTTPException(413, self.message)


class BodyTooSlow(errors.InvalidRequest):
    """The rest of it may never come."""

    code = "body_too_slow"

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__(f"The request's body did not arrive within {timeout_seconds:g} s.")

    def as_http(self) -> HTTPException:
        """As :meth:`BodyTooLarge.as_http`."""
        return HTTPException(408, self.message)


class BodyAmbiguous(errors.InvalidRequest):
    """Two lengths of one body (RFC 9112, section 6.1)."""

    code = "body_ambiguous"

    def __init__(self) -> None:
        super().__init__("The request says twice how long its body is: Content-Length and Transfer-Encoding do not go together.")


STATUS: dict[type[errors.StagecoachError], int] = {
    BodyTooLarge: 413,
    BodyTooSlow: 408,
    errors.ListingTooLarge: 413,
    errors.FileTooLarge: 413,
    # FirecREST's client has a job do what got this.
    errors.OperationTooLong: 408,
    errors.KeyReused: 422,
    errors.InvalidRequest: 400,
    errors.TargetExists: 409,
    errors.TooManyRequests: 429,
    errors.NotAuthenticated: 401,
    errors.PermissionRefused: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Unavailable: 503,
    errors.StagecoachError: 500,
}
RETRY_AFTER_SECONDS = 10
# Preparing a transfer takes about so long.
UNDER_WAY_SECONDS = 1
# Of these the rest of the body may not be read, so nothing else can come on the same connection.
CLOSING = frozenset({BodyAmbiguous.code, BodyTooLarge.code, BodyTooSlow.code, errors.FileTooLarge.code})

PROBLEM_ANSWERS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "The caller can mend it; the message says how."},
    "5XX": {"model": Problem, "description": "Something Stagecoach depends on does not answer; try again later."},
}


NOT_HTTP = Problem(
    errorType="validation", code="not_http", message="What came is no HTTP/1.1 request that is understood."
).model_dump(mode="json")
_FRAMEWORK_CODES = {
    404: "route_not_found",
    405: "method_not_allowed",
    408: BodyTooSlow.code,
    413: BodyTooLarge.code,
}


def status_of(error: errors.StagecoachError) -> int:
    """The HTTP status of the nearest ancestor in the table."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return 500


def add_problem_handlers(app: FastAPI) -> None:
    """Every failure, unforeseen ones and unknown routes included, is answered with the one body."""

    @app.exception_handler(errors.StagecoachError)
    async def _ours(request: Request, error: errors.StagecoachError) -> JSONResponse:
        if isinstance(error, errors.NotAuthenticated):
            await request.app.state.refusals.note(request, error)
        return problem_answer(request, error)

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> JSONResponse:
        if any(problem["type"] == "json_invalid" for problem in error.errors()):
            return _answer(request, 400, "validation", "validation_error", "The body is not valid JSON.", None, {})
        whole_body = [problem["type"] for problem in error.errors() if problem["loc"] == ("body",)]
        if whole_body:
            message = "The body must be a JSON object, sent with the header Content-Type: application/json."
            return _answer(request, 400, "validation", "validation_error", message, None, {})
        fields = [
            {
                "location": str(problem["loc"][0]) if problem["loc"] else "body",
                "name": ".".join(str(piece) for piece in problem["loc"][1:]),
                "message": str(problem["msg"]).removeprefix("Value error, "),
            }
            for problem in error.errors()[:20]
        ]
        first = fields[0] if fields else {"name": "", "message": "not understood"}
        message = f"Validation error: {first['name'] or 'request'}: {first['message']}"
        return _answer(request, 400, "validation", "validation_error", message, {"fields": fields}, {})

    @app.exception_handler(HTTPException)
    async def _framework(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:
            # It could not read the body: nested too deep, a number of thousands of digits.
            return _answer(request, 400, "validation", "validation_error", "The body is no JSON that can be read.", None, {})
        code, headers = _FRAMEWORK_CODES.get(error.status_code, "http_error"), dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(sorted(_methods(request)))
        return _answer(request, error.status_code, "error", code, str(error.detail), None, headers)

    @app.exception_handler(Exception)
    async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
        # The web server logs the stack; the caller learns nothing of the inside.
        asked = getattr(request.state, "request_id", "")
        log.error("%s %s (request %s) failed: %s", request.method, request.url.path, asked, type(error).__name__)
        message = "The service made a mistake; it has been logged. Try again, and tell the administrators if it stays."
        # The framework answers this outside all layers.
        return _answer(request, 500, "error", "internal_error", message, None, dict(standing_headers(request.scope)))


def _methods(request: Request) -> set[str]:
    """All that the path knows; the framework names those of the first of its routes only.

    A path that is written out, as ``/accounts/me``, is not the ``/accounts/{name}`` behind it as well.
    """
    path: str | None = None
    found: set[str] = set()
    for context in iter_route_contexts(request.app.routes):
        if context.original_route.matches(request.scope)[0] is not Match.NONE and path in {None, context.path}:
            path = context.path
            found |= context.methods or set()
    return found


def problem_answer(request: Request, error: errors.StagecoachError) -> JSONResponse:
    """The answer to one of our own failures."""
    status = status_of(error)
    headers, data = {}, dict(error.data)
    if status in {429, 503}:
        headers["Retry-After"] = str(data.setdefault("retry_after_seconds", RETRY_AFTER_SECONDS))
    if isinstance(error, errors.RequestUnderWay):
        headers["Retry-After"] = str(UNDER_WAY_SECONDS)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status >= 500:
        log.warning("%s %s: %s: %s", request.method, request.url.path, error.code, error.message)
    return _answer(request, status, "error", error.code, error.message, data or None, headers)


def _answer(
    request: Request,
    status: int,
    error_type: str,
    code: str,
    message: str,
    data: dict[str, Any] | None,
    headers: dict[str, str],
) -> JSONResponse:
    user = getattr(request.state, "username", None)
    problem = Problem(errorType=error_type, code=code, message=message, data=data, user=user)
    headers = dict(headers)
    if code in CLOSING:
        headers["Connection"] = "close"
    if user is not None and user.isascii():
        # No header carries another; it is in the body all the same.
        headers["f7t-authusername"] = user
    return JSONResponse(problem.model_dump(mode="json"), status_code=status, headers=headers)
