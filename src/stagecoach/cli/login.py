"""``stagecoach login``: comes by a token, tries it, and keeps it with the service's URL."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from stagecoach.cli.config import Access, Renewal, save_access
from stagecoach.cli.device_login import Prompt, log_in_by_device
from stagecoach.cli.provider import read_metadata
from stagecoach.cli.running import FAILED, INTERRUPTED, AsJson, end, exit_code, print_json
from stagecoach.cli.words import plain
from stagecoach.client.errors import ServiceError
from stagecoach.core.addresses import is_private_road
from stagecoach.core.errors import StagecoachError
from stagecoach.wire.identity import IssuerView


def login(
    url: Annotated[str, typer.Argument(envvar="STAGECOACH_URL", help="The service, like https://transfer.example.org.")],
    token_file: Annotated[
        Path | None, typer.Option(help="Read the token from this file, or from standard input with -.", allow_dash=True)
    ] = None,
    issuer: Annotated[
        str | None, typer.Option(help="Log in with this identity provider of the service; the only one when not given.")
    ] = None,
    insecure_http: Annotated[
        bool,
        typer.Option("--insecure-http", help="Send the token in the open over http, for anybody on the way."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Log in with the service's identity provider in a browser, or keep a token, after trying it.

    A token is taken from STAGECOACH_TOKEN or a file, or asked for: never from the command line, which others can see.
    """
    if not url.startswith(("https://", "http://")):
        raise typer.BadParameter("it begins with https:// (or http://)", param_hint="URL")
    if not insecure_http and not is_private_road(url):
        raise typer.BadParameter(
            "over http anybody on the way reads your token; use https://, or say --insecure-http", param_hint="URL"
        )
    if issuer is not None and token_file is not None:
        raise typer.BadParameter("either a token or a provider", param_hint="--issuer")
    url = url.rstrip("/")
    try:
        access = _access(url, token_file, issuer)
        # Not to be renewed by the trial: what is kept below would be spent already.
        asyncio.run(_try(replace(access, renewal=None)))
        path = save_access(access)
    except KeyboardInterrupt:
        end(as_json, INTERRUPTED, "interrupted", "Interrupted; you are not logged in.")
    except StagecoachError as error:
        end(as_json, exit_code(error), error.code, error.message, next_step=getattr(error, "next_step", None))
    except OSError as error:
        end(as_json, FAILED, "system_error", f"{error.filename}: {error.strerror}.")
    else:
        if as_json:
            print_json({"url": access.url, "configFile": str(path)})
        else:
            typer.echo(f"Logged in to {access.url}; kept in {path}.")


def _access(url: str, token_file: Path | None, issuer: str | None) -> Access:
    has_token = token_file is not None or (issuer is None and bool(os.environ.get("STAGECOACH_TOKEN")))
    provider = None if has_token else _chosen(asyncio.run(_providers(url)), issuer)
    if provider is None:
        token = _token(token_file)
        if not token or not token.isascii() or any(character.isspace() for character in token):
            raise typer.BadParameter("a token is one word of ASCII characters", param_hint="token")
        return Access(url, token)
    metadata = read_metadata(provider.issuer)
    tokens = log_in_by_device(metadata, provider.client_id, provider.scopes, _show)
    if tokens.refresh_token is None:
        return Access(url, tokens.access_token)
    expires_at = time.time() + tokens.lives_seconds
    renewal = Renewal(
        provider.issuer,
        provider.client_id,
        metadata.token_endpoint,
        metadata.revocation_endpoint,
        tokens.refresh_token,
        expires_at,
    )
    return Access(url, tokens.access_token, renewal)


def _chosen(providers: Sequence[IssuerView], issuer: str | None) -> IssuerView | None:
    known = ", ".join(plain(one.issuer) for one in providers) or "none"
    if issuer is not None:
        for one in providers:
            if one.issuer == issuer:
                return one
        raise typer.BadParameter(f"the service has: {known}", param_hint="--issuer")
    if len(providers) > 1:
        raise typer.BadParameter(f"choose one of: {known}", param_hint="--issuer")
    return providers[0] if providers else None


async def _providers(url: str) -> Sequence[IssuerView]:
    async with Access(url, None).client() as client:
        try:
            return (await client.auth_methods()).issuers
        except ServiceError as error:
            # A service of an earlier version does not tell.
            if error.status in {401, 404}:
                return ()
            raise


def _show(prompt: Prompt) -> None:
    typer.echo(f"To log in, open {plain(prompt.url)} in a browser and enter the code {plain(prompt.code)}", err=True)
    if prompt.complete_url is not None:
        typer.echo(f"(or open {plain(prompt.complete_url)})", err=True)
    typer.echo("Waiting for you to agree there; Ctrl-C ends this.", err=True)


def _token(token_file: Path | None) -> str:
    if token_file is not None:
        try:
            return (sys.stdin.read() if str(token_file) == "-" else token_file.read_text(encoding="utf-8")).strip()
        except (OSError, ValueError):
            raise typer.BadParameter("the file cannot be read", param_hint="--token-file") from None
    token = os.environ.get("STAGECOACH_TOKEN") or typer.prompt("Token", hide_input=True, err=True)
    return str(token).strip()


async def _try(access: Access) -> None:
    async with access.client() as client:
        await client.transfers(limit=1)
