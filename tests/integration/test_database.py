"""One suite on both databases: migrations, leases, versions, times, races. Each test has a database of its own."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import shlex
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from tests.unit.core.transfers import NOW, a_transfer

from stagecoach.core.errors import SettingsError, StaleVersion, Unavailable
from stagecoach.core.names import new_transfer_id
from stagecoach.core.transfer import Direction, State, Transfer, TransferFilter, advance
from stagecoach.database.buckets import Buckets
from stagecoach.database.engine import is_alive, migrate, open_engine, require_current
from stagecoach.database.tables import metadata, transfer_history
from stagecoach.database.transfers import Transfers

LEASE = 30.0
_dice = random.Random(1)


def new_transfer(**changes: object) -> Transfer:
    transfer_id = new_transfer_id(NOW.timestamp(), _dice.getrandbits)
    return a_transfer(id=transfer_id, next_check_at=NOW, **changes)


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
            await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        await operator.dispose()


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    """Migrated."""
    opened = open_engine(url, 5)
    await migrate(opened)
    yield opened
    await opened.dispose()


@pytest.fixture
def transfers(engine: AsyncEngine) -> Transfers:
    return Transfers(engine)


async def test_the_migrations_make_the_tables_that_the_code_describes(engine: AsyncEngine) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_migrating_again_changes_nothing(engine: AsyncEngine, transfers: Transfers) -> None:
    transfer = new_transfer()
    await transfers.add(transfer, "Begun.")
    await migrate(engine)
    assert await transfers.get(transfer.id) == transfer
    await require_current(engine)


async def test_several_processes_may_migrate_at_once(url: str) -> None:
    engines = [open_engine(url, 2) for _ in range(6)]
    try:
        await asyncio.gather(*(migrate(engine) for engine in engines))
        await asyncio.gather(*(require_current(engine) for engine in engines))
    finally:
        for engine in engines:
            await engine.dispose()


async def test_a_database_that_was_never_migrated_is_named_in_words(url: str) -> None:
    engine = open_engine(url, 1)
    try:
        with pytest.raises(SettingsError, match="stagecoach migrate"):
            await require_current(engine)
    finally:
        await engine.dispose()


async def test_a_database_that_is_not_there_is_unavailable() -> None:
    engine = open_engine("postgresql+psycopg://nobody:secret-1@127.0.0.1:9/none", 1)
    try:
        assert not await is_alive(engine)
        for call in (require_current(engine), Transfers(engine).get("0" * 26), Transfers(engine).claim_due("w", NOW, 1, 1)):
            with pytest.raises(Unavailable) as unavailable:
                await call
            assert "secret-1" not in unavailable.value.message
    finally:
        await engine.dispose()


async def test_a_row_comes_back_as_it_was_written(transfers: Transfers) -> None:
    transfer = new_transfer(
        path="/home/alice/é\n'\"\\$(x) 用🙂",
        real_path="/scratch/" + "x" * 4000,
        size_bytes=5 * 1024**4,
        digests={"sha256": "ab" * 32},
        proved=({"how": "size", "value": "7"},),
        job_log="line\n" * 3000,
        reason="r" * 3000,
        bytes_moved=2**62,
        rate_bytes_per_second=1.5e9,
        direction=Direction.DOWNLOAD,
        submission_tried=True,
        job_missing_since=NOW,
    )
    await transfers.add(transfer, "Begun: 用.")
    assert await transfers.get(transfer.id) == transfer
    (line,) = await transfers.history(transfer.id)
    assert (line.at, line.state, line.message) == (NOW, State.PREPARING, "Begun: 用.")
    assert await transfers.get("0" * 26) is None


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=8))])
async def test_times_survive_as_utc_to_the_microsecond(transfers: Transfers, zone: timezone) -> None:
    moment = datetime(2030, 3, 31, 2, 30, 0, 123456, tzinfo=zone)
    transfer = new_transfer(expires_at=moment)
    await transfers.add(transfer, "Begun.")
    found = await transfers.get(transfer.id)
    assert found is not None
    assert found.expires_at == moment
    assert found.expires_at is not None
    assert found.expires_at.utcoffset() == timedelta(0)


async def test_a_time_without_a_zone_is_never_written(transfers: Transfers) -> None:
    with pytest.raises(Exception, match="without a zone"):
        await transfers.add(new_transfer(expires_at=datetime(2030, 1, 1)), "Begun.")  # noqa: DTZ001


async def test_saving_grows_the_version_and_gives_the_lease_back(transfers: Transfers) -> None:
    transfer = new_transfer()
    await transfers.add(transfer, "Begun.")
    (claimed,) = await transfers.claim_due("w", NOW, LEASE, 10)
    assert (claimed.lease_owner, claimed.version) == ("w", 1)
    moved = advance(claimed, State.RECEIVING, NOW + timedelta(seconds=3))
    saved = await transfers.save(moved, "One.", "Two.", next_check_at=None)
    assert (saved.version, saved.lease_owner, saved.lease_until, saved.next_check_at) == (2, None, None, None)
    assert await transfers.get(transfer.id) == saved
    assert [line.message for line in await transfers.history(transfer.id)] == ["Begun.", "One.", "Two."]


async def test_saving_an_old_version_changes_nothing_and_says_so(transfers: Transfers) -> None:
    transfer = new_transfer()
    await transfers.add(transfer, "Begun.")
    saved = await transfers.save(replace(transfer, bytes_moved=1), next_check_at=NOW)
    with pytest.raises(StaleVersion):
        await transfers.save(replace(transfer, bytes_moved=2), "Never told.", next_check_at=NOW)
    assert await transfers.get(transfer.id) == saved
    assert len(await transfers.history(transfer.id)) == 1
    assert not await transfers.put_off(replace(transfer, failed_looks=9), NOW)
    assert await transfers.get(transfer.id) == saved


async def test_of_many_who_save_the_same_version_one_wins(url: str, engine: AsyncEngine, transfers: Transfers) -> None:
    transfer = new_transfer()
    await transfers.add(transfer, "Begun.")
    engines = [open_engine(url, 2) for _ in range(4)]

    async def save(number: int) -> bool:
        try:
            changed = replace(transfer, bytes_moved=number)
            await Transfers(engines[number % 4]).save(changed, f"{number}", next_check_at=NOW)
        except StaleVersion:
            return False
        return True

    try:
        won = await asyncio.gather(*(save(number) for number in range(16)))
    finally:
        for opened in engines:
            await opened.dispose()
    assert won.count(True) == 1
    found = await transfers.get(transfer.id)
    assert found is not None
    assert (found.version, found.bytes_moved) == (2, won.index(True))
    assert len(await transfers.history(transfer.id)) == 2


async def test_several_workers_never_take_the_same_row(url: str, transfers: Transfers) -> None:
    made = [new_transfer() for _ in range(60)]
    for transfer in made:
        await transfers.add(transfer, "Begun.")
    engines = [open_engine(url, 2) for _ in range(5)]

    async def take(number: int) -> list[tuple[str, str]]:
        taken = []
        for _ in range(6):
            rows = await Transfers(engines[number]).claim_due(f"w{number}", NOW, LEASE, 7)
            assert len(rows) <= 7
            taken += [(row.id, row.lease_owner or "") for row in rows]
        return taken

    try:
        taken = [pair for pairs in await asyncio.gather(*(take(number) for number in range(5))) for pair in pairs]
    finally:
        for engine in engines:
            await engine.dispose()
    assert sorted(transfer_id for transfer_id, _ in taken) == sorted(transfer.id for transfer in made)
    for transfer_id, owner in taken:
        found = await transfers.get(transfer_id)
        assert found is not None
        assert found.lease_owner == owner


async def test_only_what_is_due_is_taken_and_the_longest_due_first(transfers: Transfers) -> None:
    offsets = {"late": -10, "later": -20, "now": 0, "soon": 1}
    made = {name: replace(new_transfer(), next_check_at=NOW + timedelta(seconds=offset)) for name, offset in offsets.items()}
    never = replace(new_transfer(), next_check_at=None)
    for transfer in (*made.values(), never):
        await transfers.add(transfer, "Begun.")
    assert {row.id for row in await transfers.claim_due("w", NOW, LEASE, 2)} == {made["late"].id, made["later"].id}
    assert {row.id for row in await transfers.claim_due("w", NOW, LEASE, 9)} == {made["now"].id}
    assert await transfers.claim_due("w", NOW, LEASE, 9) == []


async def test_a_dead_workers_lease_runs_out(transfers: Transfers) -> None:
    transfer = new_transfer()
    await transfers.add(transfer, "Begun.")
    assert len(await transfers.claim_due("dead", NOW, LEASE, 1)) == 1
    for seconds in (0.0, 29.999, 30.0):
        assert await transfers.claim_due("next", NOW + timedelta(seconds=seconds), LEASE, 1) == []
    (taken,) = await transfers.claim_due("next", NOW + timedelta(seconds=30.001), LEASE, 1)
    assert taken.lease_owner == "next"
    assert taken.version == transfer.version


async def test_putting_off_gives_the_lease_back_without_a_new_version(transfers: Transfers) -> None:
    await transfers.add(new_transfer(), "Begun.")
    (taken,) = await transfers.claim_due("w", NOW, LEASE, 1)
    assert await transfers.put_off(replace(taken, failed_looks=3, bytes_moved=99), NOW + timedelta(seconds=5))
    found = await transfers.get(taken.id)
    assert found is not None
    assert (found.version, found.lease_owner, found.failed_looks, found.bytes_moved) == (1, None, 3, 0)
    assert await transfers.claim_due("w", NOW + timedelta(seconds=4.9), LEASE, 1) == []
    assert len(await transfers.claim_due("w", NOW + timedelta(seconds=5), LEASE, 1)) == 1


@pytest.mark.parametrize("state", State)
async def test_cleaning_is_demanded_of_what_has_ended_or_is_being_cancelled(transfers: Transfers, state: State) -> None:
    transfer = replace(new_transfer(), state=state, cleaned=True, next_check_at=None)
    await transfers.add(transfer, "Begun.")
    await transfers.demand_cleaning(transfer.id, NOW)
    found = await transfers.get(transfer.id)
    assert found is not None
    if state.is_end or state is State.CANCELLING:
        assert (found.cleaned, found.next_check_at, found.version) == (False, NOW, 2)
        with pytest.raises(StaleVersion):
            await transfers.save(transfer, next_check_at=None)
    else:
        assert found == transfer


async def test_a_listing_is_paged_newest_first_and_filtered(transfers: Transfers) -> None:
    made = []
    for number in range(12):
        transfer_id = new_transfer_id(NOW.timestamp() + number, _dice.getrandbits)
        transfer = a_transfer(
            Direction.DOWNLOAD if number % 2 else Direction.UPLOAD,
            id=transfer_id,
            owner="alice" if number % 3 else "bob",
            system="alps" if number < 9 else "bora",
            state=State.DONE if number < 4 else State.QUEUED,
        )
        made.append(transfer)
        await transfers.add(transfer, "Begun.")
    newest = made[::-1]

    async def ids(**wanted: object) -> list[str]:
        return [row.id for row in await transfers.page(TransferFilter(**wanted))]  # type: ignore[arg-type]

    assert await ids() == [row.id for row in newest]
    assert await ids(limit=5) == [row.id for row in newest[:5]]
    assert await ids(limit=5, before_id=newest[4].id) == [row.id for row in newest[5:10]]
    assert await ids(limit=5, before_id=newest[-1].id) == []
    assert await ids(owner="bob") == [row.id for row in newest if row.owner == "bob"]
    assert await ids(owner="Bob") == []
    assert await ids(system="bora", direction=Direction.UPLOAD) == [
        row.id for row in newest if row.system == "bora" and row.direction is Direction.UPLOAD
    ]
    assert await ids(states=(State.DONE, State.FAILED)) == [row.id for row in newest if row.state is State.DONE]


async def test_open_transfers_are_counted(transfers: Transfers) -> None:
    for direction, state, owner, system in [
        (Direction.UPLOAD, State.STAGED, "alice", "alps"),
        (Direction.UPLOAD, State.RECEIVING, "alice", "alps"),
        (Direction.DOWNLOAD, State.QUEUED, "alice", "alps"),
        (Direction.DOWNLOAD, State.STAGED, "alice", "alps"),
        (Direction.UPLOAD, State.DONE, "alice", "alps"),
        (Direction.UPLOAD, State.CANCELLED, "alice", "alps"),
        (Direction.UPLOAD, State.QUEUED, "bob", "alps"),
        (Direction.UPLOAD, State.QUEUED, "alice", "bora"),
    ]:
        await transfers.add(replace(new_transfer(), direction=direction, state=state, owner=owner, system=system), "Begun.")
    assert await transfers.count_open("alice", "alps") == 3


async def test_a_job_id_that_was_used_again_is_found_newest_first(transfers: Transfers) -> None:
    rows = []
    for number in range(3):
        row = a_transfer(id=new_transfer_id(NOW.timestamp() + number, _dice.getrandbits), job_id="7")
        rows.append(row)
        await transfers.add(row, "Begun.")
    await transfers.add(replace(new_transfer(), job_id="7", system="bora"), "Begun.")
    assert [row.id for row in await transfers.find_by_job("alps", "7")] == [row.id for row in rows[::-1]]
    assert await transfers.find_by_job("alps", "8") == []


async def test_a_bucket_is_remembered_once_by_many_at_once(url: str, engine: AsyncEngine) -> None:
    engines = [open_engine(url, 2) for _ in range(4)]
    try:
        await asyncio.gather(*(Buckets(engines[n % 4]).remember("b", "alice", "f1", NOW) for n in range(16)))
    finally:
        for opened in engines:
            await opened.dispose()
    buckets = Buckets(engine)
    assert await buckets.fingerprint("b") == "f1"
    assert await buckets.fingerprint("other") is None
    assert await buckets.with_other_rules("f1") == []
    assert await buckets.with_other_rules("f2") == [("b", "alice")]
    await buckets.remember("b", "alice", "f2", NOW)
    assert await buckets.fingerprint("b") == "f2"


async def test_reading_does_not_wait_for_a_writer(engine: AsyncEngine, transfers: Transfers) -> None:
    transfer = new_transfer()
    await transfers.add(transfer, "Begun.")
    async with engine.begin() as writer:
        await writer.execute(transfer_history.delete())
        assert await asyncio.wait_for(transfers.get(transfer.id), 20) == transfer
        assert len(await asyncio.wait_for(transfers.history(transfer.id), 20)) == 1


async def test_many_readers_and_writers_at_once_never_meet_a_locked_database(transfers: Transfers) -> None:
    made = [new_transfer() for _ in range(20)]

    async def live(transfer: Transfer) -> None:
        await transfers.add(transfer, "Begun.")
        for number in range(5):
            transfer = await transfers.save(replace(transfer, bytes_moved=number), f"{number}", next_check_at=NOW)
            await transfers.page(TransferFilter(limit=5))

    await asyncio.gather(*(live(transfer) for transfer in made))
    for transfer in made:
        assert len(await transfers.history(transfer.id)) == 6
