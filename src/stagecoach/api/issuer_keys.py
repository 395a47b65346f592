"""Holds one issuer's public keys, and reads them again when they are old or a key is unknown (RFC 7517, OIDC Discovery)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from stagecoach.core.addresses import is_private_road
from stagecoach.core.errors import SettingsError, StagecoachError, Unavailable
from stagecoach.settings.identity import WEB, IssuerSettings

log = logging.getLogger(__name__)

# An unknown key id makes us read the keys again, but a stream of forged tokens must not become a stream of requests.
MIN_REFRESH_SECONDS = 30.0
KEYS_LIFE_SECONDS = 3600.0
FETCH_SECONDS = 5.0
MAX_ANSWER_BYTES = 1024 * 1024
METADATA_PATH = "/.well-known/openid-configuration"
# The time for the whole answer is ours and not the library's, and a wrong address is no HTTPError to it.
_NO_ANSWER = (httpx.HTTPError, httpx.InvalidURL, TimeoutError)


class IssuerKeys:
    """The keys of one issuer."""

    def __init__(self, settings: IssuerSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._keys: KeySet | None = None
        self._read_at = self._tried_at = float("-inf")
        self._reading = asyncio.Lock()

    async def current(self) -> KeySet:
        """Keys not older than an hour, if they can be had. Raises Unavailable only without any."""
        if self._keys is not None and self._reading.locked():
            # The issuer may take its time; those whose key is known do not wait for it.
            return self._keys
        return await self._not_older_than(self._clock() - KEYS_LIFE_SECONDS)

    async def newest(self) -> KeySet:
        """Keys just read, unless that was tried a moment ago. Raises Unavailable only without any."""
        return await self._not_older_than(self._clock() - MIN_REFRESH_SECONDS)

    async def read(self) -> None:
        """Read the keys now. Raises SettingsError or Unavailable, naming the setting, when that fails."""
        self._tried_at = self._clock()
        self._keys = await self._fetch()
        self._read_at = self._clock()

    async def _not_older_than(self, moment: float) -> KeySet:
        """One reading at a time, and not again for a while after one that failed: neither a stream of forged tokens nor
        an issuer that is down may hold up those whose tokens are good.
        """
        if self._keys is None or self._read_at < moment:
            async with self._reading:
                may_try = self._clock() - self._tried_at >= MIN_REFRESH_SECONDS
                if (self._keys is None or self._read_at < moment) and may_try:
                    try:
                        await self.read()
                    except StagecoachError as error:
                        log.warning("the token issuer's keys could not be read: %s", error.message)
        if self._keys is None:
            raise Unavailable("The token issuer's keys cannot be read now; try again in a minute.")
        return self._keys

    async def _fetch(self) -> KeySet:
        source = self._settings.jwks
        if source is None:
            source = await self._discovered()
        try:
            if source.startswith(WEB):
                return KeySet.import_key_set(await _get(source))
            text = await asyncio.to_thread(Path(source).read_text, encoding="utf-8")
            return KeySet.import_key_set(json.loads(text))
        except _NO_ANSWER as error:
            raise Unavailable(f"auth.issuers.jwks: {source} does not answer ({type(error).__name__}).") from error
        except (OSError, ValueError, JoseError, KeyError, TypeError, RecursionError) as error:
            raise SettingsError(f"auth.issuers.jwks: {source} holds no readable key set ({type(error).__name__}).") from error

    async def _discovered(self) -> str:
        """Where the issuer's own metadata says that its keys are; it must be about this very issuer."""
        issuer = str(self._settings.issuer)
        address = issuer.rstrip("/") + METADATA_PATH
        try:
            document = await _get(address)
        except _NO_ANSWER as error:
            raise Unavailable(f"auth.issuers.issuer: {address} does not answer ({type(error).__name__}).") from error
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"auth.issuers.issuer: {address} holds no metadata ({type(error).__name__}).") from error
        if not isinstance(document, dict) or document.get("issuer") != issuer:
            raise SettingsError(f"auth.issuers.issuer: the metadata at {address} is not that of {issuer}.")
        found = document.get("jwks_uri")
        if not isinstance(found, str) or not is_private_road(found):
            raise SettingsError(f"auth.issuers.issuer: the metadata at {address} names no https:// jwks_uri.")
        return found


async def _get(url: str) -> Any:
    """The JSON there. Raises what is in ``_NO_ANSWER``, ValueError."""
    async with (
        httpx.AsyncClient(timeout=FETCH_SECONDS, follow_redirects=False) as client,
        asyncio.timeout(2 * FETCH_SECONDS),
        client.stream("GET", url) as answer,
    ):
        answer.raise_for_status()
        content = bytearray()
        async for piece in answer.aiter_bytes():
            content += piece
            if len(content) > MAX_ANSWER_BYTES:
                raise ValueError("too large")
    return json.loads(bytes(content))
