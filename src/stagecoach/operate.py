"""The operator's verbs: up, serve, work, migrate, check, openapi, settings-example, dev-token.

Server libraries are imported when a verb needs them, so that the light client's command line starts without them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec, TypeVar

import typer

from stagecoach.core.errors import SettingsError, StagecoachError, Unavailable

if TYPE_CHECKING:
    from fastapi import FastAPI

    from stagecoach.embedded import EmbeddedService
    from stagecoach.flows.toolbox import Toolbox
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
    from stagecoach.settings import load_settings

    loaded = load_settings(settings)
    start_logging(loaded.log)
    _run_api(loaded)


@app.command()
@_one_line_errors
def work(settings: SettingsFile = None) -> None:
    """Run a worker on its own; any number may run on PostgreSQL."""
    from stagecoach.logs import start_logging
    from stagecoach.settings import load_settings

    loaded = load_settings(settings)
    start_logging(loaded.log)
    asyncio.run(_work(loaded))


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
    data_home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    state = (state_directory or data_home / "stagecoach").absolute()
    roots = [str(path.absolute()) for path in root] if root else [str(Path.home())]
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    asyncio.run(_up(state, roots, port, ready_file))


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
    from stagecoach.settings import Settings

    document = _make_app(Settings(), with_worker=False).openapi()
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _make_app(settings: Settings, *, with_worker: bool) -> FastAPI:
    from stagecoach.api.app import create_app

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Toolbox]:
        from stagecoach.wiring import open_toolbox

        nudged = asyncio.Event()
        async with open_toolbox(settings, nudged.set) as tools:
            if not with_worker:
                yield tools
                return
            stop = asyncio.Event()
            task = asyncio.create_task(_run_worker(tools, nudged, stop))
            try:
                yield tools
            finally:
                stop.set()
                await task

    return create_app(opened, settings.auth)


async def _run_worker(tools: Toolbox, nudged: asyncio.Event, stop: asyncio.Event) -> None:
    from stagecoach.worker import Worker

    name = f"{socket.gethostname()[:32]}-{os.getpid()}-{secrets.token_hex(4)}"
    await Worker(tools, name, nudged).run(stop)


async def _work(settings: Settings) -> None:
    from stagecoach.wiring import open_toolbox

    stop, nudged = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_toolbox(settings, nudged.set) as tools:
        await _run_worker(tools, nudged, stop)


def _run_api(settings: Settings) -> None:
    import uvicorn

    from stagecoach.api.tokens import TokenChecker
    from stagecoach.wiring import open_toolbox

    _require_free_address(settings.server.host, settings.server.port)

    async def begin() -> None:
        # What is wrong is said in one line before the web server takes over, which would print a stack.
        try:
            await TokenChecker(settings.auth).read_keys()
        except Unavailable as error:
            logging.getLogger(__name__).warning("%s Tokens are refused until it does.", error.message)
        async with open_toolbox(settings):
            pass

    asyncio.run(begin())
    uvicorn.run(
        _make_app(settings, with_worker=settings.worker.run_in_api),
        host=settings.server.host,
        port=settings.server.port,
        log_config=None,
        server_header=False,
    )


def _require_free_address(host: str, port: int) -> None:
    """One line that names the setting, where the web server would log several and name none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(f"settings: server: {host}:{port} cannot be listened on ({error.strerror or error}).") from error


async def _up(state: Path, roots: list[str], port: int, ready_file: Path | None) -> None:
    import uvicorn

    from stagecoach.embedded import embedded_service
    from stagecoach.logs import start_logging

    async with embedded_service(state, roots, port) as service:
        start_logging(service.settings.log)
        # The bundled store has no lifecycle rules, which is no news to anybody here.
        logging.getLogger("stagecoach.object_stores.buckets").setLevel(logging.ERROR)
        application = _make_app(service.settings, with_worker=True)
        config = uvicorn.Config(
            application, host=service.settings.server.host, port=service.settings.server.port, log_config=None
        )

        class AnnouncingServer(uvicorn.Server):
            """Tells the person, once it listens."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                if self.started:
                    _announce(service, ready_file)

        server = AnnouncingServer(config)
        # The web server raises the signal that ended it once more; by default that would end us before the store is.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: None)
        try:
            await server.serve()
        finally:
            if ready_file is not None:
                await asyncio.to_thread(ready_file.unlink, missing_ok=True)
    if not server.started:
        sys.exit(1)


def _announce(service: EmbeddedService, ready_file: Path | None) -> None:
    typer.echo(f"Stagecoach is up at {service.url} (system: {service.system}, API: {service.url}/docs)")
    typer.echo(f"Token for {service.username} (valid for {service.token_days} days):\n{service.token}")
    typer.echo("Press Ctrl-C to stop.")
    if ready_file is not None:
        service.write_ready_file(ready_file)
