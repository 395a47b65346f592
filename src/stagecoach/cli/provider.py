"""Speaks to an identity provider: its metadata, and the token endpoint (RFC 6749, RFC 8628, OIDC Discovery)."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from stagecoach.client.errors import ClientError, ServiceError
from stagecoach.core.addresses import is_private_road

ANSWER_SECONDS = 10.0
WHOLE_ANSWER_SECONDS = 30.0
MAX_ANSWER_BYTES = 1024 * 1024


class LogInFailed(ClientError):
    """The provider does not log the person in; the message says why."""

    code = "login_failed"


class GrantRefused(Exception):
    """The token endpoint's answer was an error of OAuth's: ``error`` is its code."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


@dataclass(frozen=True)
class Metadata:
    """Where a provider's endpoints are."""

    issuer: str
    token_endpoint: str
    device_endpoint: str | None
    revocation_endpoint: str | None


@dataclass(frozen=True)
class Tokens:
    """What the token endpoint gave."""

    access_token: str
    refresh_token: str | None
    lives_seconds: float

    def __repr__(self) -> str:
        return "Tokens(…)"


def read_metadata(issuer: str) -> Metadata:
    """Raises LogInFailed for metadata that is none or another's, ServiceError where nothing answers."""
    if not is_private_road(issuer):
        raise LogInFailed("The service's identity provider is not reached by https; nothing is sent to it.")
    address = issuer.rstrip("/") + "/.well-known/openid-configuration"
    status, document = _asked("GET", address, None)
    if status != 200 or document.get("issuer") != issuer:
        raise LogInFailed(f"What answers at {_host(issuer)} is not the identity provider that the service names.")
    token = _endpoint(document, "token_endpoint")
    if token is None:
        raise LogInFailed(f"The identity provider at {_host(issuer)} names no safe token endpoint.")
    return Metadata(
        issuer, token, _endpoint(document, "device_authorization_endpoint"), _endpoint(document, "revocation_endpoint")
    )


def post(endpoint: str, form: dict[str, str]) -> dict[str, Any]:
    """The answer of an endpoint. Raises GrantRefused, ServiceError (the provider is not there, or has trouble)."""
    status, document = _asked("POST", endpoint, form)
    if status == 200:
        return document
    error = document.get("error")
    if status >= 500 or not isinstance(error, str):
        raise ServiceError(status, "provider_trouble", f"The identity provider at {_host(endpoint)} answered HTTP {status}.")
    raise GrantRefused(error[:100])


def tokens_in(answer: dict[str, Any]) -> Tokens:
    """Raises LogInFailed for an answer without a token that can be sent."""
    access, refresh, lives = answer.get("access_token"), answer.get("refresh_token"), answer.get("expires_in")
    if not isinstance(access, str) or not access.isascii() or not access or any(one.isspace() for one in access):
        raise LogInFailed("The identity provider's answer holds no token.")
    known = isinstance(lives, int | float) and not isinstance(lives, bool) and 0 <= lives < 2**40
    return Tokens(access, refresh if isinstance(refresh, str) and refresh else None, float(lives) if known and lives else 300.0)


def _asked(method: str, address: str, form: dict[str, str] | None) -> tuple[int, dict[str, Any]]:
    deadline = time.monotonic() + WHOLE_ANSWER_SECONDS
    content = b""
    try:
        with (
            httpx.Client(timeout=ANSWER_SECONDS, follow_redirects=False) as http,
            http.stream(method, address, data=form) as answer,
        ):
            for piece in answer.iter_bytes():
                content += piece
                if len(content) > MAX_ANSWER_BYTES or time.monotonic() > deadline:
                    message = f"The identity provider at {_host(address)} does not end its answer."
                    raise ServiceError(0, "provider_trouble", message)
    except (httpx.RequestError, httpx.InvalidURL) as error:
        # The library's own text may hold the address with all that stands in it.
        message = f"The identity provider at {_host(address)} cannot be reached ({type(error).__name__})."
        raise ServiceError(0, "service_unreachable", message) from None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    return answer.status_code, document if isinstance(document, dict) else {}


def _endpoint(document: dict[str, Any], name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) and is_private_road(value) else None


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "this URL"
    except ValueError:
        return "this URL"
