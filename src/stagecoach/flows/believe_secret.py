"""Believes or refuses the secrets that this service made itself for people: of sessions and of personal tokens."""

from __future__ import annotations

from datetime import datetime

from stagecoach.core.access import Credential, CredentialKind, Scope, scopes_of
from stagecoach.core.accounts import Account, PersonalToken, Session
from stagecoach.core.bearer_secrets import NODE_PREFIX, SESSION_PREFIX, secret_digest
from stagecoach.core.errors import NotAuthenticated
from stagecoach.flows.toolbox import Toolbox

# What may be revoked is looked at again after so long, where one answer lasts longer (a stream of events).
BELIEVED_SECONDS = 300.0
# When something was last used is written down once in so long.
TOUCH_SECONDS = 60.0


async def believe_secret(tools: Toolbox, secret: str) -> Credential:
    """Whose it is. Raises NotAuthenticated; the message never repeats any of it."""
    if secret.startswith(NODE_PREFIX):
        raise NotAuthenticated("This is the credential of a node; it opens what its agent needs, and nothing else.")
    digest = secret_digest(secret)
    if digest is None:
        raise NotAuthenticated("The token does not hold.")
    if secret.startswith(SESSION_PREFIX):
        return await _believe_session(tools, digest)
    return await _believe_personal(tools, digest)


async def _believe_session(tools: Toolbox, digest: str) -> Credential:
    settings, now = tools.settings.accounts, tools.now()
    found = await tools.accounts.find_session(digest) if settings.enabled else None
    if found is None or found[1].is_disabled or not found[0].holds(now, settings.session_idle_seconds):
        raise NotAuthenticated("You are not logged in any more; log in again.")
    session, account = found
    if _is_stale(session.last_used_at, now):
        await tools.accounts.touch_session(session.id, now)
    return _of_account(session, account, now)


def _of_account(session: Session, account: Account, now: datetime) -> Credential:
    return Credential(
        CredentialKind.SESSION,
        account.username,
        min(now.timestamp() + BELIEVED_SECONDS, session.expires_at.timestamp()),
        scopes_of(is_admin=account.is_admin),
        id=session.id,
        account_id=account.id,
        account_name=account.name,
    )


async def _believe_personal(tools: Toolbox, digest: str) -> Credential:
    now = tools.now()
    token = await tools.personal_tokens.find(digest) if tools.settings.personal_tokens.enabled else None
    if token is None or now >= token.expires_at:
        raise NotAuthenticated("The token is revoked, expired or was never made; make a new one.")
    scopes, account = await _scopes_today(tools, token)
    if token.last_used_at is None or _is_stale(token.last_used_at, now):
        await tools.personal_tokens.touch(token.id, now)
    return Credential(
        CredentialKind.PERSONAL,
        token.owner,
        min(now.timestamp() + BELIEVED_SECONDS, token.expires_at.timestamp()),
        scopes,
        id=token.id,
        account_id=token.account_id,
        account_name=None if account is None else account.name,
    )


async def _scopes_today(tools: Toolbox, token: PersonalToken) -> tuple[frozenset[Scope], Account | None]:
    """A local account's token is worth no more than the account is now: its user, its role, whether it is disabled."""
    if token.account_id is None:
        return token.scopes, None
    account = await tools.accounts.get(token.account_id) if tools.settings.accounts.enabled else None
    if account is None or account.is_disabled or account.username != token.owner:
        raise NotAuthenticated("The account that made this token may not use it any more.")
    return token.scopes & scopes_of(is_admin=account.is_admin), account


def _is_stale(last_used_at: datetime, now: datetime) -> bool:
    return (now - last_used_at).total_seconds() >= TOUCH_SECONDS
