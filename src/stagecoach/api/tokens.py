"""Believes or refuses the JWTs of the issuers that the settings name (RFC 7519).

The issuer is picked by what the token claims, unverified; then only that issuer's keys, algorithms, audience and claims
count, so one issuer can never speak for another.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from stagecoach.api.issuer_keys import IssuerKeys
from stagecoach.core.access import Caller, Credential, CredentialKind, scopes_of
from stagecoach.core.accounts import is_username
from stagecoach.core.errors import NotAuthenticated
from stagecoach.settings import AuthSettings, IssuerSettings

MAX_TOKEN_LENGTH = 16 * 1024
# An exp may be any number that JSON can write.
MAX_EPOCH_SECONDS = 2**53
# What Keycloak calls tokens that are for the client alone; an ID token of any provider has at_hash beside an access token.
_OTHER_KINDS = ("ID", "Refresh", "Offline", "Logout")
_NOT_OURS = "The token is not one of an issuer this service trusts."


class TokenChecker:
    """All issuers of a service, each with its keys."""

    def __init__(self, settings: AuthSettings, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._keys = [(issuer, IssuerKeys(issuer, clock)) for issuer in settings.issuers]

    async def believe(self, token: str) -> Credential:
        """Who holds this token.

        Raises:
            NotAuthenticated: it does not hold; the message never repeats any of it.
            Unavailable: the issuer's keys cannot be read.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise NotAuthenticated("The token is too long to be one.")
        issuer, keys = self._issuer_of(token)
        claims = await self._claims(token, issuer, keys)
        name = _username(issuer, claims.get(issuer.username_claim))
        believed_until = float(min(claims["exp"], MAX_EPOCH_SECONDS)) + issuer.clock_skew_seconds
        scopes = scopes_of(is_admin=_is_admin(issuer, claims.get(issuer.admin_claim)))
        return Credential(CredentialKind.ISSUED, name, believed_until, scopes)

    def seconds_left(self, caller: Caller) -> float:
        """For how long what the caller came with is still believed; not above zero once it is not."""
        return caller.token_expires_at - self._clock()

    async def read_keys(self, issuer: IssuerSettings) -> None:
        """Read one issuer's keys now. Raises SettingsError or Unavailable, naming the setting, when that fails."""
        for settings, keys in self._keys:
            if settings == issuer:
                await keys.read()

    def _issuer_of(self, token: str) -> tuple[IssuerSettings, IssuerKeys]:
        claimed = _claimed_issuer(token)
        for issuer, keys in self._keys:
            if issuer.issuer is None or issuer.issuer == claimed:
                return issuer, keys
        raise NotAuthenticated(_NOT_OURS)

    async def _claims(self, token: str, issuer: IssuerSettings, issuer_keys: IssuerKeys) -> dict[str, Any]:
        try:
            decoded = _decode(token, await issuer_keys.current(), list(issuer.algorithms))
        except ValueError:
            # Perhaps signed by a key that is newer than what we read.
            try:
                decoded = _decode(token, await issuer_keys.newest(), list(issuer.algorithms))
            except ValueError as error:
                raise NotAuthenticated(_NOT_OURS) from error
        if decoded.get("typ") in _OTHER_KINDS or "at_hash" in decoded:
            raise NotAuthenticated("The token does not hold: it is an identity provider's token, but no access token.")
        required: dict[str, Any] = {"exp": {"essential": True}}
        if issuer.issuer is not None:
            required["iss"] = {"essential": True, "value": issuer.issuer}
        if issuer.audience is not None:
            required["aud"] = {"essential": True, "value": issuer.audience}
        registry = jwt.JWTClaimsRegistry(now=int(self._clock()), leeway=issuer.clock_skew_seconds, **required)
        try:
            registry.validate(decoded)
        except JoseError as error:
            raise NotAuthenticated(f"The token does not hold: {_plain_claim_error(error)}.") from error
        return decoded


def _username(issuer: IssuerSettings, claim: object) -> str:
    if isinstance(claim, str) and issuer.user_names == "mapped":
        claim = issuer.user_map.get(claim)
    if not isinstance(claim, str) or not is_username(claim):
        raise NotAuthenticated(f"The token's claim {issuer.username_claim} does not name a user.")
    return claim


def _is_admin(issuer: IssuerSettings, roles: object) -> bool:
    return issuer.names_administrators and issuer.admin_role in (roles if isinstance(roles, list) else [roles])


def _claimed_issuer(token: str) -> object:
    """What the token says of itself, not believed yet; None where it says nothing that can be read."""
    pieces = token.split(".")
    try:
        payload = json.loads(base64.urlsafe_b64decode(pieces[1] + "=" * (-len(pieces[1]) % 4)))
    except (IndexError, ValueError, binascii.Error, RecursionError):
        return None
    return payload.get("iss") if isinstance(payload, dict) else None


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
