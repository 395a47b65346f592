"""Makes local accounts, and says which user on the clusters each acts as.

This is where a stranger could become somebody: an account gets a user on the clusters only from an administrator, or
from who is that user already (where the settings allow it). Registration by strangers never gives one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stagecoach.core.access import Caller, Credential, CredentialKind
from stagecoach.core.accounts import (
    Account,
    is_account_name,
    normal_password,
    require_account_name,
    require_new_password,
    require_username,
)
from stagecoach.core.addresses import network_of
from stagecoach.core.errors import AccountNotFound, PermissionRefused
from stagecoach.flows.toolbox import Toolbox


async def make_account(
    tools: Toolbox, maker: Credential | None, name: str, password: str, username: str | None, address: str | None
) -> Account:
    """A new account, made by a stranger (None) or by somebody signed in.

    Raises:
        PermissionRefused: registration is closed, or the maker may not give that user.
        InvalidRequest: name, password or user are none. NameTaken. TooManyRequests.
    """
    require_accounts(tools)
    user = _user_given_by(tools, maker, name, username)
    settings = tools.settings.accounts
    await tools.log_in_tries.count(
        None,
        network_of(address),
        tools.now(),
        per_account=settings.log_in_tries_per_account,
        per_address=settings.log_in_tries_per_address,
    )
    return await add_account(tools, name, password, user, is_admin=False)


async def add_account(tools: Toolbox, name: str, password: str, username: str | None, *, is_admin: bool) -> Account:
    """A new account; whoever calls has decided that it may be. Raises InvalidRequest, NameTaken, TooManyRequests."""
    require_account_name(name)
    if username is not None:
        require_username(username)
    password = normal_password(password)
    require_new_password(name, password)
    hashed, now = await tools.passwords.hash(password), tools.now()
    account = Account(tools.new_id(), name, hashed, username, is_admin, False, now, now)
    await tools.accounts.add(account)
    return account


async def list_accounts(tools: Toolbox, after: str | None, limit: int) -> Sequence[Account]:
    """For administrators: all accounts, by name."""
    return await tools.accounts.page(after, limit)


async def change_account(tools: Toolbox, admin: Caller, name: str, *, username: str | None, is_disabled: bool) -> Account:
    """For administrators, by a log-in of their own. Raises as ``set_account``, and PermissionRefused."""
    if not admin.is_admin or not _is_person(admin.credential):
        raise PermissionRefused("This is for administrators, logged in: a personal token gives nobody anything.")
    return await set_account(tools, name, username=username, is_disabled=is_disabled)


async def set_account(
    tools: Toolbox, name: str, *, username: str | None, is_disabled: bool, is_admin: bool | None = None
) -> Account:
    """Which user on the clusters the account acts as, and whether it may do anything at all; whoever calls has decided.

    ``is_admin`` None: as it was. Raises AccountNotFound, InvalidRequest.
    """
    account = await tools.accounts.find(name) if is_account_name(name) else None
    if account is None:
        raise AccountNotFound("There is no account of this name.")
    if username is not None:
        require_username(username)
    role = account.is_admin if is_admin is None else is_admin
    await tools.accounts.change(account.id, username=username, is_disabled=is_disabled, is_admin=role)
    return replace(account, username=username, is_disabled=is_disabled, is_admin=role)


def require_accounts(tools: Toolbox) -> None:
    """Raises PermissionRefused where the service has none."""
    if not tools.settings.accounts.enabled:
        raise PermissionRefused("This service has no accounts of its own; log in with its identity provider.")


def _user_given_by(tools: Toolbox, maker: Credential | None, name: str, username: str | None) -> str | None:
    settings = tools.settings.accounts
    if maker is not None and _is_person(maker):
        if maker.is_admin:
            return username
        if settings.name_is_user and maker.username == name and username in {None, name}:
            return name
    if username is not None:
        raise PermissionRefused("Only an administrator, logged in, may say which user on the clusters an account acts as.")
    if settings.registration == "open":
        return None
    raise PermissionRefused("Registration is closed here; ask an administrator for an account.")


def _is_person(credential: Credential | None) -> bool:
    """A personal token makes nothing that outlives it."""
    return credential is not None and credential.kind is not CredentialKind.PERSONAL
