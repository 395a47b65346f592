"""Logs local accounts in and out, and changes their passwords."""

from __future__ import annotations

from dataclasses import dataclass

from stagecoach.core.access import Credential, CredentialKind
from stagecoach.core.accounts import (
    MAX_PASSWORD_LENGTH,
    Account,
    Session,
    account_key,
    is_account_name,
    normal_password,
    require_new_password,
)
from stagecoach.core.addresses import network_of
from stagecoach.core.bearer_secrets import SESSION_PREFIX, new_secret, secret_digest
from stagecoach.core.errors import Conflict, NotAuthenticated, PasswordRefused, PermissionRefused
from stagecoach.flows.make_account import require_accounts
from stagecoach.flows.toolbox import Toolbox


@dataclass(frozen=True, slots=True)
class LogIn:
    """A session that has just begun; its secret is known here and never again."""

    account: Account
    session: Session
    secret: str

    def __repr__(self) -> str:
        return f"LogIn({self.account.name!r})"


async def log_in(tools: Toolbox, name: str, password: str, address: str | None) -> LogIn:
    """Begin a session.

    Raises:
        NotAuthenticated: which of name and password is wrong is not told, neither in words nor by time.
        TooManyRequests: too many tries. PermissionRefused: this service has no accounts.
    """
    require_accounts(tools)
    account = await _who_knows_the_password(tools, name, password, address)
    settings, now = tools.settings.accounts, tools.now()
    secret = new_secret(SESSION_PREFIX, tools.random_bits)
    session = Session(tools.new_id(), account.id, secret_digest(secret) or "", now, now, tools.soon(settings.session_seconds))
    if not await tools.accounts.add_session(session, account, settings.session_idle_seconds):
        raise NotAuthenticated("The account was changed at this moment; log in again.")
    return LogIn(account, session, secret)


async def log_out(tools: Toolbox, credential: Credential, *, everywhere: bool = False) -> None:
    """End this session, or all of the account. Raises Conflict for who came with something else than a session."""
    if credential.kind is not CredentialKind.SESSION or credential.id is None or credential.account_id is None:
        raise Conflict("You did not log in here, so there is no session to end.")
    if everywhere:
        await tools.accounts.end_sessions(credential.account_id)
    else:
        await tools.accounts.end_session(credential.id)


async def change_password(
    tools: Toolbox, credential: Credential, current: str, new: str, address: str | None, *, revoke_tokens: bool
) -> None:
    """Every other session of the account ends, and with ``revoke_tokens`` the personal tokens that it made are revoked.

    Raises:
        PermissionRefused: the caller came with something else than a session, or the current password is not right.
        PasswordRefused: the new one. TooManyRequests.
    """
    if credential.kind is not CredentialKind.SESSION or credential.account_name is None:
        raise PermissionRefused("Log in to your account here to change its password.")
    new = normal_password(new)
    require_new_password(credential.account_name, new)
    try:
        account = await _who_knows_the_password(tools, credential.account_name, current, address)
    except NotAuthenticated as error:
        # 401 would say that the session does not hold.
        raise PermissionRefused("The current password is not right.") from error
    hashed = await tools.passwords.hash(new)
    if not await tools.accounts.change_password(
        account, hashed, tools.now(), keep_session=credential.id, revoke_tokens=revoke_tokens
    ):
        raise Conflict("The password was changed at the same time; log in again.")


async def _who_knows_the_password(tools: Toolbox, name: str, password: str, address: str | None) -> Account:
    settings, key, place = tools.settings.accounts, account_key(name), network_of(address)
    await tools.log_in_tries.count(
        key,
        place,
        tools.now(),
        per_account=settings.log_in_tries_per_account,
        per_address=settings.log_in_tries_per_address,
    )
    account = await tools.accounts.find(name) if is_account_name(name) else None
    may = account is not None and not account.is_disabled
    try:
        given = normal_password(password)[:MAX_PASSWORD_LENGTH]
    except PasswordRefused:
        given = ""
    is_right = await tools.passwords.verify(given, account.password_hash if account is not None and may else None)
    if account is None or not is_right:
        raise NotAuthenticated("The name or the password is not right.")
    await tools.log_in_tries.forgive(key, place)
    if tools.passwords.is_outdated(account.password_hash):
        await tools.accounts.rehash(account, await tools.passwords.hash(given))
    return account
