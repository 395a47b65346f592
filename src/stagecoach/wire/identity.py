"""Shapes of accounts, sessions, personal tokens and ways to log in."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from stagecoach.core.access import Scope
from stagecoach.core.accounts import MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH, NAME_PATTERN
from stagecoach.wire.shapes import Shape

AccountName = Annotated[str, Field(pattern=NAME_PATTERN, description="Lower-case; begins with a letter.")]
UserName = Annotated[str, Field(min_length=1, max_length=64, description="A user on the clusters.")]
NewPassword = Annotated[SecretStr, Field(min_length=MIN_PASSWORD_LENGTH, max_length=MAX_PASSWORD_LENGTH)]
GivenPassword = Annotated[SecretStr, Field(min_length=1, max_length=MAX_PASSWORD_LENGTH)]
TokenName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]


class AccountRequest(Shape):
    """A new account."""

    name: AccountName
    password: NewPassword
    user: UserName | None = Field(None, description="Administrators: the user on the clusters that it acts as.")


class AccountChange(Shape):
    """What an administrator says about an account; both are always said."""

    user: UserName | None = Field(description="The user on the clusters that it acts as; null: none.")
    disabled: bool = Field(
        strict=True, description="Whether it may do nothing any more; its sessions end and its tokens hold no more."
    )


class AccountView(Shape):
    """An account as administrators, and whoever makes one, see it."""

    name: str
    user: str | None
    is_admin: bool
    disabled: bool
    created_at: datetime


class AccountPage(Shape):
    """Accounts by name."""

    accounts: list[AccountView]
    next: str | None = Field(description="Ask with it as `after`; null: there are no more.")


class LogInRequest(Shape):
    """Name and password."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    password: GivenPassword


class SessionAnswer(Shape):
    """A session that has begun."""

    token: str = Field(description="To be sent as Authorization: Bearer; shown only now.")
    expires_at: datetime = Field(description="It ends then in any case.")
    idle_seconds: int = Field(description="It ends after so long without a request.")
    account: AccountView


class PasswordChange(Shape):
    """The password, and what it shall be."""

    current_password: GivenPassword
    new_password: NewPassword
    revoke_tokens: bool = Field(
        True, strict=True, description="Whether the personal tokens that this account made are revoked as well."
    )


class Me(Shape):
    """Who the caller is."""

    user: str | None = Field(description="On the clusters; null: an administrator must give the account one first.")
    account: str | None = Field(description="The local account; null for people of an identity provider.")
    signed_in_by: Literal["issued", "session", "personal"]
    scopes: list[Scope]
    is_admin: bool


class TokenRequest(Shape):
    """A new personal token."""

    name: TokenName = Field(description="What it is for.")
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(Scope))]
    expires_in_days: Annotated[int, Field(ge=1, le=3650)]


class TokenView(Shape):
    """A personal token, without its secret."""

    id: str
    name: str
    scopes: list[Scope]
    created_at: datetime
    last_used_at: datetime | None = Field(description="To the minute.")
    expires_at: datetime


class MadeTokenAnswer(TokenView):
    """A personal token that has just been made."""

    token: str = Field(description="To be sent as Authorization: Bearer; shown only now.")


class TokenList(Shape):
    """Personal tokens, newest first."""

    tokens: list[TokenView]


class IssuerView(Shape):
    """An identity provider that people can log in with (RFC 8628)."""

    issuer: str
    client_id: str
    scopes: str


class AuthMethods(Shape):
    """How to come by a token."""

    issuers: list[IssuerView]
    accounts: bool = Field(description="Whether there are local accounts to log in to.")
    registration: Literal["closed", "open"]
