"""A new, empty database of each kind for every test that asks for one."""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine


def database_of_the_testbed() -> str:
    """The URL that a running testbed has published, else nothing."""
    file = Path(os.environ.get("TESTBED_ENV") or Path(__file__).resolve().parents[2] / ".testbed" / "env")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return next((shlex.split(line)[0].partition("=")[2] for line in lines if line.startswith("DATABASE_URL=")), "")


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """Of a new, empty database."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'new' / 'stagecoach.db'}"
        return
    server = os.environ.get("DATABASE_URL") or database_of_the_testbed()
    if not server.startswith("postgresql"):
        if os.environ.get("STAGECOACH_REQUIRE_TESTBED") == "1":
            pytest.fail("DATABASE_URL names no PostgreSQL: the testbed is not up")
        pytest.skip("DATABASE_URL names no PostgreSQL; make testbed-up starts one")
    name = f"test_{secrets.token_hex(6)}"
    operator = create_async_engine(server, isolation_level="AUTOCOMMIT")
    try:
        async with operator.connect() as connection:
            await connection.execute(text(f"CREATE DATABASE {name}"))
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
        async with operator.connect() as connection:
            # Without FORCE, which would have to end an autovacuum that is not ours; a plain one is told to stop.
            await connection.execute(text(f"DROP DATABASE {name}"))
    finally:
        await operator.dispose()
