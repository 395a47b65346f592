"""Asks the service's own API, in this process, as the person whose page it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import httpx
from starlette.requests import Request
from starlette.types import ASGIApp

Params = Mapping[str, str | int | bool | bytes | list[str] | None]


class ApiRefusal(Exception):
    """The API answered with a problem; ``message`` is a sentence for people."""

    def __init__(self, status: int, code: str, message: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.data = dict(data or {})


class ApiCalls:
    """The API, reached without a network."""

    def __init__(self, api: ASGIApp) -> None:
        self._api = api

    async def call(
        self,
        request: Request,
        credential: str | None,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: object = None,
        key: str | None = None,
    ) -> Any:
        """The answer's document (None where it has none, the text where it is none). ``key``: the same request sent again
        makes nothing anew. Raises ApiRefusal."""
        answer = await self.ask(request, credential, method, path, params=params, json=json, key=key)
        if not answer.content:
            return None
        return answer.json() if answer.headers.get("content-type", "") == "application/json" else answer.text

    async def ask(
        self,
        request: Request,
        credential: str | None,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: object = None,
        key: str | None = None,
    ) -> httpx.Response:
        """The whole answer, a success. Raises ApiRefusal."""
        # Where the person is counts for limits, and for the audit log.
        client = (request.client.host, request.client.port) if request.client else ("127.0.0.1", 0)
        transport = httpx.ASGITransport(self._api, raise_app_exceptions=False, client=client)
        headers = {"X-Request-Id": request.state.request_id}
        if credential is not None:
            headers["Authorization"] = f"Bearer {credential}"
        if key:
            headers["Idempotency-Key"] = key
        query = query_text(params or {})
        url = f"{path}?{query}" if query else path
        async with httpx.AsyncClient(transport=transport, base_url="http://stagecoach") as asking:
            answer = await asking.request(method, url, headers=headers, json=json)
        if answer.status_code < 400:
            return answer
        try:
            problem = answer.json()
            refusal = ApiRefusal(answer.status_code, problem["code"], problem["message"], problem.get("data"))
        except (ValueError, KeyError, TypeError):
            refusal = ApiRefusal(answer.status_code, "internal_error", "The service made a mistake; it has been logged.")
        raise refusal


def query_text(params: Params) -> str:
    """As the API reads it; names of files keep their exact bytes."""
    said = {name: _plain(value) for name, value in params.items() if value is not None}
    return urlencode(said, doseq=True)


def _plain(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
