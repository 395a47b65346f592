"""A transfer from one system to another: two rows that lead and follow, one object, nothing left of either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.fakes.systems import IN_ARCHIVE
from tests.fakes.world import ALICE, BOB, World, open_world, world_settings

from stagecoach.core.audit import Kind
from stagecoach.core.errors import (
    AccountRequired,
    Conflict,
    FileMissing,
    KeyReused,
    NotAFile,
    PathRefused,
    PermissionRefused,
    QuotaReached,
    RequestUnderWay,
    SizeRefused,
    StagecoachError,
    SubmissionRefused,
    SystemDisabled,
    SystemNotFound,
    TargetExists,
    TooManyTransfers,
    TransferNotFound,
    Unavailable,
)
from stagecoach.core.transfer import Archive, Direction, State, Transfer, TransferFilter, WaitPolicy
from stagecoach.flows import cancel_transfer as cancelling
from stagecoach.flows import retry_transfer as retrying
from stagecoach.flows.answer_again import RepeatableRequest
from stagecoach.flows.audit import Audit
from stagecoach.flows.audit_fix import run_audit
from stagecoach.flows.audit_looks import Scope
from stagecoach.flows.begin_relay import BegunRelay, RelayEnd, begin_relay
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.check_bounds import bounds_of
from stagecoach.flows.finish_transfer import finish_transfer, list_parts
from stagecoach.flows.forget_ended import forget_ended
from stagecoach.flows.retry_transfer import retry_transfer
from stagecoach.flows.show_transfers import list_transfers, show_transfer
from stagecoach.ports.scheduler import JobPhase

CONTENT = bytes(range(256)) * 40
SOURCE, TARGET = "/home/alice/source", "/home/alice/target"
DAY = 24 * 3600.0
KEPT = {"limits": {"keep_failed_seconds": 3600}}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "LOOK_SECONDS", 0)
    monkeypatch.setattr(retrying, "LOOK_SECONDS", 0)


async def begun(world: World, path: str = TARGET, system: str = "bora", **more: object) -> BegunRelay:
    if SOURCE not in world.files.entries:
        world.files.add_file(SOURCE, "alice", CONTENT)
    account = "acc" if system == "bora" else None
    return await begin_relay(
        world.tools,
        ALICE,
        RelayEnd("alps", SOURCE),
        RelayEnd(system, path, account),
        **more,  # type: ignore[arg-type]
    )


async def rows(world: World) -> tuple[Transfer, Transfer]:
    """The leg and the transfer."""
    leg, transfer = sorted(await world.all_transfers(), key=lambda row: row.relay_of is None)
    return leg, transfer


async def bring_to(world: World, state: State, leg_state: State | None = None) -> tuple[Transfer, Transfer]:
    """Until the transfer (and its leg) are in that state."""
    for _ in range(20):
        leg, transfer = await rows(world)
        if transfer.state is state and leg_state in {None, leg.state}:
            return leg, transfer
        world.let_cluster_work()
        await world.work()
    raise AssertionError(f"the transfer is {transfer.state}, its leg {leg.state}")


async def settle(world: World, rounds: int = 10, seconds: float = 20.0) -> tuple[Transfer, Transfer]:
    for _ in range(rounds):
        await world.work(seconds=seconds)
        world.let_cluster_work()
    return await rows(world)


async def story(world: World, transfer: Transfer) -> list[str]:
    return [line.message for line in await world.transfers.history(transfer.id)]


@pytest.mark.parametrize("system", ["alps", "bora"])
async def test_a_file_goes_from_one_system_to_another(world: World, system: str) -> None:
    transfer = (await begun(world, system=system)).transfer
    assert (transfer.state, transfer.direction, transfer.size_bytes) == (State.RECEIVING, Direction.UPLOAD, len(CONTENT))
    assert (transfer.source_system, transfer.source_path, transfer.job_id) == ("alps", SOURCE, None)
    leg, transfer = await settle(world)
    assert (leg.state, transfer.state) == (State.DONE, State.DONE)
    assert (leg.cleaned, transfer.cleaned) == (True, True)
    assert world.files.entries[TARGET].content == world.files.entries[SOURCE].content == CONTENT
    assert world.files.entries[TARGET].owner == "alice"
    assert world.left_outside() == []
    assert world.scheduler.count("submit") == 2
    assert [line for line in await story(world, transfer) if "verified" in line][-1].endswith("verified.")


async def test_nothing_is_made_on_the_destination_before_the_data_is_there(world: World) -> None:
    await begun(world)
    await world.work()
    leg, transfer = await rows(world)
    assert [job.name for job in world.scheduler.open_jobs()] == [leg.job_name]
    assert (transfer.submission_tried, transfer.job_directory, transfer.wait) == (False, None, WaitPolicy.HELD)
    # A job that waited in its allocation would wait for the queue of another machine.
    leg, transfer = await bring_to(world, State.QUEUED)
    assert world.scheduler.jobs[transfer.job_id or ""].phase is JobPhase.PENDING
    assert (leg.state, transfer.expires_at) == (State.STAGED, leg.expires_at)


async def test_the_destination_compares_what_the_source_has_read(world: World) -> None:
    await begun(world, digests={"sha256": "0" * 64})
    leg, transfer = await bring_to(world, State.QUEUED)
    ticket = world.nodes.ticket(transfer.job_directory or "")
    assert ticket is not None
    assert leg.object_etag
    there: dict[str, str] = ticket["object"]  # type: ignore[assignment]
    assert there["etag"] == leg.object_etag.strip('"')
    assert f"{leg.id}/data" in there["get_url"]
    assert f"{leg.id}/data" in there["head_url"]
    assert transfer.id in str(ticket["receipt_url"])
    assert ticket["digests"] == {"sha256": "0" * 64}
    assert (ticket["size_bytes"], ticket["part_size_bytes"]) == (leg.size_bytes, leg.plan.part_size_bytes)


async def test_a_directory_is_measured_by_its_source(world: World) -> None:
    world.files.add_directory("/home/alice/tree", "alice")
    world.files.add_file(f"/home/alice/tree/{IN_ARCHIVE}", "alice", CONTENT)
    source, destination = RelayEnd("alps", "/home/alice/tree"), RelayEnd("bora", "/home/alice/new", "acc")
    transfer = (await begin_relay(world.tools, ALICE, source, destination, archive=Archive.TAR)).transfer
    assert transfer.size_bytes is None
    world.nodes.start_pending()
    leg, _ = await rows(world)
    world.nodes.move_some(leg.job_id or "", 0)
    leg, transfer = await bring_to(world, State.STAGED)
    assert (transfer.size_bytes, transfer.part_count) == (len(CONTENT), 1)
    leg, transfer = await settle(world)
    assert (transfer.state, transfer.size_bytes) == (State.DONE, len(CONTENT))
    assert world.files.entries[f"/home/alice/new/{IN_ARCHIVE}"].content == CONTENT
    assert any("directory is at its place" in line for line in await story(world, transfer))
    assert world.left_outside() == []


async def test_a_directory_may_be_as_large_as_the_smaller_of_both_limits(tmp_path: Path, database_template: Path) -> None:
    settings = world_settings(bora={"limits": {"max_file_size_bytes": 12_345}})
    async with open_world(tmp_path, database_template, settings) as world:
        world.files.add_directory("/home/alice/tree", "alice")
        source, destination = RelayEnd("alps", "/home/alice/tree"), RelayEnd("bora", "/home/alice/new", "acc")
        await begin_relay(world.tools, ALICE, source, destination, archive=Archive.TAR)
        leg, _ = await rows(world)
        ticket = world.nodes.ticket(leg.job_directory or "")
        assert ticket is not None
        assert ticket["limit_bytes"] == 12_345


async def test_progress_of_both_legs_is_in_the_transfer(world: World) -> None:
    await begun(world)
    leg, _ = await rows(world)
    world.nodes.move_some(leg.job_id or "", 1000)
    await world.work(3)
    leg, transfer = await rows(world)
    assert (leg.state, leg.bytes_moved) == (State.MOVING, 1000)
    assert (transfer.state, transfer.bytes_staged, transfer.bytes_moved) == (State.RECEIVING, 1000, 0)
    assert any("sends the file" in line for line in await story(world, transfer))
    leg, transfer = await bring_to(world, State.QUEUED)
    assert transfer.bytes_staged == len(CONTENT)
    world.nodes.move_some(transfer.job_id or "", 500)
    await world.work(2)
    leg, transfer = await rows(world)
    assert (transfer.state, transfer.bytes_staged, transfer.bytes_moved) == (State.MOVING, len(CONTENT), 500)


async def test_the_news_of_the_leg_wakes_the_transfer(world: World) -> None:
    await begun(world)
    leg, transfer = await rows(world)
    # It has long been quiet, so the next look would be minutes away.
    await world.transfers.save(transfer, next_check_at=world.clock.now() + timedelta(seconds=3000))
    world.nodes.start_pending()
    world.nodes.finish_running()
    await world.work(3)
    leg, transfer = await rows(world)
    assert (leg.state, transfer.state) == (State.STAGED, State.QUEUED)


REFUSALS = [
    (RelayEnd("nowhere", SOURCE), RelayEnd("bora", TARGET, "acc"), SystemNotFound),
    (RelayEnd("alps", SOURCE), RelayEnd("nowhere", TARGET), SystemNotFound),
    (RelayEnd("alps", SOURCE), RelayEnd("bora", TARGET), AccountRequired),
    (RelayEnd("bora", SOURCE), RelayEnd("alps", TARGET), AccountRequired),
    (RelayEnd("alps", "/home/alice/none"), RelayEnd("bora", TARGET, "acc"), FileMissing),
    (RelayEnd("alps", "/etc/passwd"), RelayEnd("bora", TARGET, "acc"), PathRefused),
    (RelayEnd("alps", SOURCE), RelayEnd("bora", "/etc/passwd", "acc"), PathRefused),
    (RelayEnd("alps", SOURCE), RelayEnd("bora", "/home/alice/none/x", "acc"), FileMissing),
    (RelayEnd("alps", "/home/alice/full"), RelayEnd("bora", TARGET, "acc"), NotAFile),
    (RelayEnd("alps", SOURCE), RelayEnd("bora", "/home/alice/full", "acc"), NotAFile),
    (RelayEnd("alps", SOURCE), RelayEnd("alps", SOURCE), PathRefused),
    (RelayEnd("alps", SOURCE), RelayEnd("alps", "/home/alice/link"), PathRefused),
    (RelayEnd("alps", "/home/alice/closed"), RelayEnd("bora", TARGET, "acc"), PermissionRefused),
    (RelayEnd("alps", SOURCE), RelayEnd("alps", "/scratch/x"), PermissionRefused),
]


@pytest.mark.parametrize(("source", "destination", "error"), REFUSALS)
async def test_a_refusal_by_either_system_leaves_nothing(
    world: World, source: RelayEnd, destination: RelayEnd, error: type[StagecoachError]
) -> None:
    world.files.add_file(SOURCE, "alice", CONTENT)
    world.files.add_symlink("/home/alice/link", "alice", "source")
    world.files.add_file("/home/alice/closed", "root", b"x", 0o600)
    world.files.add_directory("/home/alice/full", "alice")
    world.files.add_directory("/scratch", "root", 0o755)
    with pytest.raises(error):
        await begin_relay(world.tools, ALICE, source, destination)
    assert await world.all_transfers() == []
    assert world.left_outside() == []
    assert world.scheduler.count("submit") == 0


async def test_a_directory_that_holds_something_is_no_destination(world: World) -> None:
    world.files.add_directory("/home/alice/tree", "alice")
    world.files.add_directory("/home/alice/full", "alice")
    world.files.add_file("/home/alice/full/precious", "alice", b"x")
    source, destination = RelayEnd("alps", "/home/alice/tree"), RelayEnd("alps", "/home/alice/full")
    with pytest.raises(TargetExists):
        await begin_relay(world.tools, ALICE, source, destination, archive=Archive.TAR)
    assert await world.all_transfers() == []


async def test_the_destinations_scheduler_has_its_word_before_anything_is_made(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[str, str | None]] = []

    async def refuse(username: str, account: str | None) -> None:
        tried.append((username, account))
        raise SubmissionRefused("Invalid account or account/partition combination specified.")

    monkeypatch.setattr(world.scheduler, "try_directives", refuse)
    with pytest.raises(SubmissionRefused):
        await begun(world)
    assert tried == [("alice", "acc")]
    assert await world.all_transfers() == []


async def test_what_the_sources_scheduler_refuses_is_taken_back_on_both(world: World) -> None:
    world.scheduler.refusal = SubmissionRefused("No.")
    with pytest.raises(SubmissionRefused):
        await begun(world)
    leg, transfer = await settle(world, rounds=3, seconds=100)
    assert (leg.state, transfer.state, leg.cleaned, transfer.cleaned) == (State.FAILED, State.FAILED, True, True)
    assert world.left_outside() == []


async def test_each_staged_byte_counts_once_and_each_leg_on_its_system(world: World) -> None:
    await begun(world)
    usages = {}
    for name in ("alps", "bora"):
        bounds = bounds_of(world.tools, world.tools.system(name))
        usages[name] = await world.transfers.usage("alice", name, bounds, world.clock.now())
    assert [usage.open_of_user for usage in usages.values()] == [1, 1]
    assert [usage.staged_of_user_bytes for usage in usages.values()] == [len(CONTENT)] * 2
    assert await world.tools.inventory.load() == {"alps": (1, len(CONTENT)), "bora": (1, 0)}
    await bring_to(world, State.QUEUED)
    usage = await world.transfers.usage("alice", "alps", bounds_of(world.tools, world.tools.system("alps")), world.clock.now())
    assert (usage.open_of_user, usage.staged_of_user_bytes) == (0, len(CONTENT))


ONE = {"limits": {"max_open_transfers_per_user": 1}}
FULL: list[tuple[dict[str, dict[str, object]], str, type[StagecoachError]]] = [
    # Within one system its two legs take two places, or none.
    ({"alps": ONE}, "alps", TooManyTransfers),
    ({"bora": {"enabled": False}}, "bora", SystemDisabled),
    ({"bora": {"limits": {"max_file_size_bytes": len(CONTENT) - 1}}}, "bora", SizeRefused),
    ({"s3": {"max_staged_bytes_per_user": len(CONTENT) - 1}}, "bora", SizeRefused),
]


@pytest.mark.parametrize(("changes", "system", "error"), FULL)
async def test_what_is_beyond_the_bounds_of_either_is_refused(
    tmp_path: Path,
    database_template: Path,
    changes: dict[str, dict[str, object]],
    system: str,
    error: type[StagecoachError],
) -> None:
    async with open_world(tmp_path, database_template, world_settings(**changes)) as world:
        with pytest.raises(error):
            await begun(world, system=system)
        assert await world.all_transfers() == []
        assert world.left_outside() == []


@pytest.mark.parametrize("full", ["alps", "bora"])
async def test_a_system_that_is_full_takes_neither_leg(tmp_path: Path, database_template: Path, full: str) -> None:
    settings = world_settings(**{full: {"limits": {"max_open_transfers": 1}}})
    async with open_world(tmp_path, database_template, settings) as world:
        await begun(world)
        with pytest.raises(TooManyTransfers):
            await begun(world, "/home/alice/other")
        assert len(await world.all_transfers()) == 2


@pytest.mark.parametrize("within_one", [False, True])
async def test_the_staging_area_holds_it_once(tmp_path: Path, database_template: Path, within_one: bool) -> None:
    settings = world_settings(s3={"max_staged_bytes_per_user": len(CONTENT) + 5})
    async with open_world(tmp_path, database_template, settings) as world:
        await begun(world, system="alps" if within_one else "bora")
        with pytest.raises(QuotaReached):
            await begun(world, "/home/alice/other")
        await settle(world, rounds=12)
        await begun(world, "/home/alice/other")


async def test_the_same_request_is_the_same_transfer(world: World) -> None:
    request = RepeatableRequest("key", "1" * 64)
    first = await begun(world, repeatable=request)
    again = await begun(world, repeatable=request)
    assert (first.is_repeated, again.is_repeated) == (False, True)
    assert again.transfer.id == first.transfer.id
    assert len(await world.all_transfers()) == 2
    with pytest.raises(KeyReused):
        await begun(world, repeatable=RepeatableRequest("key", "2" * 64))


async def test_the_same_request_at_the_same_time_makes_one(world: World) -> None:
    world.files.add_file(SOURCE, "alice", CONTENT)
    request = RepeatableRequest("key", "1" * 64)
    answers = await asyncio.gather(*(begun(world, repeatable=request) for _ in range(4)), return_exceptions=True)
    transfer = (await rows(world))[1]
    for answer in answers:
        if isinstance(answer, BegunRelay):
            assert answer.transfer.id == transfer.id
        else:
            assert isinstance(answer, RequestUnderWay)
    assert sum(isinstance(answer, BegunRelay) for answer in answers) >= 1
    assert world.scheduler.count("submit") == 1


async def test_lists_show_the_transfer_and_not_its_leg(world: World) -> None:
    await begun(world)
    leg, transfer = await rows(world)
    for system in (None, "alps", "bora"):
        found = await list_transfers(world.tools, ALICE, TransferFilter(system=system))
        assert [each.id for each in found] == [transfer.id], system
    assert (await show_transfer(world.tools, ALICE, leg.id)).relay_of == transfer.id
    with pytest.raises(TransferNotFound):
        await show_transfer(world.tools, BOB, leg.id)


async def test_what_is_done_to_a_leg_is_done_to_its_transfer(world: World) -> None:
    await begun(world)
    leg, transfer = await bring_to(world, State.QUEUED)
    for deed in (cancel_transfer, retry_transfer, finish_transfer):
        with pytest.raises(Conflict) as refused:
            await deed(world.tools, ALICE, leg.id)
        assert refused.value.data["transfer_id"] == transfer.id
    for question in (finish_transfer, list_parts):
        with pytest.raises(Conflict):
            await question(world.tools, ALICE, transfer.id)
    assert (await rows(world))[0].state is State.STAGED


ROADS = [
    (State.RECEIVING, State.QUEUED),
    (State.RECEIVING, State.MOVING),
    (State.STAGED, State.STAGED),
    (State.QUEUED, State.STAGED),
    (State.MOVING, State.STAGED),
]


@pytest.mark.parametrize(("state", "leg_state"), ROADS)
async def test_a_cancel_leaves_nothing_of_either_leg(world: World, state: State, leg_state: State) -> None:
    await begun(world)
    leg, transfer = await rows(world)
    if (state, leg_state) == (State.RECEIVING, State.MOVING):
        world.nodes.move_some(leg.job_id or "", 100)
        await world.work(2)
    leg, transfer = await bring_to(world, state, leg_state)
    if state is State.MOVING:
        world.nodes.move_some(transfer.job_id or "", 100)
    cancelled = await cancel_transfer(world.tools, ALICE, transfer.id)
    assert cancelled.state is State.CANCELLED
    leg, transfer = await rows(world)
    assert (leg.state, leg.cleaned, transfer.cleaned) == (State.CANCELLED, True, True)
    assert world.left_outside() == []
    assert TARGET not in world.files.entries
    await settle(world)
    assert world.left_outside() == []


async def test_a_cancel_waits_for_the_system_of_the_source_only_with_the_leg(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "INLINE_SECONDS", 0.05)
    await begun(world)
    world.scheduler.unavailable = True
    _, transfer = await rows(world)
    assert (await cancel_transfer(world.tools, ALICE, transfer.id)).state is State.CANCELLING
    assert [row.state for row in await rows(world)] == [State.CANCELLING, State.CANCELLING]
    world.scheduler.unavailable = False
    await settle(world)
    assert [row.state for row in await rows(world)] == [State.CANCELLED, State.CANCELLED]
    assert world.left_outside() == []


async def test_a_cancel_that_comes_too_late_takes_the_staged_object_all_the_same(world: World) -> None:
    await begun(world)
    await bring_to(world, State.MOVING)
    world.nodes.finish_running()
    _, transfer = await rows(world)
    assert (await cancel_transfer(world.tools, ALICE, transfer.id)).state is State.DONE
    leg, transfer = await settle(world)
    assert (leg.state, transfer.cleaned) == (State.DONE, True)
    assert world.files.entries[TARGET].content == CONTENT
    assert world.left_outside() == []


@pytest.mark.parametrize("code", ["no_space", "source_changed"])
async def test_a_leg_that_fails_fails_the_transfer_with_its_words(world: World, code: str) -> None:
    await begun(world)
    leg, transfer = await rows(world)
    world.nodes.start_pending()
    world.nodes.end_with(leg.job_id or "", JobPhase.FAILED, code)
    leg, transfer = await settle(world)
    assert (transfer.state, transfer.code) == (State.FAILED, code)
    assert transfer.reason == f"On its source, alps: The mover says {code}."
    assert (leg.cleaned, transfer.cleaned) == (True, True)
    assert world.left_outside() == []


async def test_a_leg_whose_next_job_is_refused_is_seen_at_once(world: World) -> None:
    await begun(world)
    leg, transfer = await rows(world)
    world.nodes.move_some(leg.job_id or "", 100)
    world.nodes.end_with(leg.job_id or "", JobPhase.FAILED, "store_unreachable")
    await world.work(2)
    leg, transfer = await rows(world)
    assert (leg.state, leg.job_id) == (State.QUEUED, None)
    world.scheduler.refusal = SubmissionRefused("Invalid account.")
    await world.transfers.save(transfer, next_check_at=world.clock.now() + timedelta(seconds=3000))
    await world.work(4, seconds=20)
    leg, transfer = await rows(world)
    assert (leg.state, transfer.state, transfer.code) == (State.FAILED, State.FAILED, "submission_refused")
    assert transfer.reason == "On its source, alps: Invalid account."


async def test_a_leg_whose_job_never_starts_expires_and_so_does_the_transfer(world: World) -> None:
    await begun(world)
    world.clock.advance(30 * DAY)
    await world.work(6, seconds=20)
    leg, transfer = await rows(world)
    assert (leg.state, transfer.state, transfer.code) == (State.EXPIRED, State.FAILED, "expired")
    assert world.left_outside() == []


async def test_a_destination_whose_job_never_starts_expires_with_the_object(world: World) -> None:
    await begun(world)
    await bring_to(world, State.QUEUED)
    world.clock.advance(30 * DAY)
    leg, transfer = await settle(world)
    assert (transfer.state, leg.state.is_end, transfer.cleaned) == (State.EXPIRED, True, True)
    assert world.left_outside() == []


async def test_a_staged_object_stays_while_the_destination_moves_it(world: World) -> None:
    await begun(world)
    leg, transfer = await bring_to(world, State.MOVING)
    world.nodes.move_some(transfer.job_id or "", 100)
    world.clock.advance(30 * DAY)
    await world.work(2)
    leg, transfer = await rows(world)
    assert (leg.state, transfer.state) == (State.STAGED, State.MOVING)
    world.nodes.finish_running()
    leg, transfer = await settle(world)
    assert (leg.state, transfer.state) == (State.DONE, State.DONE)
    assert world.left_outside() == []


class TestRetrying:
    @pytest.fixture
    async def kept_world(self, tmp_path: Path, database_template: Path) -> AsyncIterator[World]:
        """Where a failure keeps what a retry can go on from."""
        async with open_world(tmp_path, database_template, world_settings(alps=KEPT, bora=KEPT)) as world:
            yield world

    async def failed_source(self, kept_world: World) -> tuple[Transfer, Transfer]:
        await begun(kept_world)
        leg, _ = await rows(kept_world)
        kept_world.nodes.move_some(leg.job_id or "", 100)
        kept_world.nodes.end_with(leg.job_id or "", JobPhase.CANCELLED)
        leg, transfer = await settle(kept_world, rounds=4)
        assert (leg.state, transfer.state, transfer.code) == (State.FAILED, State.FAILED, "job_cancelled")
        assert leg.retry_until == transfer.retry_until is not None
        return leg, transfer

    async def failed_destination(self, kept_world: World) -> tuple[Transfer, Transfer]:
        await begun(kept_world)
        _, transfer = await bring_to(kept_world, State.MOVING)
        kept_world.nodes.end_with(transfer.job_id or "", JobPhase.FAILED, "no_space")
        leg, transfer = await settle(kept_world, rounds=3)
        assert (leg.state, transfer.state, transfer.code) == (State.STAGED, State.FAILED, "no_space")
        assert transfer.retry_until is not None
        return leg, transfer

    async def test_a_source_that_failed_goes_on(self, kept_world: World) -> None:
        _, transfer = await self.failed_source(kept_world)
        again = await retry_transfer(kept_world.tools, ALICE, transfer.id)
        assert (again.state, again.retry_until) == (State.RECEIVING, None)
        leg, _ = await rows(kept_world)
        assert (leg.state, leg.attempt) == (State.QUEUED, 2)
        leg, transfer = await settle(kept_world)
        assert (leg.state, transfer.state) == (State.DONE, State.DONE)
        assert kept_world.files.entries[TARGET].content == CONTENT
        assert kept_world.left_outside() == []

    async def test_a_destination_that_failed_goes_on_from_the_staged_object(self, kept_world: World) -> None:
        _, transfer = await self.failed_destination(kept_world)
        submitted = kept_world.scheduler.count("submit")
        assert (await retry_transfer(kept_world.tools, ALICE, transfer.id)).state is State.STAGED
        leg, transfer = await settle(kept_world)
        assert (leg.state, transfer.state, kept_world.scheduler.count("submit")) == (State.DONE, State.DONE, submitted + 1)
        assert kept_world.left_outside() == []

    @pytest.mark.parametrize("which", ["failed_source", "failed_destination"])
    async def test_what_nobody_retries_is_removed(self, kept_world: World, which: str) -> None:
        _, transfer = await getattr(self, which)(kept_world)
        kept_world.clock.advance(3601)
        leg, transfer = await settle(kept_world)
        assert (transfer.state, transfer.cleaned, leg.cleaned) == (State.FAILED, True, True)
        assert kept_world.left_outside() == []
        with pytest.raises(Conflict):
            await retry_transfer(kept_world.tools, ALICE, transfer.id)

    @pytest.mark.parametrize("which", ["failed_source", "failed_destination"])
    async def test_what_is_given_up_is_removed(self, kept_world: World, which: str) -> None:
        _, transfer = await getattr(self, which)(kept_world)
        assert (await cancel_transfer(kept_world.tools, ALICE, transfer.id)).state is State.FAILED
        leg, transfer = await settle(kept_world)
        assert (transfer.cleaned, leg.cleaned, leg.state.is_end) == (True, True, True)
        assert kept_world.left_outside() == []

    async def test_without_an_object_there_is_nothing_to_retry(self, kept_world: World) -> None:
        leg, transfer = await self.failed_destination(kept_world)
        await kept_world.store.delete_objects(leg.bucket, [leg.object_key])
        with pytest.raises(Conflict):
            await retry_transfer(kept_world.tools, ALICE, transfer.id)

    async def test_a_leg_that_is_not_tidied_up_is_waited_for(self, kept_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        leg, transfer = await self.failed_source(kept_world)
        monkeypatch.setattr(retrying, "SETTLING_SECONDS", 0)
        await kept_world.transfers.save(leg, next_check_at=kept_world.clock.now())
        with pytest.raises(Unavailable):
            await retry_transfer(kept_world.tools, ALICE, transfer.id)
        assert (await rows(kept_world))[0].state is State.FAILED


async def test_an_audit_finds_nothing_wrong_with_a_relay_and_sees_what_is(world: World) -> None:
    scope = Scope(grace_seconds=0)
    await begun(world)
    for _ in range(12):
        assert await run_audit(world.tools, scope, fix=False) == Audit([], [], [])
        leg, transfer = await rows(world)
        if (transfer.state, leg.state) == (State.QUEUED, State.STAGED):
            break
        await world.work()
        world.let_cluster_work()
    await world.store.delete_objects(leg.bucket, [leg.object_key])
    found = (await run_audit(world.tools, scope, fix=False)).findings
    assert {(finding.kind, finding.transfer_id) for finding in found} == {
        (Kind.BROKEN_TRANSFER, transfer.id),
        (Kind.BROKEN_TRANSFER, leg.id),
    }


async def test_an_audit_finds_nothing_of_an_ended_relay(world: World) -> None:
    await begun(world)
    await settle(world, rounds=12)
    assert await run_audit(world.tools, Scope(grace_seconds=0), fix=False) == Audit([], [], [])


async def test_a_leg_is_forgotten_after_its_transfer(world: World) -> None:
    await begun(world)
    leg, transfer = await settle(world, rounds=12)
    assert (leg.next_check_at, transfer.next_check_at) == (None, None)
    # Somebody looked at the transfer later: the leg is as old as it must be, and stays all the same.
    world.clock.advance(100)
    between = world.clock.now()
    world.clock.advance(100)
    await world.transfers.save(replace(transfer, updated_at=world.clock.now()), next_check_at=None)
    assert await world.tools.inventory.forget_ended(between, 500) == 0
    world.clock.advance(world.settings.worker.keep_ended_days * DAY + 1)
    assert await forget_ended(world.tools) == 2
    assert await world.all_transfers() == []
