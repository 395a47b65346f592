"""A database that an earlier version has filled goes forward: rows as raw SQL wrote them are all there afterwards.

What each earlier revision's columns were is written down here, apart from today's tables, which have moved on.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from stagecoach.core.names import new_transfer_id
from stagecoach.core.transfer import Archive, Direction, State, Transfer, WaitPolicy
from stagecoach.database.buckets import Buckets
from stagecoach.database.engine import migrate, open_engine, require_current
from stagecoach.database.transfers import Transfers

NOW = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
STORY = ("Begun: 用.", "Went 'on'.", "")

# Columns that were there from the first revision on, each with a value; the second table's may be NULL.
OBLIGATORY: Mapping[str, Any] = {
    "owner": "alice",
    "system": "alps",
    "path": "/home/alice/é\n'\"\\$(x) 用🙂",
    "real_path": "/scratch/" + "x" * 3000,
    "size_bytes": 5 * 1024**4,
    "part_size_bytes": 1024**3,
    "part_count": 5120,
    "bucket": "stagecoach-alice",
    "created_at": NOW,
    "updated_at": NOW + timedelta(seconds=1),
    "changed_at": NOW + timedelta(seconds=2),
    "version": 7,
    "submission_tried": True,
    "bytes_staged": 2**62,
    "bytes_moved": 11,
    "rate_bytes_per_second": 1.5e9,
    "digests": {"sha256": "ab" * 32},
    "proved": [{"how": "size", "value": "7"}],
    "cleaned": False,
    "failed_looks": 3,
}
MAY_BE_NULL: Mapping[str, Any] = {
    "account": "proj",
    "upload_id": "2~upload",
    "job_directory": "/home/alice/.stagecoach/x",
    "job_id": "4711",
    "job_state": "RUNNING",
    "job_reason": "None",
    "job_exit_code": 9,
    "job_log": "line\n" * 300,
    "job_missing_since": NOW + timedelta(seconds=3),
    "object_etag": "0" * 32 + "-5120",
    "code": "job_failed",
    "reason": "The staging job ended with an error.",
    "expires_at": NOW + timedelta(days=7),
    "ended_at": NOW + timedelta(seconds=4),
    "next_check_at": NOW + timedelta(seconds=5),
    "lease_owner": "worker-1",
    "lease_until": NOW + timedelta(seconds=6),
}
ADDED: Mapping[str, Mapping[str, Any]] = {
    "0001": {},
    "0002": {"archive": "tar"},
    "0003": {"archive": "tar", "part_digests": {"md5": ["ab" * 16] * 3}},
    "0004": {
        "archive": "tar",
        "part_digests": {"md5": ["ab" * 16] * 3},
        "signed_at": NOW + timedelta(seconds=7),
        "retry_until": NOW + timedelta(days=1),
        "first_job_id": "4710",
        "idempotency_key": "key of ",
        "request_digest": "cd" * 32,
        "webhook_url": "https://hooks.example.org/x",
    },
}
ADDED_OBLIGATORY: Mapping[str, Mapping[str, Any]] = {
    "0004": {"attempt": 3, "resubmissions": 2, "bytes_at_submission": 2**40, "job_ended": True, "restarts": 1},
}
OTHERWISE_NULL: Mapping[str, tuple[str, ...]] = {
    "0001": (),
    "0002": ("size_bytes",),
    "0003": ("size_bytes",),
    "0004": ("size_bytes",),
}


# Later ones changed other tables.
LAST_OF_TRANSFERS = "0004"


def old_rows(revision: str) -> list[dict[str, Any]]:
    """Every state in both directions and with both ways to wait, once with all that may be NULL, once with none of it."""
    dice, revision = random.Random(revision), min(revision, LAST_OF_TRANSFERS)
    rows = []
    for state in State:
        for direction, wait in ((Direction.UPLOAD, "held"), (Direction.UPLOAD, "in_job"), (Direction.DOWNLOAD, "held")):
            for is_full in (True, False):
                transfer_id = new_transfer_id(NOW.timestamp(), dice.getrandbits)
                own = {"id": transfer_id, "job_name": f"stagecoach-{transfer_id}", "state": state.value}
                row = {**OBLIGATORY, **ADDED_OBLIGATORY.get(revision, {}), **own, "direction": direction.value, "wait": wait}
                maybe = {**MAY_BE_NULL, **ADDED[revision]}
                if "idempotency_key" in maybe:
                    # One request has one key.
                    maybe["idempotency_key"] += transfer_id
                row |= maybe if is_full else dict.fromkeys((*maybe, *OTHERWISE_NULL[revision]))
                rows.append(row)
    return rows


def as_transfer(row: Mapping[str, Any]) -> Transfer:
    """What the row must be read as."""
    plain = {
        **row,
        "state": State(row["state"]),
        "direction": Direction(row["direction"]),
        "wait": WaitPolicy(row["wait"]),
        "proved": tuple(row["proved"]),
        "archive": Archive(row["archive"]) if row.get("archive") else None,
        "part_digests": {name: tuple(values) for name, values in (row.get("part_digests") or {}).items()},
    }
    return Transfer(**plain)


def raw(value: object, dialect: str) -> object:
    """As the old version's driver gave it to the database: JSON is text, and SQLite holds times as naive text."""
    if isinstance(value, dict | list):
        return json.dumps(value)
    if isinstance(value, datetime) and dialect == "sqlite":
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    return value


