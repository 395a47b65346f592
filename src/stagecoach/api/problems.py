"""Turns every failure into one body. HTTP numbers live here and nowhere else."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

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


STATUS: dict[type[errors.StagecoachError], int] = {
    BodyTooLarge: 413,
    errors.InvalidRequest: 400,
    errors.NotAuthenticated: 401,
    errors.PermissionRefused: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Unavailable: 503,
    errors.StagecoachError: 500,
}
RETRY_AFTER_SECONDS = 10
# FirecREST's client reads this version from every answer and switches wire forms by it.
FIRECREST_VERSION = "2.6.0"

PROBLEM_ANSWERS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "The caller can mend it; the message says how."},
    "5XX": {"model": Problem, "description": "Something Stagecoach depends on does not answer; try again later."},
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
        code = {404: "route_not_found", 405: "method_not_allowed", 413: "body_too_large"}.get(error.status_code, "http_error")
        return _answer(request, error.status_code, "error", code, str(error.detail), None, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
        # The web server logs the stack; the caller learns nothing of the inside.
        log.error("%s %s failed: %s", request.method, request.url.path, type(error).__name__)
        message = "The service made a mistake; it has been logged. Try again, and tell the administrators if it stays."
        return _answer(request, 500, "error", "internal_error", message, None, {})


def problem_answer(request: Request, error: errors.StagecoachError) -> JSONResponse:
    """The answer to one of our own failures."""
    status = status_of(error)
    headers = {}
    if status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status >= 500:
        log.warning("%s %s: %s: %s", request.method, request.url.path, error.code, error.message)
    return _answer(request, status, "error", error.code, error.message, error.data or None, headers)


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
    # The framework answers an unforeseen failure outside all middleware, so the version is set here as well.
    headers = {"f7t-appversion": FIRECREST_VERSION, **headers}
    if user is not None:
        headers["f7t-authusername"] = user
    return JSONResponse(problem.model_dump(mode="json"), status_code=status, headers=headers)
