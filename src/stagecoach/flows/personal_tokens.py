"""Makes, lists and revokes the tokens that people give to their programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stagecoach.core.access import Caller, CredentialKind, Scope
from stagecoach.core.accounts import PersonalToken
from stagecoach.core.bearer_secrets import PERSONAL_PREFIX, new_secret, secret_digest
from stagecoach.core.errors import InvalidRequest, PermissionRefused, TokenNotFound, TooManyTokens
from stagecoach.flows.toolbox import Toolbox

DAY_SECONDS = 86400


@dataclass(frozen=True, slots=True)
class MadeToken:
    """A token that has just been made; its secret is known here and never again."""

    token: PersonalToken
    secret: str

    def __repr__(self) -> str:
        return f"MadeToken({self.token.id!r})"


async def make_token(tools: Toolbox, caller: Caller, name: str, scopes: frozenset[Scope], days: int) -> MadeToken:
    """For the caller, with no more scopes than he came with.

    Raises:
        PermissionRefused: the caller came with a personal token (it must make nothing that outlives it), or lacks a scope.
        InvalidRequest: it would live longer than the settings allow. TooManyTokens.
    """
    settings, credential = tools.settings.personal_tokens, caller.credential
    if not settings.enabled:
        raise PermissionRefused("Personal tokens are switched off here.")
    if credential is None or credential.kind is CredentialKind.PERSONAL:
        raise PermissionRefused("A personal token cannot make another; log in to make one.")
    if missing := sorted(scopes - credential.scopes):
        raise PermissionRefused(f"You do not have the scope {missing[0]} yourself.", data={"scope": missing[0].value})
    most = min(settings.max_days, settings.max_admin_days) if Scope.ADMIN in scopes else settings.max_days
    if days > most:
        what = "with the scope admin " if Scope.ADMIN in scopes else ""
        raise InvalidRequest(f"A personal token {what}lives {most} days at most here.", data={"limit_days": most})
    secret = new_secret(PERSONAL_PREFIX, tools.random_bits)
    token = PersonalToken(
        tools.new_id(),
        caller.username,
        credential.account_id,
        name,
        scopes,
        secret_digest(secret) or "",
        tools.now(),
        None,
        tools.soon(days * DAY_SECONDS),
    )
    if not await tools.personal_tokens.add(token, settings.max_per_user):
        raise TooManyTokens(
            f"You have {settings.max_per_user} personal tokens, which is the limit; revoke one first.",
            data={"limit": settings.max_per_user},
        )
    return MadeToken(token, secret)


async def list_tokens(tools: Toolbox, caller: Caller, owner: str | None) -> Sequence[PersonalToken]:
    """The caller's own; an administrator's may ask for somebody else's. Raises PermissionRefused."""
    wanted = owner if owner is not None else caller.username
    if not caller.may_see(wanted):
        raise PermissionRefused("Only an administrator may see somebody else's tokens.")
    return await tools.personal_tokens.of_owner(wanted, tools.now())


async def revoke_token(tools: Toolbox, caller: Caller, token_id: str) -> None:
    """From now on it holds no more. Raises TokenNotFound also for somebody else's."""
    token = await tools.personal_tokens.get(token_id)
    if token is None or not caller.may_see(token.owner):
        raise TokenNotFound("There is no token with this id among yours.")
    await tools.personal_tokens.remove(token.id)
