"""The operator's verbs: up, serve, work, migrate, check, audit, audit-log, account, convert-firecrest-config and others.

Server libraries are imported when a verb needs them, so that the light client's command line starts without them.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec, TypeVar

import typer

from stagecoach.core.errors import SettingsError, StagecoachError

if TYPE_CHECKING:
    from stagecoach.embedded import EmbeddedService
    from stagecoach.flows.audit import Audit
    from stagecoach.settings import IssuerSettings, Settings

P = ParamSpec("P")
T = TypeVar("T")
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

FOUND_EXIT_CODE = 3
UNSEEN_EXIT_CODE = 4
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
    from stagecoach.logs import secrets_of, start_logging
    from stagecoach.serving import run_api
    from stagecoach.settings import load_settings

    loaded = load_settings(settings)
    start_logging(loaded.log, secrets_of(loaded))
    run_api(loaded)


@app.command()
@_one_line_errors
def work(settings: SettingsFile = None) -> None:
    """Run a worker on its own; any number may run on PostgreSQL."""
    from stagecoach.logs import secrets_of, start_logging
    from stagecoach.serving import run_worker_alone
    from stagecoach.settings import load_settings

    loaded = load_settings(settings)
    start_logging(loaded.log, secrets_of(loaded))
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
            checks = {f"token issuer {one.label}": _issuer_check(loaded, one) for one in loaded.auth.issuers}
            async for finding in check_everything(tools, user or getpass.getuser(), checks):
                good = good and finding.ok
                typer.echo(f"{'ok   ' if finding.ok else 'WRONG'} {finding.what}: {finding.message}")
        return good

    if not asyncio.run(run()):
        raise typer.Exit(1)


@app.command()
@_one_line_errors
def audit(
    settings: SettingsFile = None,
    fix: Annotated[bool, typer.Option("--fix", help="Remove what is found, then look again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
    days: Annotated[float, typer.Option(min=0, help="Look beside the targets of uploads that ended in so many days.")] = 30.0,
    grace_seconds: Annotated[float, typer.Option(min=0, help="What is younger is never an orphan.")] = 300.0,
) -> None:
    """Compare database, S3, schedulers and work directories; list what nothing needs any more (exit code 3)."""
    from stagecoach.flows.audit_fix import run_audit
    from stagecoach.flows.audit_looks import Scope
    from stagecoach.flows.audit_words import as_document, as_lines
    from stagecoach.logs import secrets_of, start_logging
    from stagecoach.settings import load_settings
    from stagecoach.wiring import open_toolbox

    loaded = load_settings(settings)
    start_logging(loaded.log, secrets_of(loaded))

    async def run() -> Audit:
        async with open_toolbox(loaded) as tools:
            return await run_audit(tools, Scope(days, grace_seconds), fix=fix)

    report = asyncio.run(run())
    typer.echo(json.dumps(as_document(report), indent=2, ensure_ascii=False) if as_json else "\n".join(as_lines(report)))
    if report.findings or report.unseen:
        raise typer.Exit(FOUND_EXIT_CODE if report.findings else UNSEEN_EXIT_CODE)


@app.command(name="audit-log")
@_one_line_errors
def audit_log(
    settings: SettingsFile = None,
    since: Annotated[str | None, typer.Option(help="From this time on, like 2030-01-31T23:59:59Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time.")] = None,
    who: Annotated[str | None, typer.Option(help="Only what this user did.")] = None,
) -> None:
    """Print who did what: one JSON object a line, oldest first."""
    from stagecoach.core.audit_log import AuditFilter
    from stagecoach.flows.record_act import as_json, audit_lines
    from stagecoach.settings import load_settings
    from stagecoach.wiring import open_toolbox

    wanted = AuditFilter(_moment(since, "--since"), _moment(until, "--until"), who, limit=sys.maxsize)
    loaded = load_settings(settings)

    async def run() -> None:
        async with open_toolbox(loaded) as tools:
            async for line in audit_lines(tools, wanted):
                typer.echo(as_json(line))

    asyncio.run(run())


def _moment(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise SettingsError(f"{option} {text}: must be a time like 2030-01-31T23:59:59Z.") from error


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


@app.command(name="convert-firecrest-config")
@_one_line_errors
def convert_firecrest_config(
    file: Annotated[Path, typer.Argument(help="FirecREST's YAML file.", exists=True, dir_okay=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it here; to standard output when not given.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    secrets_directory: Annotated[
        str, typer.Option(help="Where the service will find the secrets that stood in FirecREST's file itself.")
    ] = "/run/secrets",
) -> None:
    """Read FirecREST v2's settings and write these; say what was not carried over."""
    from stagecoach.firecrest_settings import convert

    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: is no text.") from error
    if output is not None and output.exists() and (not force or output.samefile(file)):
        raise SettingsError(f"{output}: is there already{'' if force else '; --force replaces it'}.")
    converted = convert(text, secrets_directory)
    if output is None:
        typer.echo(converted.text, nl=False)
    else:
        with output.open("w" if force else "x", encoding="utf-8") as written:
            written.write(converted.text)
    for left in converted.left:
        typer.echo(f"not carried over: {left.place}: {left.why}", err=True)
    typer.echo(f"{len(converted.left)} settings were not carried over; {converted.checks} places say CHECK.", err=True)


