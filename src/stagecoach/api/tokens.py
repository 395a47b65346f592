"""Believes or refuses bearer tokens: JWTs checked against the issuer's public keys (RFC 7519, RFC 7517)."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from stagecoach.core.access import Caller
from stagecoach.core.errors import NotAuthenticated, SettingsError, StagecoachError, Unavailable
from stagecoach.settings import AuthSettings

log = logging.getLogger(__name__)

MAX_TOKEN_LENGTH = 16 * 1024
# An unknown key id makes us read the keys again, but a stream of forged tokens must not become a stream of requests.
MIN_REFRESH_SECONDS = 30.0
KEYS_LIFE_SECONDS = 3600.0
FETCH_SECONDS = 5.0
# Lone surrogates, which JSON can hold, are no text that a database or an answer could carry.
_USERNAME = re.compile(r"[^\x00-\x20\x7f/\ud800-\udfff]{1,64}")

log = logging.getLogger(__name__)


class TokenChecker:
    """Holds the issuer's public keys and reads them again when a key id is unknown or they are an hour old."""

    def __init__(self, settings: AuthSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._keys: KeySet | None = None
        self._read_at = self._tried_at = float("-inf")
        self._tried_at = float("-inf")
        self._reading = asyncio.Lock()

    async def caller(self, token: str) -> Caller:
        """Who holds this token.

        Raises:
            NotAuthenticated: it does not hold; the message never repeats any of it.
            Unavailable: the issuer's keys cannot be read.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise NotAuthenticated("The token is too long to be one.")
        claims = await self._claims(token)
        name = claims.get(self._settings.username_claim)
        if not isinstance(name, str) or not _USERNAME.fullmatch(name) or name in {".", ".."}:
            raise NotAuthenticated(f"The token's claim {self._settings.username_claim} does not name a user.")
        roles = claims.get(self._settings.admin_claim)
        held = roles if isinstance(roles, list) else [roles]
        return Caller(username=name, is_admin=self._settings.admin_role in held)

    async def _claims(self, token: str) -> dict[str, Any]:
        settings = self._settings
        now = self._clock()
        keys = await self._keys_not_older_than(now - KEYS_LIFE_SECONDS)
        try:
            decoded = _decode(token, keys, list(settings.algorithms))
        except ValueError:
            # Perhaps signed by a key that is newer than what we read.
            keys = await self._keys_not_older_than(now - MIN_REFRESH_SECONDS)
            try:
                decoded = _decode(token, keys, list(settings.algorithms))
            except ValueError as error:
                raise NotAuthenticated("The token is not one of an issuer this service trusts.") from error
        required: dict[str, Any] = {"exp": {"essential": True}}
        if settings.issuer is not None:
            required["iss"] = {"essential": True, "value": settings.issuer}
        if settings.audience is not None:
            required["aud"] = {"essential": True, "value": settings.audience}
        registry = jwt.JWTClaimsRegistry(now=int(self._clock()), leeway=settings.clock_skew_seconds, **required)
        try:
            registry.validate(decoded)
        except JoseError as error:
            raise NotAuthenticated(f"The token does not hold: {_plain_claim_error(error)}.") from error
        return decoded

    async def read_keys(self) -> None:
        """Read the issuer's keys now. Raises SettingsError or Unavailable, naming auth.jwks, when that fails."""
        self._tried_at = self._clock()
        self._keys = await self._fetch_keys()
        self._read_at = self._clock()

    async def _keys_not_older_than(self, moment: float) -> KeySet:
        """Keys read since ``moment`` if they can be had; else those we have, and only without any is it an error.

        One reading at a time, and not again for a while after one that failed: neither a stream of forged tokens nor
        an issuer that is down may hold up those whose tokens are good.
        """
        if self._keys is None or self._read_at < moment:
            async with self._reading:
                may_try = self._clock() - self._tried_at >= MIN_REFRESH_SECONDS
                if (self._keys is None or self._read_at < moment) and may_try:
                    try:
                        await self.read_keys()
                    except StagecoachError as error:
                        log.warning("the token issuer's keys could not be read: %s", error.message)
        if self._keys is None:
            raise Unavailable("The token issuer's keys cannot be read now; try again in a minute.")
        return self._keys

    async def _fetch_keys(self) -> KeySet:
        source = self._settings.jwks
        try:
            if source.startswith(("https://", "http://")):
                async with httpx.AsyncClient(timeout=FETCH_SECONDS, follow_redirects=False) as client:
                    answer = await client.get(source)
                    answer.raise_for_status()
                    return KeySet.import_key_set(answer.json())
            text = await asyncio.to_thread(Path(source).read_text, encoding="utf-8")
            return KeySet.import_key_set(json.loads(text))
        except httpx.HTTPError as error:
            raise Unavailable(f"auth.jwks: {source} does not answer ({type(error).__name__}).") from error
        except (OSError, ValueError, JoseError, KeyError, TypeError) as error:
            raise SettingsError(f"auth.jwks: {source} holds no readable key set ({type(error).__name__}).") from error


def _decode(token: str, keys: KeySet, algorithms: list[str]) -> dict[str, Any]:
    """The verified payload. Raises ValueError for any token that does not verify, whatever is wrong with it."""
    try:
        return dict(jwt.decode(token, keys, algorithms=algorithms).claims)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(type(error).__name__) from None


def _plain_claim_error(error: JoseError) -> str:
    name = type(error).__name__
    claim = getattr(error, "claim", None) or ""
    if name == "ExpiredTokenError":
        return "it has expired; get a new one"
    if name == "MissingClaimError":
        return f"its claim {claim} is missing"
    return f"its claim {claim} is not right" if claim else "it is not right"
