"""Settings of who is believed: token issuers, local accounts, personal tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator, model_validator

from stagecoach.core.addresses import is_private_road
from stagecoach.settings.values import Secret, Section

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
WEB = ("https://", "http://")


class IssuerSettings(Section):
    """An identity provider whose tokens are believed."""

    issuer: str | None = Field(
        None,
        min_length=1,
        max_length=1024,
        description=(
            "Required iss of its tokens, by which its keys are chosen; unset, not checked, which only the one issuer of a "
            "service may do."
        ),
    )
    jwks: str | None = Field(
        None,
        min_length=1,
        description=(
            "Its public keys: a file, or an https:// URL, read again when a key is unknown; unset, the jwks_uri of "
            "<issuer>/.well-known/openid-configuration."
        ),
    )
    audience: str | None = Field(
        None, min_length=1, description="Required aud of tokens; may be unset where jwks is a file, or with any_audience."
    )
    any_audience: bool = Field(
        False, description="Believe tokens that the provider made for other services as well, whoever passes them on."
    )
    algorithms: tuple[Algorithm, ...] = Field(
        ("RS256", "ES256", "EdDSA"),
        min_length=1,
        description="Accepted signature algorithms; none and HMAC are never accepted.",
    )
    username_claim: str = Field("preferred_username", min_length=1, description="Claim that names the user.")
    user_names: Literal["site", "mapped"] | None = Field(
        None,
        description=(
            "site: username_claim is the Unix user on the clusters. mapped: user_map says which Unix user it is, and nobody "
            "else gets in. Must be said where there are several issuers, so that one's alice is never taken for another's; a "
            "single one is the site's own."
        ),
    )
    user_map: Mapping[str, str] = Field(
        default_factory=dict,
        description="For user_names: mapped, the Unix user for each value of username_claim, like {alice@partner.org: alice}.",
    )
    admin_claim: str = Field(
        "roles", min_length=1, description="Claim (a list or a string) looked at for the administrator's role."
    )
    admin_role: str = Field(
        "stagecoach-admin",
        min_length=1,
        description="Value in admin_claim that makes an administrator; with user_names: mapped, none does unless it is set here.",
    )
    clock_skew_seconds: int = Field(30, ge=0, le=600, description="Tolerance for exp and nbf.")
    client_id: str | None = Field(
        None,
        min_length=1,
        max_length=255,
        description=(
            "Public client, allowed the device grant (RFC 8628), as which `stagecoach login` gets its tokens; unset, people "
            "bring a token of their own."
        ),
    )
    login_scopes: str = Field(
        "openid",
        pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*$",
        description="Scopes that `stagecoach login` asks for.",
    )
    portal_client_id: str | None = Field(
        None,
        min_length=1,
        max_length=255,
        description=(
            "Client, allowed the authorization code grant with PKCE, as which the portal logs people in; unset, its page does "
            "not offer this provider. Its redirect URI is <portal.url>/portal/sign-in/callback."
        ),
    )
    portal_client_secret: Secret | None = Field(
        None, description="Secret of that client where it is a confidential one; a value or secret_file:/path."
    )
    label_for_people: str | None = Field(
        None, min_length=1, max_length=60, description="What the portal's page calls this provider; unset, its host name."
    )

    @field_validator("issuer")
    @classmethod
    def _safe_issuer(cls, value: str | None) -> str | None:
        if value is not None and not is_private_road(value):
            raise ValueError("must be an https:// URL (http:// only on this machine)")
        return value

    @field_validator("jwks")
    @classmethod
    def _safe_keys(cls, value: str | None) -> str | None:
        if value is not None and value.startswith(WEB) and not is_private_road(value):
            raise ValueError("must be a file or an https:// URL (http:// only on this machine)")
        return value

    @model_validator(mode="after")
    def _is_whole(self) -> IssuerSettings:
        if self.issuer is None and self.jwks is None:
            raise ValueError("needs an issuer or jwks")
        is_anybodys = self.jwks is None or self.jwks.startswith(WEB)
        if self.audience is None and is_anybodys and not self.any_audience:
            raise ValueError("needs the audience that tokens must be for, or any_audience: true")
        if self.audience is not None and self.any_audience:
            raise ValueError("has an audience and any_audience, which say the opposite")
        if self.issuer is None and self.client_id is not None:
            raise ValueError("client_id needs an issuer, whose metadata says where to log in")
        if self.issuer is None and self.portal_client_id is not None:
            raise ValueError("portal_client_id needs an issuer, whose metadata says where to log in")
        if self.user_map and self.user_names != "mapped":
            raise ValueError("user_map needs user_names: mapped")
        return self

    @property
    def names_administrators(self) -> bool:
        """Who is believed about a few people of its own does not thereby say who may see and cancel everybody's."""
        return self.user_names != "mapped" or "admin_role" in self.model_fields_set

    @property
    def label(self) -> str:
        """For messages to the operator."""
        return self.issuer or f"the issuer of {self.jwks}"


class AuthSettings(Section):
    """Whose tokens are believed."""

    issuers: tuple[IssuerSettings, ...] = Field(
        (IssuerSettings(jwks="jwks.json"),), description="Identity providers whose tokens are believed; may be none."
    )

    @field_validator("issuers")
    @classmethod
    def _told_apart(cls, value: tuple[IssuerSettings, ...]) -> tuple[IssuerSettings, ...]:
        if len(value) < 2:
            return value
        names = [one.issuer for one in value]
        if None in names or len(set(names)) < len(names):
            raise ValueError("several issuers need an issuer each, and different ones")
        if any(one.user_names is None for one in value):
            raise ValueError("several issuers must each say user_names: site or mapped")
        return value


class AccountSettings(Section):
    """Accounts of this service's own."""

    enabled: bool = Field(False, description="Whether people may have accounts here, with a password, and log in with them.")
    registration: Literal["closed", "open"] = Field(
        "closed",
        description=(
            "open: strangers may make themselves an account, which can do nothing until an administrator gives it a user on "
            "the clusters. closed: administrators make accounts."
        ),
    )
    name_is_user: bool = Field(
        False,
        description=(
            "For a machine of one's own: an account acts as the user of its own name, and whoever comes with that user's "
            "token may make it. Never together with open registration."
        ),
    )
    session_idle_seconds: int = Field(
        12 * 3600, ge=60, le=90 * 86400, description="Seconds without a request after which a log-in ends."
    )
    session_seconds: int = Field(7 * 86400, ge=60, le=90 * 86400, description="Seconds after which a log-in ends in any case.")
    log_in_tries_per_account: int = Field(
        10, ge=1, le=1000, description="Tries to log in to one account in 15 minutes; further ones get 429."
    )
    log_in_tries_per_address: int = Field(
        60, ge=1, le=100_000, description="Tries to log in or register from one address in 15 minutes; further ones get 429."
    )

    @model_validator(mode="after")
    def _strangers_become_nobody(self) -> AccountSettings:
        if self.name_is_user and self.registration == "open":
            raise ValueError("name_is_user with registration: open would let a stranger become any user by name")
        return self


class PersonalTokenSettings(Section):
    """Tokens that people make for their programs."""

    enabled: bool = Field(True, description="Whether people may make personal tokens; false refuses those that were made, too.")
    max_days: int = Field(90, ge=1, le=3650, description="Longest life of a personal token, in days.")
    max_admin_days: int = Field(
        1,
        ge=0,
        le=3650,
        description=(
            "Longest life, in days, of one with the scope admin, which outlives the role at the identity provider; 0: none."
        ),
    )
    max_per_user: int = Field(50, ge=1, le=10_000, description="How many personal tokens one user may have at once.")
