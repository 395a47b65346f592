"""Logs people in with an identity provider: the authorization code grant with PKCE (RFC 6749, 7636; OpenID Connect Discovery).

What comes of it is an access token, which the API itself believes or refuses; nothing is believed here. A token that is
about to end is renewed with its refresh token, once for all requests of a page.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode, urlsplit
from weakref import WeakValueDictionary

import httpx

from stagecoach.core.addresses import is_private_road
from stagecoach.portal.sessions import Session, signed_in
from stagecoach.settings.identity import IssuerSettings

log = logging.getLogger(__name__)

CALLBACK_PATH = "/portal/sign-in/callback"
METADATA_PATH = "/.well-known/openid-configuration"
METADATA_SECONDS = 3600.0
ANSWER_SECONDS = 10.0
MAX_ANSWER_BYTES = 256 * 1024
# Before it ends: what a page asks next must not come too late.
RENEW_EARLY_SECONDS = 60.0
# Requests of one page come together, each with the old refresh token, which a provider may take once only.
REMEMBER_RENEWED_SECONDS = 60.0
# A provider that is down must not hold up each page of those whose tokens still hold.
QUIET_SECONDS = 15.0
_NO_ANSWER = (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, RecursionError)


class ProviderTrouble(Exception):
    """The log-in did not come about; the message is a sentence for people."""


@dataclass(frozen=True, slots=True)
class LogIn:
    """One that has begun: where the browser goes, and what must be remembered until it comes back."""

    url: str
    memory: Mapping[str, str]


class Providers:
    """Those that the settings let the portal use."""

    def __init__(
        self,
        issuers: Sequence[IssuerSettings],
        own_url: str | None,
        clock: Callable[[], float] = time.time,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._issuers = {str(one.issuer): one for one in issuers if one.portal_client_id is not None and one.issuer is not None}
        self._redirect_uri = f"{own_url}{CALLBACK_PATH}"
        self._clock = clock
        self._transport = transport
        self._metadata: dict[str, tuple[float, dict[str, Any]]] = {}
        self._renewing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._quiet_until: dict[str, float] = {}
        self._renewed: dict[str, tuple[float, Session]] = {}

    @property
    def choices(self) -> list[tuple[str, str]]:
        """Issuer and what people call it."""
        return [(name, settings.label_for_people or urlsplit(name).hostname or name) for name, settings in self._issuers.items()]

    async def begin(self, issuer: str, next_page: str) -> LogIn:
        """Raises ProviderTrouble."""
        settings = self._settings(issuer)
        metadata = await self._described(issuer)
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": settings.portal_client_id,
            "redirect_uri": self._redirect_uri,
            "scope": settings.login_scopes,
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        endpoint = metadata["authorization_endpoint"]
        url = f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"
        return LogIn(url, {"issuer": issuer, "state": state, "verifier": verifier, "next": next_page})

    async def finish(self, memory: Mapping[str, object], answer: Mapping[str, str]) -> Session:
        """The browser is back with ``answer``, the query of the callback. Raises ProviderTrouble."""
        issuer = str(memory.get("issuer"))
        is_ours = secrets.compare_digest(answer.get("state", "").encode(), str(memory.get("state")).encode())
        if not is_ours or answer.get("iss", issuer) != issuer:
            raise ProviderTrouble("This answer belongs to no log-in that was begun here; begin again.")
        if "code" not in answer:
            refused = answer.get("error") == "access_denied"
            raise ProviderTrouble("You were not logged in: it was refused." if refused else "The provider did not log you in.")
        grant = {"grant_type": "authorization_code", "code": answer["code"], "redirect_uri": self._redirect_uri}
        tokens = await self._tokens(issuer, {**grant, "code_verifier": str(memory.get("verifier"))})
        return self._session(issuer, tokens)

    async def renewed(self, session: Session) -> Session:
        """With a fresh token where it was about to end; signed out where the provider no longer gives one."""
        if session.issuer is None or session.believed_until is None:
            return session
        now = self._clock()
        if session.believed_until - now > RENEW_EARLY_SECONDS:
            return session
        still_holds = session.believed_until > now
        if session.refresh_token is None or session.issuer not in self._issuers:
            return session if still_holds else session.signed_out()
        if still_holds and now < self._quiet_until.get(session.issuer, 0.0):
            return session
        key = hashlib.sha256(session.refresh_token.encode()).hexdigest()
        # One person's requests wait for each other, and for nobody else's.
        lock = self._renewing.setdefault(key, asyncio.Lock())
        async with lock:
            return await self._renew(session, session.refresh_token, key)

    async def forget(self, session: Session) -> None:
        """Ends the log-in at the provider, where that can be done; it is forgotten here in any case."""
        if session.issuer not in self._issuers or session.refresh_token is None:
            return
        try:
            metadata = await self._described(session.issuer)
            endpoint = metadata.get("revocation_endpoint")
            if isinstance(endpoint, str) and is_private_road(endpoint):
                await self._post(session.issuer, endpoint, {"token": session.refresh_token})
        except (ProviderTrouble, *_NO_ANSWER) as error:
            log.warning("%s was not told of a log-out: %s", session.issuer, type(error).__name__)

    async def _renew(self, session: Session, refresh_token: str, key: str) -> Session:
        now = self._clock()
        self._renewed = {name: kept for name, kept in self._renewed.items() if now - kept[0] < REMEMBER_RENEWED_SECONDS}
        if key in self._renewed:
            found = self._renewed[key][1]
            return replace(found, csrf=session.csrf, flash=session.flash)
        try:
            tokens = await self._tokens(str(session.issuer), {"grant_type": "refresh_token", "refresh_token": refresh_token})
        except ProviderTrouble as error:
            log.info("a log-in was not renewed: %s", error)
            self._quiet_until[str(session.issuer)] = now + QUIET_SECONDS
            # A provider that is down for a moment signs nobody out whose token still holds.
            return session if session.believed_until and session.believed_until > now else session.signed_out()
        fresh = self._session(str(session.issuer), {"refresh_token": refresh_token, **tokens})
        self._renewed[key] = (now, fresh)
        return replace(fresh, csrf=session.csrf, flash=session.flash)

    def _session(self, issuer: str, tokens: Mapping[str, Any]) -> Session:
        access, refresh, life = tokens.get("access_token"), tokens.get("refresh_token"), tokens.get("expires_in")
        if not isinstance(access, str):
            raise ProviderTrouble("The provider sent no token.")
        return signed_in(
            access,
            issuer=issuer,
            refresh_token=refresh if isinstance(refresh, str) else None,
            believed_until=self._clock() + life if isinstance(life, int | float) else None,
        )

    async def _tokens(self, issuer: str, grant: Mapping[str, str]) -> dict[str, Any]:
        metadata = await self._described(issuer)
        try:
            return await self._post(issuer, metadata["token_endpoint"], grant)
        except _NO_ANSWER as error:
            raise ProviderTrouble("The provider did not confirm the log-in; begin again.") from error

    async def _described(self, issuer: str) -> dict[str, Any]:
        """The issuer's metadata, read again each hour. Raises ProviderTrouble."""
        self._settings(issuer)
        read_at, metadata = self._metadata.get(issuer, (float("-inf"), {}))
        if self._clock() - read_at < METADATA_SECONDS:
            return metadata
        try:
            metadata = await self._answer("GET", issuer.rstrip("/") + METADATA_PATH)
        except _NO_ANSWER as error:
            raise ProviderTrouble("The identity provider does not answer now; try again in a minute.") from error
        endpoints = [metadata.get("authorization_endpoint"), metadata.get("token_endpoint")]
        if metadata.get("issuer") != issuer or not all(isinstance(one, str) and is_private_road(one) for one in endpoints):
            raise ProviderTrouble("What the identity provider says of itself is not right; tell the administrators.")
        self._metadata[issuer] = (self._clock(), metadata)
        return metadata

    async def _post(self, issuer: str, url: str, form: Mapping[str, str]) -> dict[str, Any]:
        settings = self._settings(issuer)
        secret = settings.portal_client_secret
        said = {**form, "client_id": str(settings.portal_client_id)}
        if secret is not None:
            said["client_secret"] = secret.get_secret_value()
        return await self._answer("POST", url, said)

    async def _answer(self, method: str, url: str, form: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The JSON object there; nothing of an empty answer. Raises what is in ``_NO_ANSWER``."""
        async with (
            httpx.AsyncClient(timeout=ANSWER_SECONDS, follow_redirects=False, transport=self._transport) as client,
            asyncio.timeout(ANSWER_SECONDS),
            client.stream(method, url, data=form, headers={"Accept": "application/json"}) as answer,
        ):
            answer.raise_for_status()
            content = bytearray()
            async for piece in answer.aiter_bytes():
                content += piece
                if len(content) > MAX_ANSWER_BYTES:
                    raise ValueError("too large")
        document = json.loads(bytes(content)) if content else {}
        if not isinstance(document, dict):
            raise ValueError("no object")
        return document

    def _settings(self, issuer: str) -> IssuerSettings:
        if issuer not in self._issuers:
            raise ProviderTrouble("This service knows no such identity provider.")
        return self._issuers[issuer]
