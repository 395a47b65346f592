"""What unit tests share: a database to copy, a world on fakes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.fakes.world import World, migrated_database, open_world


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's (or the testbed's) own settings must not change a unit test."""
    for name in list(os.environ):
        if name.upper().startswith("STAGECOACH_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def database_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file."""
    path = tmp_path_factory.mktemp("database") / "template.db"
    asyncio.run(migrated_database(path))
    return path


@pytest.fixture
async def world(tmp_path: Path, database_template: Path) -> AsyncIterator[World]:
    """A service on fakes."""
    async with open_world(tmp_path, database_template) as opened:
        yield opened
