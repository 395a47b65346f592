"""The operator's verbs: up, serve, work, migrate, check, openapi, settings-example, dev-token.

Server libraries are imported when a verb needs them, so that the light client's command line starts without them.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec, TypeVar

import typer

from stagecoach.core.errors import SettingsError, StagecoachError

if TYPE_CHECKING:
    from stagecoach.embedded import EmbeddedService
    from stagecoach.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

SettingsFile = Annotated[Path | None, typer.Option("--settings", help="The YAML file; STAGECOACH_SETTINGS when not given.")]


def _one_line_errors(verb: Callable[P, T]) -> Callable[P, T]:
    """A failure that we know ends the program with one line and exit code 1 (2 for a wrong setting)."""

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return verb(*args, **kwargs)
        except SettingsError as error:
            typer.echo(error.message, err=True)
            raise typer.Exit(2) from error
        except StagecoachError as error:
            typer.echo(error.message, err=True)
            raise typer.Exit(1) from error
        except OSError as error:
            typer.echo(f"{error.filename or 'The system'}: {error.strerror or error}.", err=True)
            raise typer.Exit(1) from error
        except ModuleNotFoundError as error:
            typer.echo(
                f"{error.name} is missing: this verb needs pip install 'stagecoach[embedded]' (or [server]).",
                err=True,
            )
            raise typer.Exit(1) from error

    return run


@app.command()
@_one_line_errors
def serve(settings: SettingsFile = None) -> None:
    """Run the API (and a worker in it, unless worker.run_in_api is false)."""
    from stagecoach.logs import start_logging
    from stagecoach.serving import run_api
    from stagecoach.settings import load_settings

    loaded = load_settings(settings)
    start_logging(loaded.log)
    run_api(loaded)


@app.command()
@_one_line_errors
def work(settings: SettingsFile = None) -> None:
    """Run a worker on its own; any number may run on PostgreSQL."""
    from stagecoach.logs import start_logging
    from stagecoach.serving import run_worker_alone
    from stagecoach.settings import load_settings

    loaded = load_settings(settings)
    start_logging(loaded.log)
    asyncio.run(run_worker_alone(loaded))


@app.command()
@_one_line_errors
def migrate(settings: SettingsFile = None) -> None:
    """Bring the database's tables to this version."""
    from stagecoach.settings import load_settings
    from stagecoach.wiring import migrate_database

    asyncio.run(migrate_database(load_settings(settings)))
    typer.echo("The database is at this version.")


@app.command()
@_one_line_errors
def check(
    settings: SettingsFile = None,
    user: Annotated[str | None, typer.Option(help="User to act as on the systems; yours when not given.")] = None,
) -> None:
    """Try the database, S3, and each system's SSH, scheduler and file systems; say what is wrong and what to do."""
    import getpass

    from stagecoach.flows.check_systems import check_everything
    from stagecoach.settings import load_settings
    from stagecoach.wiring import open_toolbox

    loaded = load_settings(settings)

    async def run() -> bool:
        good = True
        async with open_toolbox(loaded, require_tables=False) as tools:
            checks = {"token issuer": _issuer_check(loaded)}
            async for finding in check_everything(tools, user or getpass.getuser(), checks):
                good = good and finding.ok
                typer.echo(f"{'ok   ' if finding.ok else 'WRONG'} {finding.what}: {finding.message}")
        return good

    if not asyncio.run(run()):
        raise typer.Exit(1)


@app.command()
@_one_line_errors
def openapi() -> None:
    """Print the API's OpenAPI document."""
    typer.echo(openapi_text(), nl=False)


@app.command(name="settings-example")
@_one_line_errors
def settings_example() -> None:
    """Print an example settings file with a sentence for every field."""
    from stagecoach.settings_example import example_text

    typer.echo(example_text(), nl=False)


@app.command(name="dev-token")
@_one_line_errors
def dev_token(
    key_file: Annotated[Path, typer.Option(help="Private key; made when absent.")],
    jwks_file: Annotated[Path, typer.Option(help="Its public half, for auth.jwks; written when absent.")],
    user: Annotated[str, typer.Option(help="Unix user that the token names.")],
    ttl_days: Annotated[float, typer.Option(help="Days the token lives.")] = 1.0,
    admin: Annotated[bool, typer.Option("--admin", help="Give the administrator's role.")] = False,
) -> None:
    """Print a token signed by a key of your own, for machines without an identity provider."""
    from stagecoach.api.signing_keys import ensure_signing_key, sign_token
    from stagecoach.settings import AuthSettings

    key = ensure_signing_key(key_file, jwks_file)
    typer.echo(sign_token(key, user, int(ttl_days * 86400), AuthSettings(), is_admin=admin))


@app.command()
@_one_line_errors
def up(
    state_directory: Annotated[
        Path | None, typer.Option(help="Where everything is kept; ~/.local/share/stagecoach when not given.")
    ] = None,
    root: Annotated[
        list[Path] | None, typer.Option(help="Directory that transfers may use; your home when not given. Repeatable.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0 chooses a free one.")] = 8080,
    ready_file: Annotated[Path | None, typer.Option(help="Write URL and token here, as JSON, once it runs.")] = None,
) -> None:
    """Run everything on this machine without any settings: API, worker, S3 store, a local system."""
    from stagecoach.serving import run_embedded

    data_home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    state = (state_directory or data_home / "stagecoach").absolute()
    roots = [str(path.absolute()) for path in root] if root else [str(Path.home())]
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        listened = asyncio.run(run_embedded(state, roots, port, lambda service: _announce(service, ready_file)))
    finally:
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
    if not listened:
        raise typer.Exit(1)


def _issuer_check(settings: Settings) -> Callable[[], Awaitable[str]]:
    from stagecoach.api.tokens import TokenChecker

    async def check() -> str:
        await TokenChecker(settings.auth).read_keys()
        unset = [name for name in ("issuer", "audience") if getattr(settings.auth, name) is None]
        loose = f", but auth.{' and auth.'.join(unset)} unset: tokens it made for others are believed too" if unset else ""
        return f"its keys can be read{loose}."

    return check


def openapi_text() -> str:
    """The frozen document's text."""
    from stagecoach.serving import make_app
    from stagecoach.settings import Settings

    document = make_app(Settings(), with_worker=False).openapi()
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _announce(service: EmbeddedService, ready_file: Path | None) -> None:
    typer.echo(f"Stagecoach is up at {service.url} (system: {service.system}, API: {service.url}/docs)")
    typer.echo(f"Token for {service.username} (valid for {service.token_days} days):\n{service.token}")
    typer.echo("Press Ctrl-C to stop.")
    if ready_file is not None:
        service.write_ready_file(ready_file)
