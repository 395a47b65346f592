"""Opens the database, and brings its tables up to date."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import IntEnum
from importlib import resources
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, make_url
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from stagecoach.core.errors import DatabaseUnavailable, SettingsError

log = logging.getLogger(__name__)

POOL_SECONDS = 10
CONNECT_SECONDS = 5
ANSWER_SECONDS = 20
HEALTH_SECONDS = 3
READS_ONLY = "stagecoach_reads_only"


class Turn(IntEnum):
    """What one transaction at a time does, over all processes: the numbers of PostgreSQL's advisory locks."""

    MIGRATE = 7238501
    COUNT_TRANSFERS = 7238502
    COUNT_LOG_INS = 7238503
    CHANGE_SETTINGS = 7238504
    COUNT_TOKENS = 7238505
    COUNT_NODES = 7238506


async def take_turn(connection: AsyncConnection, turn: Turn) -> None:
    """Until the transaction's end nobody else has it. On SQLite a writer is alone anyway."""
    if connection.dialect.name == "postgresql":
        await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({turn.value})")


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that only reads: on SQLite it does not wait for the writer's lock. Raises DatabaseUnavailable."""
    with _plain_errors():
        async with asyncio.timeout(_seconds(engine)), engine.execution_options(**{READS_ONLY: True}).connect() as connection:
            yield connection


@asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction, committed at the end. Raises DatabaseUnavailable."""
    with _plain_errors():
        async with asyncio.timeout(_seconds(engine)), engine.begin() as connection:
            yield connection


def _seconds(engine: AsyncEngine) -> float | None:
    """A frozen server keeps its connections and minds no timeout of its own. SQLite has none to freeze, and its thread
    would go on after a timeout of ours."""
    return None if engine.dialect.name == "sqlite" else ANSWER_SECONDS


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What the driver says holds statements and values; the user is told only that the database is away."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout, OSError) as error:
        log.warning("database: %s: %s", type(error).__name__, str(error).splitlines()[0] if str(error) else "")
        raise DatabaseUnavailable("The database does not answer; try again in a moment.") from error
    except DBAPIError as error:
        if type(error) is DatabaseError:  # nothing more special: SQLite says so of a file that is no database
            raise DatabaseUnavailable("The database's file is damaged or is no database; restore it from a backup.") from error
        if not error.connection_invalidated:
            raise
        raise DatabaseUnavailable("The database's connection was lost; try again in a moment.") from error


class _Connection(sqlite3.Connection):
    """Keeps the log of writes aside, and rolls back before it closes.

    To change a new file's journal takes a lock that SQLite does not wait for, whatever its timeout: of two who open it at
    once one would fail. So they queue, at the file's directory, in the driver's own thread: the event loop goes on.

    A request that ends in the middle of a statement leaves its cursor behind, in its traceback. SQLite closes a
    connection only with its last statement: until then an open transaction would keep everybody else from writing.
    """

    def __init__(self, database: str, *arguments: Any, **named: Any) -> None:
        super().__init__(database, *arguments, **named)
        if database == ":memory:":
            return
        directory = os.open(Path(database).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            self.execute("PRAGMA journal_mode=WAL").close()
        finally:
            os.close(directory)

    def close(self) -> None:
        if self.in_transaction:
            self.rollback()
        super().close()


def open_engine(url: str, pool_size: int = 10) -> AsyncEngine:
    """An engine for ``postgresql+psycopg://`` or ``sqlite+aiosqlite://``. Connects on first use."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_async_engine(
            parsed,
            pool_size=pool_size,
            max_overflow=0,
            pool_pre_ping=True,
            pool_recycle=1800,
            pool_timeout=POOL_SECONDS,
            hide_parameters=True,
            # A server that swallows packets must cost one timeout, not the minutes that TCP would wait.
            connect_args={
                "connect_timeout": CONNECT_SECONDS,
                "tcp_user_timeout": 1000 * ANSWER_SECONDS,
                "options": f"-c statement_timeout={1000 * ANSWER_SECONDS}",
            },
        )
    if parsed.database not in {None, "", ":memory:"}:
        Path(str(parsed.database)).expanduser().parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(parsed, connect_args={"timeout": ANSWER_SECONDS, "factory": _Connection}, hide_parameters=True)

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        # SQLAlchemy begins transactions itself (below), so that a writer takes its lock at once: a transaction that
        # first reads and then writes would otherwise fail with "database is locked" without waiting.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("synchronous=NORMAL", "foreign_keys=ON", f"busy_timeout={1000 * ANSWER_SECONDS}"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(READS_ONLY) else "BEGIN IMMEDIATE")

    return engine


def migrations_directory() -> Path:
    """Where the migrations are: in the installed package, or at the top of the source tree."""
    installed = Path(str(resources.files("stagecoach.database") / "migrations"))
    return installed if installed.is_dir() else Path(__file__).resolve().parents[3] / "migrations"


def alembic_config() -> Config:
    """Alembic's settings, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()).replace("%", "%%"))
    return config


async def migrate(engine: AsyncEngine, revision: str = "head") -> None:
    """Bring the tables to ``revision``. On PostgreSQL several processes may call it at once: one works, others wait."""

    def upgrade(connection: Any) -> None:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    # Not in "writing": a migration may take longer than any request, and may have to wait for another's.
    with _plain_errors():
        async with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                await connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            await take_turn(connection, Turn.MIGRATE)
            await connection.run_sync(upgrade)


async def require_current(engine: AsyncEngine) -> None:
    """Raises SettingsError when the tables are not those of this version, Unavailable when the database is not there."""

    def current(connection: Any) -> str | None:
        return MigrationContext.configure(connection).get_current_revision()

    try:
        async with reading(engine) as connection:
            found = await connection.run_sync(current)
    except DatabaseUnavailable as error:
        raise DatabaseUnavailable("The database does not answer; check database.url and that it runs.") from error
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if found != head:
        raise SettingsError(
            f"database: its tables are at revision {found or 'none'}, this version needs {head}: run 'stagecoach migrate'."
        )


async def is_alive(engine: AsyncEngine) -> bool:
    """Whether a trivial query is answered."""
    try:
        async with asyncio.timeout(HEALTH_SECONDS), reading(engine) as connection:
            await connection.exec_driver_sql("SELECT 1")
    except (DatabaseUnavailable, TimeoutError):
        return False
    return True
