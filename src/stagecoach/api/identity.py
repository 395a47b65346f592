"""``/auth/methods``, ``/accounts`` and ``/tokens``: how people log in, and the tokens they make for their programs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from stagecoach.api.access import (
    Administrator,
    CurrentCredential,
    MaybeCredential,
    TokensManager,
    Tools,
    open_to_all,
)
from stagecoach.api.audit_trail import CurrentTrail
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.api.request_rate import address_of
from stagecoach.api.transfers import NO_NUL
from stagecoach.core.accounts import Account, PersonalToken
from stagecoach.core.audit_log import Act
from stagecoach.flows.log_in import change_password, log_in, log_out
from stagecoach.flows.make_account import change_account, list_accounts, make_account
from stagecoach.flows.personal_tokens import list_tokens, make_token, revoke_token
from stagecoach.wire import identity as wire

router = APIRouter(tags=["identity"], responses=PROBLEM_ANSWERS)
AccountName = Annotated[str, Path(min_length=1, max_length=64, pattern=NO_NUL, description="An account's name.")]
TokenId = Annotated[str, Path(max_length=64, pattern=NO_NUL, description="A token's id.")]

# Where programs that read the document go on with what was made.
_ID_OF_TOKEN = {"token_id": "$response.body#/id"}
_NAME_OF_ACCOUNT = {"name": "$response.body#/name"}


@router.get("/auth/methods", summary="Show how to log in", dependencies=[open_to_all()])
async def get_auth_methods(tools: Tools) -> wire.AuthMethods:
    """The identity providers with which a program may log a person in by the device grant, and whether there are accounts."""
    issuers = [
        wire.IssuerView(issuer=one.issuer, client_id=one.client_id, scopes=one.login_scopes)
        for one in tools.settings.auth.issuers
        if one.issuer is not None and one.client_id is not None
    ]
    accounts = tools.settings.accounts
    return wire.AuthMethods(issuers=issuers, accounts=accounts.enabled, registration=accounts.registration)


@router.post(
    "/accounts",
    status_code=201,
    summary="Make an account",
    dependencies=[open_to_all()],
    # A token is understood, and not needed.
    openapi_extra={"security": [{}]},
    responses={201: {"links": {"put_account": {"operationId": "put_account", "parameters": _NAME_OF_ACCOUNT}}}},
)
async def post_account(
    account: wire.AccountRequest, maker: MaybeCredential, tools: Tools, request: Request, trail: CurrentTrail
) -> wire.AccountView:
    """Open to strangers where registration is open: such an account can do nothing until an administrator gives it a user
    on the clusters. Administrators make accounts, with their user, in any case."""
    password = account.password.get_secret_value()
    made = await make_account(tools, maker, account.name, password, account.user, address_of(request))
    # Strangers come here: a line for each of their failures would fill the audit log.
    await trail.record(Act.ACCOUNT_MADE, made.name, user=made.username)
    return _view(made)


@router.get("/accounts", summary="List accounts")
async def get_accounts(
    caller: Administrator,
    tools: Tools,
    after: Annotated[str | None, Query(max_length=64, pattern=NO_NUL, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> wire.AccountPage:
    """By name, for administrators."""
    found = await list_accounts(tools, after, limit + 1)
    page = found[:limit]
    return wire.AccountPage(accounts=[_view(one) for one in page], next=page[-1].name if len(found) > limit else None)


@router.get("/accounts/me", summary="Show who you are")
async def get_me(credential: CurrentCredential) -> wire.Me:
    """The user on the clusters, the account, and what the token may be used for."""
    return wire.Me(
        user=credential.username,
        account=credential.account_name,
        signed_in_by=credential.kind.value,
        scopes=sorted(credential.scopes),
        is_admin=credential.is_admin,
    )


@router.put("/accounts/password", status_code=204, summary="Change your password")
async def put_password(
    change: wire.PasswordChange, credential: CurrentCredential, tools: Tools, request: Request, trail: CurrentTrail
) -> None:
    """Ends every other session of the account."""
    async with trail.of(Act.PASSWORD_CHANGED, credential.account_name, revoke_tokens=change.revoke_tokens):
        await change_password(
            tools,
            credential,
            change.current_password.get_secret_value(),
            change.new_password.get_secret_value(),
            address_of(request),
            revoke_tokens=change.revoke_tokens,
        )


@router.post("/accounts/sessions", status_code=201, summary="Log in", dependencies=[open_to_all()])
async def post_session(who: wire.LogInRequest, tools: Tools, request: Request, trail: CurrentTrail) -> wire.SessionAnswer:
    """With an account's name and password; too many tries get 429."""
    begun = await log_in(tools, who.name, who.password.get_secret_value(), address_of(request))
    # Who is refused is written down with all whose tokens are, and without the name: it may be a password.
    await trail.record(Act.SESSION_BEGUN, begun.account.name, who=begun.account.username)
    return wire.SessionAnswer(
        token=begun.secret,
        expires_at=begun.session.expires_at,
        idle_seconds=tools.settings.accounts.session_idle_seconds,
        account=_view(begun.account),
    )


