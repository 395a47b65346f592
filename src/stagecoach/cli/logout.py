"""``stagecoach logout``: ends the log-in where it was made, and forgets it here."""

from __future__ import annotations

import asyncio

import typer

from stagecoach.cli.config import Access, config_file, stored_access
from stagecoach.cli.provider import GrantRefused, post
from stagecoach.cli.running import FAILED, AsJson, end, exit_code, print_json
from stagecoach.core.bearer_secrets import SESSION_PREFIX
from stagecoach.core.errors import StagecoachError


def logout(as_json: AsJson = False) -> None:
    """End the log-in at the identity provider or the service, and forget the token that was kept.

    A token that you brought yourself is only forgotten: it holds until it expires or is revoked.
    """
    try:
        access = stored_access()
        try:
            if access is not None:
                _end(access)
        finally:
            config_file().unlink(missing_ok=True)
    except (StagecoachError, GrantRefused) as error:
        code = exit_code(error) if isinstance(error, StagecoachError) else FAILED
        why = error.message if isinstance(error, StagecoachError) else "The identity provider refused to."
        end(as_json, code, "not_revoked", f"The token is forgotten here, but the log-in could not be ended: {why}")
    except OSError as error:
        end(as_json, FAILED, "system_error", f"{error.filename}: {error.strerror}.")
    else:
        if as_json:
            print_json({"loggedOut": access is not None})
        else:
            typer.echo("Nobody was logged in." if access is None else f"Logged out of {access.url}.")


def _end(access: Access) -> None:
    renewal = access.renewal
    if renewal is not None and renewal.revocation_endpoint is not None:
        form = {"token": renewal.refresh_token, "token_type_hint": "refresh_token", "client_id": renewal.client_id}
        post(renewal.revocation_endpoint, form)
    if access.token is not None and access.token.startswith(SESSION_PREFIX):
        asyncio.run(_end_session(access))


async def _end_session(access: Access) -> None:
    async with access.client() as client:
        await client.log_out()
