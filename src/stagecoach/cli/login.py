"""``stagecoach login``: keeps a service's URL and a token, once the service has taken the token."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from stagecoach.cli.config import Access, save_access
from stagecoach.cli.running import FAILED, AsJson, end, exit_code, print_json
from stagecoach.core.errors import StagecoachError


def login(
    url: Annotated[str, typer.Argument(envvar="STAGECOACH_URL", help="The service, like https://transfer.example.org.")],
    token_file: Annotated[
        Path | None, typer.Option(help="Read the token from this file, or from standard input with -.", allow_dash=True)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Keep the URL and token of a service, after trying them.

    The token is asked for, or taken from STAGECOACH_TOKEN or a file: never from the command line, which others can see.
    """
    if not url.startswith(("https://", "http://")):
        raise typer.BadParameter("it begins with https:// (or http://)", param_hint="URL")
    token = _token(token_file)
    if not token or not token.isascii() or any(character.isspace() for character in token):
        raise typer.BadParameter("a token is one word of ASCII characters", param_hint="token")
    access = Access(url.rstrip("/"), token)
    try:
        asyncio.run(_try(access))
        path = save_access(access)
    except StagecoachError as error:
        end(as_json, exit_code(error), error.code, error.message, next_step=getattr(error, "next_step", None))
    except OSError as error:
        end(as_json, FAILED, "system_error", f"{error.filename}: {error.strerror}.")
    else:
        if as_json:
            print_json({"url": access.url, "configFile": str(path)})
        else:
            typer.echo(f"Logged in to {access.url}; kept in {path}.")


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