@router.delete("/accounts/sessions/current", status_code=204, summary="Log out")
async def delete_current_session(credential: CurrentCredential, tools: Tools, trail: CurrentTrail) -> None:
    """Ends the session that the request came with."""
    async with trail.of(Act.SESSION_ENDED, credential.account_name):
        await log_out(tools, credential)


@router.delete("/accounts/sessions", status_code=204, summary="Log out everywhere")
async def delete_sessions(credential: CurrentCredential, tools: Tools, trail: CurrentTrail) -> None:
    """Ends all sessions of the account."""
    async with trail.of(Act.SESSION_ENDED, credential.account_name, everywhere=True):
        await log_out(tools, credential, everywhere=True)


@router.put("/accounts/{name}", summary="Give an account its user on the clusters, or disable it")
async def put_account(
    name: AccountName, change: wire.AccountChange, caller: Administrator, tools: Tools, trail: CurrentTrail
) -> wire.AccountView:
    """For administrators."""
    async with trail.of(Act.ACCOUNT_CHANGED, name, user=change.user, disabled=change.disabled):
        return _view(await change_account(tools, caller, name, username=change.user, is_disabled=change.disabled))


@router.post(
    "/tokens",
    status_code=201,
    summary="Make a personal token",
    responses={201: {"links": {"delete_token": {"operationId": "delete_token", "parameters": _ID_OF_TOKEN}}}},
)
async def post_token(token: wire.TokenRequest, caller: TokensManager, tools: Tools, trail: CurrentTrail) -> wire.MadeTokenAnswer:
    """For a program, with some of your own scopes; not to be made with another personal token. Its secret is shown once."""
    scopes = frozenset(token.scopes)
    async with trail.of(Act.TOKEN_MADE, name=token.name, scopes=sorted(scopes), days=token.expires_in_days) as noted:
        made = await make_token(tools, caller, token.name, scopes, token.expires_in_days)
        noted.target = made.token.id
    return wire.MadeTokenAnswer(**_shown(made.token).model_dump(), token=made.secret)


@router.get("/tokens", summary="List personal tokens")
async def get_tokens(
    caller: TokensManager,
    tools: Tools,
    owner: Annotated[str | None, Query(max_length=64, pattern=NO_NUL, description="Administrators: whose.")] = None,
) -> wire.TokenList:
    """Your own, newest first."""
    return wire.TokenList(tokens=[_shown(token) for token in await list_tokens(tools, caller, owner)])


@router.delete("/tokens/{token_id}", status_code=204, summary="Revoke a personal token")
async def delete_token(token_id: TokenId, caller: TokensManager, tools: Tools, trail: CurrentTrail) -> None:
    """It holds no more."""
    async with trail.of(Act.TOKEN_REVOKED, token_id):
        await revoke_token(tools, caller, token_id)


def _view(account: Account) -> wire.AccountView:
    return wire.AccountView(
        name=account.name,
        user=account.username,
        is_admin=account.is_admin,
        disabled=account.is_disabled,
        created_at=account.created_at,
    )


def _shown(token: PersonalToken) -> wire.TokenView:
    return wire.TokenView(
        id=token.id,
        name=token.name,
        scopes=sorted(token.scopes),
        created_at=token.created_at,
        last_used_at=token.last_used_at,
        expires_at=token.expires_at,
    )
