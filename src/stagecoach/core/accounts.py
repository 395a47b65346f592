"""Local accounts, what they log in with, and the tokens that people make: the things themselves and their rules."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime

from stagecoach.core.access import Scope
from stagecoach.core.errors import InvalidRequest, PasswordRefused

MIN_PASSWORD_LENGTH = 12
MAX_PASSWORD_LENGTH = 256
NAME_PATTERN = r"^[a-z][a-z0-9._-]{0,31}$"
# Paths below /accounts have these names.
_RESERVED = frozenset({"me", "password", "sessions"})
_NAME = re.compile(r"[a-z][a-z0-9._-]{0,31}", re.ASCII)
# Lone surrogates, which JSON can hold, are no text that a database or an answer could carry.
_USERNAME = re.compile(r"[^\x00-\x20\x7f/\ud800-\udfff]{1,64}")


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody whom this service itself knows. ``username`` is the user on the clusters, if an administrator gave one."""

    id: str
    name: str
    password_hash: str
    username: str | None
    is_admin: bool
    is_disabled: bool
    created_at: datetime
    password_changed_at: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """One log-in of an account."""

    id: str
    account_id: str
    secret_sha256: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime

    def holds(self, now: datetime, idle_seconds: float) -> bool:
        """Neither too old nor unused for too long."""
        return now < self.expires_at and (now - self.last_used_at).total_seconds() < idle_seconds


@dataclass(frozen=True, slots=True)
class PersonalToken:
    """What a person made for a program. ``account_id`` where it was made by a local account: it falls with that."""

    id: str
    owner: str
    account_id: str | None
    name: str
    scopes: frozenset[Scope]
    secret_sha256: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime


def is_username(name: object) -> bool:
    """Whether this can be a user on a cluster."""
    return isinstance(name, str) and _USERNAME.fullmatch(name) is not None and name.isprintable() and name not in {".", ".."}


def is_account_name(name: str) -> bool:
    """Lower-case ASCII, so that no two names look alike."""
    return _NAME.fullmatch(name) is not None and name not in _RESERVED


def require_account_name(name: str) -> None:
    """Raises InvalidRequest."""
    if not is_account_name(name):
        raise InvalidRequest("An account's name begins with a letter; up to 32 of a-z, 0-9, '.', '_' and '-'.")


def require_username(name: str) -> None:
    """Raises InvalidRequest."""
    if not is_username(name):
        raise InvalidRequest("A user on the clusters is 1 to 64 characters without spaces, '/' and control characters.")


def normal_password(password: str) -> str:
    """The same password, however a keyboard composed its letters. Raises PasswordRefused for what is no text."""
    try:
        password.encode()
    except UnicodeEncodeError:
        raise PasswordRefused("The password is no text.") from None
    return unicodedata.normalize("NFKC", password)


def require_new_password(account_name: str, password: str) -> None:
    """Length is what counts. Raises PasswordRefused."""
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        raise PasswordRefused(
            f"A password has {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters; several words make a good one."
        )
    if len(set(password)) < 5 or (account_name in password.lower() and len(account_name) * 2 > len(password)):
        raise PasswordRefused("This password is too easy to guess; take several words that are not your name.")


def account_key(account_name: str) -> str:
    """What tries to log in are counted by: people type passwords where names belong, so names are not kept."""
    return hashlib.sha256(account_name.encode("utf-8", "surrogatepass")).hexdigest()
