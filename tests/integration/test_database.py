"""One suite on both databases: migrations, leases, versions, times, races. Each test has a database of its own."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, delete
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.unit.core.transfers import NOW, a_transfer

from stagecoach.core.bounds import Bounds
from stagecoach.core.errors import (
    QuotaReached,
    RequestUnderWay,
    SettingsError,
    StagecoachError,
    StagingFull,
    StaleVersion,
    TooManyRequests,
    TooManyTransfers,
    Unavailable,
)
from stagecoach.core.names import new_transfer_id
from stagecoach.core.state_machine import Event, advance
from stagecoach.core.transfer import Archive, Direction, State, Transfer, TransferFilter, WaitPolicy
from stagecoach.database.buckets import Buckets
from stagecoach.database.engine import is_alive, migrate, open_engine, require_current
from stagecoach.database.followed_jobs import FollowedJobs, Postponed
from stagecoach.database.inventory import Inventory
from stagecoach.database.system_polls import SystemPolls
from stagecoach.database.tables import metadata, transfer_history
from stagecoach.database.transfers import Transfers
from stagecoach.database.webhook_deliveries import WebhookDeliveries

LEASE = 30.0
BOUNDS = Bounds(max_open_transfers_per_user=100, max_open_transfers=100, max_new_transfers_per_minute_per_user=100)
_dice = random.Random(1)


def new_transfer(**changes: object) -> Transfer:
    transfer_id = new_transfer_id(NOW.timestamp(), _dice.getrandbits)
    return a_transfer(**{"id": transfer_id, "next_check_at": NOW, **changes})


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
        part_digests={"sha256": ("ab" * 32,) * 10_000},
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


async def test_an_archive_whose_size_is_not_known_comes_back_as_it_was_written(transfers: Transfers) -> None:
    transfer = new_transfer(direction=Direction.DOWNLOAD, archive=Archive.TAR, size_bytes=None)
    await transfers.add(transfer, "Begun.")
    assert await transfers.get(transfer.id) == transfer


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
    moved = advance(claimed, Event.PREPARED, NOW + timedelta(seconds=3))
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


async def test_of_many_who_add_a_row_with_one_key_one_wins(url: str, transfers: Transfers) -> None:
    engines = [open_engine(url, 2) for _ in range(4)]

    async def add(number: int) -> bool:
        try:
            await Transfers(engines[number % 4]).add(new_transfer(idempotency_key="k", request_digest="d"), "Begun.")
        except RequestUnderWay:
            return False
        return True

    try:
        won = await asyncio.gather(*(add(number) for number in range(16)))
    finally:
        for opened in engines:
            await opened.dispose()
    assert won.count(True) == 1
    (row,) = await transfers.page(TransferFilter())
    assert await transfers.find_by_idempotency_key("alice", "k") == row
    assert await transfers.find_by_idempotency_key("bob", "k") is None
    await transfers.add(new_transfer(idempotency_key="k", owner="bob"), "Begun.")
    failed = await transfers.save(advance(row, Event.FAILED, NOW), "Failed.", next_check_at=None)
    assert failed.idempotency_key is None
    await transfers.add(new_transfer(idempotency_key="k"), "Begun anew.")


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
    usage = await transfers.usage("alice", "alps", BOUNDS, NOW)
    assert (usage.open_of_user, usage.open_of_system) == (3, 4)


async def test_bytes_that_may_be_in_the_store_are_counted_until_a_transfer_is_cleaned(transfers: Transfers) -> None:
    for owner, direction, state, size, moved, cleaned in [
        ("alice", Direction.UPLOAD, State.RECEIVING, 1000, 0, False),
        ("alice", Direction.UPLOAD, State.FAILED, 200, 0, False),
        ("alice", Direction.DOWNLOAD, State.STAGED, 30, 30, False),
        ("alice", Direction.DOWNLOAD, State.MOVING, None, 4, False),
        ("alice", Direction.UPLOAD, State.DONE, 5 * 1024**4, 5 * 1024**4, True),
        ("bob", Direction.UPLOAD, State.RECEIVING, 5 * 1024**4, 0, False),
    ]:
        row = replace(new_transfer(), owner=owner, direction=direction, state=state, size_bytes=size, bytes_moved=moved)
        await transfers.add(replace(row, cleaned=cleaned), "Begun.")
    usage = await transfers.usage("alice", "bora", BOUNDS, NOW)
    assert (usage.staged_of_user_bytes, usage.staged_bytes) == (1234, 1234 + 5 * 1024**4)


async def test_how_long_a_minute_has_been_full_is_told(transfers: Transfers) -> None:
    bounds = replace(BOUNDS, max_new_transfers_per_minute_per_user=3)

    async def begun(seconds: float) -> None:
        at = NOW + timedelta(seconds=seconds)
        row = a_transfer(id=new_transfer_id(at.timestamp(), _dice.getrandbits), created_at=at)
        await transfers.add(row, "Begun.")

    for seconds in (-100, 0, 10):
        await begun(seconds)
    assert (await transfers.usage("alice", "alps", bounds, NOW + timedelta(seconds=20))).full_minute_since is None
    await begun(15)
    assert (await transfers.usage("alice", "alps", bounds, NOW + timedelta(seconds=20))).full_minute_since == NOW
    assert (await transfers.usage("alice", "alps", bounds, NOW + timedelta(seconds=61))).full_minute_since is None
    assert (await transfers.usage("bob", "alps", bounds, NOW + timedelta(seconds=20))).full_minute_since is None


@pytest.mark.parametrize(
    ("bounds", "refusal"),
    [
        (replace(BOUNDS, max_open_transfers_per_user=5), TooManyTransfers),
        (replace(BOUNDS, max_open_transfers=5), TooManyTransfers),
        (replace(BOUNDS, max_new_transfers_per_minute_per_user=5), TooManyRequests),
        (replace(BOUNDS, max_staged_bytes_per_user=5 * 100 + 99), QuotaReached),
        (replace(BOUNDS, max_staged_bytes=5 * 100), StagingFull),
    ],
    ids=["user", "system", "minute", "quota", "staging"],
)
async def test_however_many_ask_at_once_no_bound_is_exceeded(
    url: str, transfers: Transfers, bounds: Bounds, refusal: type[StagecoachError]
) -> None:
    engines = [open_engine(url, 2) for _ in range(4)]
    rows = [replace(new_transfer(), size_bytes=100) for _ in range(20)]
    try:
        answers = await asyncio.gather(
            *(Transfers(engines[n % 4]).add(row, "Begun.", bounds) for n, row in enumerate(rows)), return_exceptions=True
        )
    finally:
        for opened in engines:
            await opened.dispose()
    assert sum(answer is None for answer in answers) == 5
    assert sum(type(answer) is refusal for answer in answers) == 15
    assert len(await transfers.page(TransferFilter(limit=100))) == 5


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


async def test_what_may_have_something_outside_is_in_the_inventory(engine: AsyncEngine, transfers: Transfers) -> None:
    inventory = Inventory(engine)
    over = {"state": State.DONE, "cleaned": True, "job_name": "j"}
    living, unclean = new_transfer(), replace(new_transfer(state=State.FAILED), next_check_at=None)
    last_look, gone = new_transfer(**over), replace(new_transfer(**over, system="bora", owner="bob"), next_check_at=None)
    for transfer in (living, unclean, last_look, gone):
        await transfers.add(transfer, "made")
    assert {row.id for row in await inventory.open_rows()} == {living.id, unclean.id, last_look.id}
    assert set(await inventory.rows([gone.id, living.id, "0" * 26])) == {gone.id, living.id}
    assert len(await inventory.rows([new_transfer().id for _ in range(1200)] + [gone.id])) == 1
    assert await inventory.owners() == [("alps", "alice"), ("bora", "bob")]
    assert {target.transfer_id for target in await inventory.targets(NOW)} == {last_look.id, gone.id}
    assert await inventory.targets(NOW + timedelta(seconds=1)) == []


async def test_rows_that_are_over_for_long_are_forgotten_in_batches_with_all_that_hangs_on_them(
    engine: AsyncEngine, transfers: Transfers
) -> None:
    inventory = Inventory(engine)
    old = [replace(new_transfer(state=State.DONE, cleaned=True), next_check_at=None) for _ in range(5)]
    kept = [
        replace(new_transfer(state=State.DONE, cleaned=False), next_check_at=None),
        new_transfer(state=State.DONE, cleaned=True),
    ]
    for transfer in (*old, *kept):
        await transfers.add(transfer, "made")
    assert await inventory.forget_ended(NOW, 100) == 0
    later = NOW + timedelta(seconds=1)
    assert [await inventory.forget_ended(later, 3) for _ in range(3)] == [3, 2, 0]
    assert {row.id for row in await transfers.page(TransferFilter())} == {row.id for row in kept}
    assert [await transfers.history(row.id) for row in old] == [[]] * 5
    assert await inventory.without_history() == []


async def test_a_row_is_woken_only_as_it_was_seen(engine: AsyncEngine, transfers: Transfers) -> None:
    inventory = Inventory(engine)
    row = replace(new_transfer(), next_check_at=None)
    await transfers.add(row, "made")
    moved = await transfers.save(row, next_check_at=NOW + timedelta(hours=1))
    await inventory.wake(row, NOW)
    assert (await inventory.rows([row.id]))[row.id].next_check_at == NOW + timedelta(hours=1)
    await inventory.wake(moved, NOW)
    woken = (await inventory.rows([row.id]))[row.id]
    assert (woken.next_check_at, woken.version) == (NOW, moved.version)


async def test_a_row_without_a_story_and_a_bucket_that_is_no_more(engine: AsyncEngine, transfers: Transfers) -> None:
    inventory, buckets = Inventory(engine), Buckets(engine)
    row = new_transfer()
    await transfers.add(row, "made")
    async with engine.begin() as connection:
        await connection.execute(delete(transfer_history))
    assert [silent.id for silent in await inventory.without_history()] == [row.id]
    await inventory.tell(row, "Found by an audit.", NOW)
    assert await inventory.without_history() == []
    await buckets.remember("stagecoach-alice", "alice", "1", NOW)
    assert await inventory.buckets() == {"stagecoach-alice": "alice"}
    await inventory.forget_bucket("stagecoach-alice")
    assert await inventory.buckets() == {}


URL = "https://hooks.example.org/?token=1"


async def told_transfer(transfers: Transfers, *events: Event, **changes: object) -> Transfer:
    """With a webhook, one second from one event to the next."""
    transfer = new_transfer(webhook_url=URL, **changes)
    await transfers.add(transfer, "Begun.")
    for seconds, event in enumerate(events):
        moved = advance(transfer, event, NOW + timedelta(seconds=seconds))
        transfer = await transfers.save(moved, f"{event}.", next_check_at=NOW)
    return transfer


async def test_a_change_and_what_is_told_of_it_are_written_together_or_not_at_all(
    engine: AsyncEngine, transfers: Transfers
) -> None:
    deliveries = WebhookDeliveries(engine)
    transfer = await told_transfer(transfers, Event.PREPARED)
    assert await deliveries.standing(transfer.id) == (1, None)
    with pytest.raises(StaleVersion):
        await transfers.save(replace(advance(transfer, Event.COMPLETED, NOW), version=1), "Never.", next_check_at=NOW)
    saved = await transfers.save(replace(transfer, bytes_staged=5), "No new state.", next_check_at=NOW)
    assert await deliveries.standing(transfer.id) == (1, None)
    await transfers.save(advance(saved, Event.COMPLETED, NOW), next_check_at=NOW)
    assert await deliveries.standing(transfer.id) == (2, None)
    quiet = new_transfer()
    await transfers.add(quiet, "Begun.")
    await transfers.save(advance(quiet, Event.PREPARED, NOW), next_check_at=NOW)
    assert await deliveries.standing(quiet.id) == (0, None)


async def test_messages_are_taken_in_each_transfers_order_and_only_one_at_a_time(
    engine: AsyncEngine, transfers: Transfers
) -> None:
    deliveries = WebhookDeliveries(engine)
    events = (Event.PREPARED, Event.COMPLETED, Event.RELEASED)
    first, second = [await told_transfer(transfers, *events) for _ in range(2)]
    later = NOW + timedelta(hours=1)
    taken = await deliveries.claim_due(later, LEASE, 10)
    assert sorted(delivery.transfer_id for delivery in taken) == sorted([first.id, second.id])
    assert {delivery.tries for delivery in taken} == {1}
    assert await deliveries.claim_due(later, LEASE, 10) == []
    mine = next(delivery for delivery in taken if delivery.transfer_id == first.id)
    assert (mine.url, json.loads(mine.body)["data"]["state"]) == (URL, "receiving")
    await deliveries.put_off(mine, later + timedelta(seconds=60), "HTTP 500")
    assert await deliveries.claim_due(later + timedelta(seconds=20), LEASE, 10) == []
    assert await deliveries.standing(first.id) == (3, "HTTP 500")
    later += timedelta(seconds=61)
    assert await deliveries.claim_due(later, LEASE, 10, without_hosts=["hooks.example.org"]) == []
    again = {delivery.transfer_id: delivery for delivery in await deliveries.claim_due(later, LEASE, 10)}
    # The other one's lease ran out meanwhile.
    assert {delivery.tries for delivery in again.values()} == {2}
    await deliveries.delivered(again[first.id], later)
    await deliveries.delivered(taken[1] if taken[1].transfer_id == second.id else taken[0], later)
    states = []
    for _ in range(3):
        for delivery in await deliveries.claim_due(later, LEASE, 10):
            assert delivery.transfer_id == first.id
            states.append(json.loads(delivery.body)["data"]["state"])
            await deliveries.give_up(delivery, "no")
    assert states == ["staged", "queued"]
    assert await deliveries.standing(first.id) == (0, "no")
    assert await deliveries.standing(second.id) == (3, None)
    await deliveries.end(again[second.id])
    pending, trouble = await deliveries.standing(second.id)
    assert (pending, "410" in (trouble or "")) == (0, True)
    moved = await transfers.save(advance(second, Event.STARTED, NOW), next_check_at=NOW)
    assert await deliveries.standing(moved.id) == (0, trouble)
    assert await deliveries.forget(NOW) == 0
    assert await deliveries.forget(NOW + timedelta(days=1)) == 6


async def test_several_workers_never_take_the_same_message(url: str, transfers: Transfers) -> None:
    made = [await told_transfer(transfers, Event.PREPARED, Event.COMPLETED) for _ in range(30)]
    engines = [open_engine(url, 2) for _ in range(5)]

    async def take(number: int) -> list[str]:
        taken: list[str] = []
        for _ in range(12):
            for delivery in await WebhookDeliveries(engines[number]).claim_due(NOW + timedelta(seconds=5), LEASE, 4):
                taken.append(delivery.id)
                await WebhookDeliveries(engines[number]).delivered(delivery, NOW)
        return taken

    try:
        taken = [name for names in await asyncio.gather(*(take(number) for number in range(5))) for name in names]
    finally:
        for engine in engines:
            await engine.dispose()
    assert len(taken) == len(set(taken)) == 60
    for transfer in made:
        mine = [name for name in taken if name.startswith(transfer.id)]
        assert len(mine) == 2


async def test_of_what_is_watched_only_what_changed_is_read(transfers: Transfers) -> None:
    one, other = new_transfer(), new_transfer()
    for transfer in (one, other):
        await transfers.add(transfer, "Begun.")
    everything = await transfers.changed_since({one.id: 0, other.id: 0, "none": 0})
    assert {transfer.id: [line.message for line in story] for transfer, story in everything} == {
        one.id: ["Begun."],
        other.id: ["Begun."],
    }
    assert await transfers.changed_since({one.id: 1, other.id: 1}) == []
    saved = await transfers.save(advance(one, Event.PREPARED, NOW), "On.", "And on.", next_check_at=NOW)
    ((found, story),) = await transfers.changed_since({one.id: 1, other.id: 1})
    assert found == saved
    assert [line.message for line in story] == ["Begun.", "On.", "And on."]
    numbers = [line.number for line in story]
    assert numbers == sorted(set(numbers))
    assert await transfers.changed_since({}) == []


async def test_of_many_workers_one_wins_the_right_to_ask(url: str, engine: AsyncEngine) -> None:
    engines = [open_engine(url, 2) for _ in range(4)]
    try:
        for moment in (NOW, NOW + timedelta(seconds=60)):
            won = await asyncio.gather(*(SystemPolls(engines[number % 4]).win("alps", moment, 12) for number in range(12)))
            assert won.count(True) == 1
    finally:
        for opened in engines:
            await opened.dispose()
    assert await SystemPolls(engine).open_systems(["alps", "bora"], NOW + timedelta(seconds=60)) == ["bora"]
    assert await SystemPolls(engine).win("bora", NOW + timedelta(seconds=60), 12)


async def test_who_needed_fewer_questions_than_reserved_gives_them_back_and_who_dies_does_not(engine: AsyncEngine) -> None:
    polls = SystemPolls(engine)
    asked, now = 0, NOW
    for step in range(120):
        now = NOW + timedelta(seconds=step / 2)
        if await polls.win("alps", now, 12):
            await polls.settle("alps", now, now, 1, 12)
            asked += 1
    assert 9 <= asked <= 12
    died = sum([await polls.win("bora", NOW + timedelta(seconds=step / 2), 12) for step in range(120)])
    assert died == 4
    # A clock that went wrong does not keep the others from asking for longer than the rule's longest gap.
    assert await polls.win("cara", NOW + timedelta(days=1), 12)
    assert await polls.win("cara", NOW, 12)


async def test_followed_jobs_are_left_to_who_asks_and_taken_once_there_is_news(transfers: Transfers, engine: AsyncEngine) -> None:
    followed = FollowedJobs(engine)
    waiting = new_transfer(state=State.QUEUED, job_id="7")
    later = new_transfer(state=State.MOVING, job_id="8", next_check_at=NOW + timedelta(seconds=4))
    receiving = new_transfer(state=State.RECEIVING, job_id="9")
    for transfer in (waiting, later, receiving):
        await transfers.add(transfer, "Begun.")
    assert await followed.systems_with_due(["alps", "bora"], NOW) == ["alps"]
    (job,) = await followed.due("alps", NOW, 10)
    assert (job.transfer_id, job.job_id, job.owner, job.state) == (waiting.id, "7", waiting.owner, State.QUEUED)
    assert [row.id for row in await transfers.claim_due("w", NOW, LEASE, 9, without_jobs_of=["alps"])] == [receiving.id]
    assert await transfers.take([replace(job.sight, state=State.MOVING)], "w", NOW, LEASE) == []
    assert await transfers.take([replace(job.sight, job_id="70")], "w", NOW, LEASE) == []
    (taken,) = await transfers.take([job.sight], "w", NOW, LEASE)
    assert taken.lease_owner == "w"
    assert await transfers.take([job.sight], "other", NOW, LEASE) == []
    assert await followed.due("alps", NOW, 10) == []
    assert await transfers.put_off(taken, NOW)
    (again,) = await followed.due("alps", NOW, 10)
    await followed.put_off([Postponed(again, NOW + timedelta(seconds=30), 2, "Away.")], NOW)
    found = await transfers.get(waiting.id)
    assert found is not None
    assert (found.failed_looks, found.reason, found.version) == (2, "Away.", 1)
    assert await followed.due("alps", NOW, 10) == []


async def test_a_job_is_followed_until_its_end_is_told(transfers: Transfers, engine: AsyncEngine) -> None:
    followed = FollowedJobs(engine)
    soon = NOW + timedelta(hours=1)
    rows = {
        "done, still there": new_transfer(state=State.DONE, job_id="1"),
        "done, and told": new_transfer(state=State.DONE, job_id="2", job_ended=True),
        "done, and clean": new_transfer(state=State.DONE, job_id="3", cleaned=True),
        "staged download": new_transfer(state=State.STAGED, direction=Direction.DOWNLOAD, job_id="4", expires_at=soon),
        "the same, told": new_transfer(
            state=State.STAGED, direction=Direction.DOWNLOAD, job_id="5", expires_at=soon, job_ended=True
        ),
        "the same, over": new_transfer(state=State.STAGED, direction=Direction.DOWNLOAD, job_id="6", expires_at=NOW),
        "staged upload": new_transfer(state=State.STAGED, job_id="7"),
        "failed": new_transfer(state=State.FAILED, job_id="8"),
    }
    for transfer in rows.values():
        await transfers.add(transfer, "Begun.")
    names = {transfer.id: name for name, transfer in rows.items()}
    due = {names[job.transfer_id] for job in await followed.due("alps", NOW, 10)}
    assert due == {"done, still there", "staged download"}
    claimed = await transfers.claim_due("w", NOW, LEASE, 10, without_jobs_of=["alps"])
    assert {names[transfer.id] for transfer in claimed} == set(rows) - due
    # The row itself says the same, but knows no time.
    said = {name for name, row in rows.items() if row.job_is_on_its_way_out}
    assert said == due | {"the same, over"}


async def test_lively_is_what_changed_lately_is_due_and_has_not_arrived(transfers: Transfers, engine: AsyncEngine) -> None:
    followed = FollowedJobs(engine)
    old, later = NOW - timedelta(seconds=31), NOW + timedelta(seconds=1)
    lively = [
        new_transfer(state=State.QUEUED, job_id="1"),
        new_transfer(state=State.MOVING, job_id="2"),
        new_transfer(state=State.RECEIVING, job_id="3", wait=WaitPolicy.IN_JOB),
    ]
    others = [
        new_transfer(state=State.QUEUED, job_id="4", changed_at=old),
        new_transfer(state=State.MOVING, job_id="5", next_check_at=later),
        new_transfer(state=State.MOVING, job_id="6", lease_owner="w", lease_until=later),
        new_transfer(state=State.RECEIVING, job_id="7"),
        new_transfer(state=State.DONE, job_id="8"),
        new_transfer(state=State.MOVING, job_id="9", system="bora"),
    ]
    for transfer in (*lively, *others):
        await transfers.add(transfer, "Begun.")
    found = await followed.lively(["alps"], NOW, 10)
    assert {sight.transfer_id for sight in found} == {transfer.id for transfer in lively}
    assert len(await transfers.take(found, "w", NOW - timedelta(seconds=1), LEASE)) == 0
    assert len(await transfers.take(found, "w", NOW - timedelta(seconds=1), 0.0, due_in_seconds=1)) == 3
    assert len(await followed.lively(["alps", "bora"], NOW, 10)) == 4
    assert len(await followed.lively(["alps"], NOW, 2)) == 2


async def test_looks_that_end_together_are_put_off_together_and_each_hears_of_its_own(transfers: Transfers) -> None:
    rows = [new_transfer() for _ in range(20)]
    for row in rows:
        await transfers.add(row, "Begun.")
    await transfers.save(rows[3], next_check_at=NOW)
    kept = await asyncio.gather(*(transfers.put_off(row, NOW + timedelta(seconds=9)) for row in rows))
    assert [number for number, was in enumerate(kept) if not was] == [3]
    assert {row.id for row in await transfers.claim_due("w", NOW, LEASE, 99)} == {rows[3].id}
