"""Several processes on one SQLite file: one writes at a time, and the others wait their turn, but not for ever."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.unit.core.transfers import NOW, a_transfer

from stagecoach.core.errors import DatabaseUnavailable
from stagecoach.database import engine as engine_module
from stagecoach.database.engine import migrate, open_engine, writing
from stagecoach.database.transfers import Transfers

REPOSITORY = Path(__file__).parents[2]
WRITERS = 4
ROWS_EACH = 15
SAVES_EACH = 3

# Each process adds its rows, then takes whatever is due, also the others', until nothing is.
WRITER = """
import asyncio, sys
from dataclasses import replace
from tests.unit.core.transfers import NOW, a_transfer
from stagecoach.database.engine import open_engine
from stagecoach.database.transfers import Transfers

async def write(url, number, rows, saves):
    engine = open_engine(url)
    transfers = Transfers(engine)
    for row in range(rows):
        await transfers.add(replace(a_transfer(id=f"{number:013d}{row:013d}"), next_check_at=NOW), "Begun.")
    while taken := await transfers.claim_due(f"w{number}", NOW, 60.0, 5):
        for transfer in taken:
            due = NOW if transfer.bytes_moved + 1 < saves else None
            await transfers.save(replace(transfer, bytes_moved=transfer.bytes_moved + 1), "Went on.", next_check_at=due)
    await engine.dispose()

asyncio.run(write(sys.argv[1], *map(int, sys.argv[2:])))
"""


@pytest.fixture
async def url(tmp_path: Path) -> str:
    made = f"sqlite+aiosqlite:///{tmp_path / 'stagecoach.db'}"
    opened = open_engine(made)
    await migrate(opened)
    await opened.dispose()
    return made


async def test_several_processes_write_and_no_row_is_lost_or_taken_twice(url: str) -> None:
    command = [sys.executable, "-c", WRITER, url]
    writers = [
        subprocess.Popen(
            [*command, str(number), str(ROWS_EACH), str(SAVES_EACH)], stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        for number in range(WRITERS)
    ]
    for writer in writers:
        _, words = await asyncio.to_thread(writer.communicate, timeout=120)
        assert writer.returncode == 0, words.decode()[-2000:]
    opened = open_engine(url)
    transfers = Transfers(opened)
    for number in range(WRITERS):
        for row in range(ROWS_EACH):
            found = await transfers.get(f"{number:013d}{row:013d}")
            assert found is not None
            assert (found.bytes_moved, found.version, found.lease_owner) == (SAVES_EACH, 1 + SAVES_EACH, None)
            assert [line.message for line in await transfers.history(found.id)] == ["Begun.", *["Went on."] * SAVES_EACH]
    await opened.dispose()


async def test_a_writer_waits_for_another_processs_transaction(url: str) -> None:
    other = sqlite3.connect(url.partition(":///")[2], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    opened = open_engine(url)
    try:
        writes = asyncio.create_task(Transfers(opened).add(a_transfer(), "Begun."))
        while not opened.sync_engine.pool.checkedout():  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
        assert await Transfers(opened).get(a_transfer().id) is None, "a reader does not wait"
        assert not writes.done()
        other.execute("COMMIT")
        await asyncio.wait_for(writes, 10)
        assert await Transfers(opened).get(a_transfer().id) is not None
    finally:
        other.close()
        await opened.dispose()


async def test_a_writer_that_waited_too_long_says_that_the_database_is_away(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "ANSWER_SECONDS", 1)
    other = sqlite3.connect(url.partition(":///")[2], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    opened = open_engine(url)
    try:
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            await Transfers(opened).add(a_transfer(), "Begun.")
        assert 0.9 < time.monotonic() - started < 10
        other.execute("ROLLBACK")
        await Transfers(opened).add(replace(a_transfer(), next_check_at=NOW), "Begun.")
    finally:
        other.close()
        await opened.dispose()


async def test_a_writer_that_is_cancelled_in_a_statement_locks_nobody_out(url: str) -> None:
    """Its exception, and with it the unfinished cursor, is kept as a log or a debugger would."""
    engine = open_engine(url)
    async with writing(engine) as connection:
        await connection.exec_driver_sql("CREATE TABLE numbers (number INTEGER)")
    numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
    loop, is_writing = asyncio.get_running_loop(), asyncio.Event()

    def note(number: int) -> int:
        if number == 1:
            loop.call_soon_threadsafe(is_writing.set)
        return number

    async def write() -> None:
        async with writing(engine) as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            await driver.create_function("note", 1, note)
            await connection.exec_driver_sql(f"{numbers} INSERT INTO numbers SELECT note(i) FROM n RETURNING number")

    gc.disable()
    try:
        writer = asyncio.create_task(write())
        await is_writing.wait()
        writer.cancel()
        (kept,) = await asyncio.gather(writer, return_exceptions=True)
        assert isinstance(kept, asyncio.CancelledError)
        async with writing(engine) as connection:
            found = (await connection.exec_driver_sql("SELECT count(*) FROM numbers")).scalar_one()
    finally:
        gc.enable()
    assert found == 0
    await engine.dispose()


async def test_many_open_a_new_file_at_once_and_none_is_told_that_it_is_locked(tmp_path: Path) -> None:
    async def write_first(opened: AsyncEngine) -> None:
        async with writing(opened) as connection:
            await connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS t (a)")

    # About one in ten of these rounds failed when each connection changed the journal without a turn.
    for round_ in range(60):
        engines = [open_engine(f"sqlite+aiosqlite:///{tmp_path / str(round_) / 'stagecoach.db'}", 2) for _ in range(8)]
        try:
            await asyncio.gather(*map(write_first, engines))
        finally:
            for opened in engines:
                await opened.dispose()