async def fill(engine: AsyncEngine, revision: str) -> list[dict[str, Any]]:
    """The tables of ``revision``, filled."""
    await migrate(engine, revision)
    rows, dialect = old_rows(revision), engine.dialect.name

    def columns(connection: Connection) -> dict[str, bool]:
        return {str(column["name"]): bool(column["nullable"]) for column in inspect(connection).get_columns("transfers")}

    async with engine.begin() as connection:
        nullable = await connection.run_sync(columns)
        assert set(nullable) == set(rows[0]), "this file's columns are those of the revision"
        assert {name for name, may in nullable.items() if may} == {
            name for name in rows[0] if any(row[name] is None for row in rows)
        }
        names = list(rows[0])
        insert = f"INSERT INTO transfers ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})"
        await connection.execute(text(insert), [{name: raw(row[name], dialect) for name in names} for row in rows])
        lines = [
            {"id": row["id"], "at": raw(NOW + timedelta(seconds=number), dialect), "state": row["state"], "message": message}
            for row in rows
            for number, message in enumerate(STORY)
        ]
        tell = "INSERT INTO transfer_history (transfer_id, at, state, message) VALUES (:id, :at, :state, :message)"
        await connection.execute(text(tell), lines)
        bucket = "INSERT INTO buckets (name, owner, rules_fingerprint, checked_at) VALUES (:name, 'alice', 'f1', :at)"
        await connection.execute(text(bucket), {"name": "stagecoach-alice", "at": raw(NOW, dialect)})
    return rows


async def check_kept(engine: AsyncEngine, rows: list[dict[str, Any]]) -> None:
    await require_current(engine)
    transfers = Transfers(engine)
    async with engine.connect() as connection:
        counts = [
            (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()
            for table in ("transfers", "transfer_history", "buckets")
        ]
    assert counts == [len(rows), len(rows) * len(STORY), 1]
    for row in rows:
        assert await transfers.get(row["id"]) == as_transfer(row)
        story = await transfers.history(row["id"])
        assert [(line.at, line.state.value, line.message) for line in story] == [
            (NOW + timedelta(seconds=number), row["state"], message) for number, message in enumerate(STORY)
        ]
    assert await Buckets(engine).fingerprint("stagecoach-alice") == "f1"


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004", "0005", "0006"])
async def test_a_filled_database_goes_forward_from_each_earlier_revision(revision: str, url: str) -> None:
    engine = open_engine(url, 2)
    try:
        rows = await fill(engine, revision)
        await migrate(engine)
        await check_kept(engine, rows)
        transfers = Transfers(engine)
        for row in rows:
            moved = replace(as_transfer(row), size_bytes=None, archive=Archive.TAR, attempt=2, signed_at=NOW)
            saved = await transfers.save(moved, "Again.", next_check_at=None)
            assert await transfers.get(row["id"]) == saved
            assert [line.message for line in await transfers.history(row["id"])] == [*STORY, "Again."]
        await transfers.add(replace(as_transfer(rows[0]), id="0" * 26, idempotency_key=None), "A new one.")
    finally:
        await engine.dispose()


@pytest.mark.parametrize("revision", ["0001", "0003"])
async def test_who_migrates_while_another_does_waits_for_it(revision: str, url: str) -> None:
    """A reader of the old tables (PostgreSQL), or a writer (SQLite), keeps the first one in the middle of its work."""
    first, second, other = (open_engine(url, 2) for _ in range(3))
    try:
        rows = await fill(first, revision)
        async with other.begin() as reader:
            await reader.execute(text("SELECT id FROM transfers"))
            works = asyncio.create_task(migrate(first))
            await until(first, other, waiting=1)
            waits = asyncio.create_task(migrate(second))
            await until(second, other, waiting=2)
            assert not works.done()
            assert not waits.done()
        await asyncio.wait_for(asyncio.gather(works, waits), 30)
        await check_kept(second, rows)
    finally:
        for engine in (first, second, other):
            await engine.dispose()


async def until(engine: AsyncEngine, other: AsyncEngine, *, waiting: int) -> None:
    """The engine's connection is at work; on PostgreSQL so many sessions of this database wait for a lock."""
    query = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
    for _ in range(600):
        await asyncio.sleep(0.05)
        if engine.dialect.name == "sqlite":
            if engine.sync_engine.pool.checkedout():  # type: ignore[attr-defined]
                return
        else:
            async with other.connect() as connection:
                if (await connection.execute(query)).scalar_one() >= waiting:
                    return
    raise AssertionError("nobody waits")
