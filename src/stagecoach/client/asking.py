"""Asks the service over HTTP and has patience: what may pass is asked again, as the service says or with growing pauses.

Only questions that may be asked twice are asked twice; beginning a transfer is one only by its idempotency key.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import httpx

from stagecoach.client.errors import ServiceError

NO_CONTENT = 204
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0


class TokenSource(Protocol):
    """Has a token that holds; asked for each request, and again with one that the service refused."""

    async def __call__(self, refused: str | None = None) -> str:
        """Raises ServiceError when there is none."""
        ...


@dataclass(frozen=True)
class Clock:
    """Time and chance; tests hand in their own."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random


class _Bearer(httpx.Auth):
    """Puts the token on each request; None puts none."""

    def __init__(self, token: str | TokenSource | None) -> None:
        self._token = token

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        if self._token is None or isinstance(self._token, str):
            if self._token is not None:
                request.headers["Authorization"] = f"Bearer {self._token}"
            yield request
            return
        token = await self._token()
        request.headers["Authorization"] = f"Bearer {token}"
        answer = yield request
        if answer.status_code == 401 and (fresh := await self._token(token)) != token:
            request.headers["Authorization"] = f"Bearer {fresh}"
            yield request


class Asking:
    """One service, one caller. Raises ServiceError and nothing else."""

    def __init__(
        self,
        url: str,
        token: str | TokenSource | None,
        *,
        timeout_seconds: float,
        patience_seconds: float,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.clock = clock or Clock()
        self._patience_seconds = patience_seconds
        self._http = httpx.AsyncClient(base_url=self.url, auth=_Bearer(token), timeout=timeout_seconds, transport=transport)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def once(self, method: str, path: str, *, transfer_id: str | None = None, **options: Any) -> Any:
        """The answer's JSON."""
        try:
            answer = await self._http.request(method, path, **options)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            # The library's own text may hold the address with all that stands in it.
            message = f"The service at {self._host()} cannot be reached ({type(error).__name__})."
            raise ServiceError(0, "service_unreachable", message, transfer_id=transfer_id) from None
        if answer.status_code == NO_CONTENT:
            return None
        if answer.is_success:
            try:
                return answer.json()
            except ValueError:
                message = f"What answers at {self._host()} is no Stagecoach: is the URL right?"
                raise ServiceError(answer.status_code, "not_stagecoach", message, transfer_id=transfer_id) from None
        try:
            problem = answer.json()
            code, message = str(problem["code"]), str(problem["message"])
        except (ValueError, KeyError, TypeError):
            code, message = "http_error", f"The service at {self._host()} answered HTTP {answer.status_code}."
        seconds = retry_after_seconds(answer.headers.get("Retry-After"))
        raise ServiceError(answer.status_code, code, message, transfer_id=transfer_id, retry_after_seconds=seconds)

    async def ask(
        self, method: str, path: str, *, patience_seconds: float | None = None, transfer_id: str | None = None, **options: Any
    ) -> Any:
        """The same for what may be asked twice: asked again until patience ends."""
        patience = self._patience_seconds if patience_seconds is None else patience_seconds
        deadline = self.clock.monotonic() + patience
        ceiling = FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self.once(method, path, transfer_id=transfer_id, **options)
            except ServiceError as error:
                if not error.retryable:
                    raise
                pause = max(error.retry_after_seconds or 0.0, ceiling * (0.5 + self.clock.chance() / 2))
                if self.clock.monotonic() + pause > deadline:
                    raise
            await self.clock.sleep(pause)
            ceiling = min(ceiling * 2, LONGEST_PAUSE_SECONDS)

    def _host(self) -> str:
        host: str = self._http.base_url.host
        return host or "this URL"


def retry_after_seconds(header: str | None, now: datetime | None = None) -> float | None:
    """Both forms of RFC 9110: seconds, or a date. None for anything else."""
    if header is None:
        return None
    if header.strip().isascii() and header.strip().isdigit():
        return float(header.strip()[:9])
    try:
        return max(0.0, (parsedate_to_datetime(header) - (now or datetime.now(UTC))).total_seconds())
    except (ValueError, TypeError):
        return None
