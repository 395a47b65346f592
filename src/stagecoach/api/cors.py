"""Lets pages of the configured origins call the API (CORS), and refuses others with the one body."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from stagecoach.api.problems import problem_answer
from stagecoach.core.errors import InvalidRequest


class OriginRefused(InvalidRequest):
    """The page may not call this API, or not like this."""

    code = "origin_refused"


class Origins(CORSMiddleware):
    """Answers the questions that browsers ask first. No cookies: a page elsewhere sends the token itself."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Idempotency-Key", "Last-Event-ID", "X-Request-Id"],
            expose_headers=["Retry-After", "X-Request-Id"],
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """As the library's, but for the body of a refusal."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        request = Request({"type": "http", "method": "OPTIONS", "path": "", "headers": request_headers.raw})
        refusal = problem_answer(request, OriginRefused("The pages of this origin may not make such a request."))
        refusal.headers["Vary"] = "Origin"
        return refusal