@app.command(name="dev-token")
@_one_line_errors
def dev_token(
    key_file: Annotated[Path, typer.Option(help="Private key; made when absent.")],
    jwks_file: Annotated[Path, typer.Option(help="Its public half, for auth.issuers.jwks; written when absent.")],
    user: Annotated[str, typer.Option(help="Unix user that the token names.")],
    ttl_days: Annotated[float, typer.Option(help="Days the token lives.")] = 1.0,
    admin: Annotated[bool, typer.Option("--admin", help="Give the administrator's role.")] = False,
) -> None:
    """Print a token signed by a key of your own, for machines without an identity provider."""
    from stagecoach.api.signing_keys import ensure_signing_key, sign_token
    from stagecoach.settings import IssuerSettings

    key = ensure_signing_key(key_file, jwks_file)
    typer.echo(sign_token(key, user, int(ttl_days * 86400), IssuerSettings(jwks=str(jwks_file)), is_admin=admin))


@app.command()
@_one_line_errors
def account(
    name: Annotated[str, typer.Argument(help="The account's name.")],
    settings: SettingsFile = None,
    user: Annotated[str | None, typer.Option(help="The user on the clusters that it acts as; none when not given.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Make it an administrator's.")] = False,
    disable: Annotated[bool, typer.Option("--disable", help="It may do nothing any more.")] = False,
    password_file: Annotated[
        Path | None, typer.Option(help="Make the account, with the password in this file.", exists=True, dir_okay=False)
    ] = None,
) -> None:
    """Make a local account, or say anew which user on the clusters it acts as and what it may do."""
    from stagecoach.core.audit_log import Act
    from stagecoach.flows.make_account import add_account, set_account
    from stagecoach.flows.record_act import record_act
    from stagecoach.settings import load_settings
    from stagecoach.wiring import open_toolbox

    loaded = load_settings(settings)

    async def run() -> None:
        async with open_toolbox(loaded) as tools:
            if password_file is not None:
                password = password_file.read_text(encoding="utf-8").rstrip("\n")
                await add_account(tools, name, password, user, is_admin=admin)
            await set_account(tools, name, username=user, is_disabled=disable, is_admin=admin)
            act = Act.ACCOUNT_CHANGED if password_file is None else Act.ACCOUNT_MADE
            said = {"user": user, "admin": admin, "disabled": disable, "by": "stagecoach account"}
            await record_act(tools, None, act, name, detail=said)

    asyncio.run(run())
    role = " as an administrator" if admin else ""
    acts = f"acts as {user}{role}" if user is not None else "has no user on the clusters"
    typer.echo(f"The account {name} {'is disabled' if disable else acts}.")
    if not loaded.accounts.enabled:
        typer.echo("Nobody can log in to it before accounts.enabled is true.", err=True)


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


def _issuer_check(settings: Settings, issuer: IssuerSettings) -> Callable[[], Awaitable[str]]:
    from stagecoach.api.tokens import TokenChecker

    async def check() -> str:
        await TokenChecker(settings.auth).read_keys(issuer)
        unset = [name for name in ("issuer", "audience") if getattr(issuer, name) is None]
        loose = f", but its {' and '.join(unset)} unset: tokens it made for others are believed too" if unset else ""
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
    typer.echo(f"In a browser, signed in as {service.username}: {service.portal_url}")
    typer.echo(f"Token for {service.username} (valid for {service.token_days} days):\n{service.token}")
    typer.echo("Press Ctrl-C to stop.")
    if ready_file is not None:
        service.write_ready_file(ready_file)
