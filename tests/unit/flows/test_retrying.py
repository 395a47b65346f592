"""A failed transfer is kept for a while, so that its owner can have it go on; what nobody asks for goes by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.fakes.systems import put_by_urls
from tests.fakes.world import ADMIN, ALICE, BOB, World, open_world, world_settings
from tests.unit.flows.test_a_transfers_life import CONTENT, TARGET, begun_download, begun_upload, queued_upload, until_end

from stagecoach.core import names
from stagecoach.core.errors import (
    Conflict,
    PermissionRefused,
    SubmissionRefused,
    TooManyTransfers,
    TransferNotFound,
    Unavailable,
)
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows import retry_transfer as retrying
from stagecoach.flows.begin_transfer import begin_upload
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.finish_transfer import list_parts
from stagecoach.flows.retry_transfer import retry_transfer
from stagecoach.ports.scheduler import JobPhase

KEPT_SECONDS = 24 * 3600


@pytest.fixture
async def world(tmp_path: Path, database_template: Path) -> AsyncIterator[World]:
    """A service that keeps what failed for a day."""
    keeping = {"limits": {"keep_failed_seconds": KEPT_SECONDS}}
    async with open_world(tmp_path, database_template, world_settings(alps=keeping, bora=keeping)) as opened:
        yield opened


async def settled(world: World) -> Transfer:
    """Looks until the failed transfer waits for nothing but its owner."""
    for _ in range(40):
        await world.work(seconds=5)
        transfer = await world.the_transfer()
        if transfer.state is State.FAILED and transfer.next_check_at == transfer.retry_until is not None:
            return transfer
    raise AssertionError(f"{transfer.state}, next look at {transfer.next_check_at}, kept until {transfer.retry_until}")


async def failed(world: World, code: str, phase: JobPhase = JobPhase.FAILED, direction: str = "upload") -> Transfer:
    """A transfer whose job stopped at 61 %."""
    transfer = await queued_upload(world) if direction == "upload" else (await begun_download(world)).transfer
    world.nodes.move_some(transfer.job_id or "", 610)
    await world.work()
    world.nodes.end_with(transfer.job_id or "", phase, code or None)
    transfer = await settled(world)
    assert not transfer.cleaned
    assert transfer.retry_until is not None
    assert transfer.ended_at is not None
    assert transfer.retry_until - transfer.ended_at == timedelta(seconds=KEPT_SECONDS)
    return transfer


def left_by_kind(world: World) -> set[str]:
    """``job``, ``object``, ``multipart``, ``hidden``, ``directory``: what there is."""
    kinds = set()
    for line in world.left_outside():
        kind, what = line.split(" ", 1)
        if kind == "path":
            kind = "hidden" if what.endswith(".part") else "directory"
        if kind == "object" and not what.endswith("/data"):
            continue
        kinds.add(kind)
    return kinds


async def delivered(world: World) -> Transfer:
    """The job that took over does its work."""
    for _ in range(6):
        await world.work(seconds=31)
        world.let_cluster_work()
    return await world.the_transfer()


@pytest.mark.parametrize("code", ["no_space", "permission_denied", "target_missing_directory", "target_exists"])
async def test_a_failure_of_the_target_leaves_nothing_on_the_cluster_and_keeps_the_object(world: World, code: str) -> None:
    await failed(world, code)
    assert left_by_kind(world) == {"object"}


@pytest.mark.parametrize(
    ("code", "phase"),
    [("", JobPhase.OUT_OF_MEMORY), ("", JobPhase.CANCELLED), ("store_refused", JobPhase.FAILED)],
)
async def test_a_job_that_stopped_midway_leaves_its_journal_and_hidden_file_too(world: World, code: str, phase: JobPhase) -> None:
    transfer = await failed(world, code, phase)
    assert left_by_kind(world) == {"object", "hidden", "directory"}
    assert f"{transfer.job_directory}/journal.json" in world.files.entries


async def test_a_failed_download_keeps_its_multipart_and_its_journal(world: World) -> None:
    await failed(world, "permission_denied", direction="download")
    assert left_by_kind(world) == {"multipart", "directory"}


@pytest.mark.parametrize("code", ["size_mismatch", "digest_mismatch", "archive_unsafe", "object_missing"])
async def test_what_no_retry_can_mend_keeps_nothing(world: World, code: str) -> None:
    transfer = await queued_upload(world)
    world.nodes.move_some(transfer.job_id or "", 610)
    world.nodes.end_with(transfer.job_id or "", JobPhase.FAILED, code)
    transfer = await until_end(world)
    assert (transfer.state, transfer.code, transfer.retry_until) == (State.FAILED, code, None)
    assert world.left_outside() == []
    with pytest.raises(Conflict, match="begin a new transfer"):
        await retry_transfer(world.tools, ALICE, transfer.id)


async def test_what_the_service_could_not_prepare_keeps_nothing(world: World) -> None:
    world.scheduler.refusal = SubmissionRefused("sbatch: error: invalid account")
    with pytest.raises(SubmissionRefused):
        await begun_upload(world)
    assert (await until_end(world)).retry_until is None
    assert world.left_outside() == []


async def test_nothing_is_kept_longer_than_the_staged_object_lives(world: World) -> None:
    transfer = await queued_upload(world)
    assert transfer.expires_at is not None
    world.nodes.move_some(transfer.job_id or "", 610)
    world.clock.time = transfer.expires_at - timedelta(seconds=100)
    await world.work()
    world.nodes.end_with(transfer.job_id or "", JobPhase.OUT_OF_MEMORY)
    assert (await settled(world)).retry_until == transfer.expires_at


async def test_a_failed_transfer_that_nobody_retries_is_removed_when_its_time_is_over(world: World) -> None:
    transfer = await failed(world, "", JobPhase.OUT_OF_MEMORY)
    await world.work(10, seconds=KEPT_SECONDS / 11)
    assert "object" in left_by_kind(world)
    ended = await until_end(world, seconds=KEPT_SECONDS / 20)
    assert (ended.state, ended.code, ended.reason) == (State.FAILED, "out_of_memory", transfer.reason)
    assert (ended.cleaned, ended.retry_until) == (True, None)
    assert world.left_outside() == []
    with pytest.raises(Conflict, match="begin a new transfer"):
        await retry_transfer(world.tools, ALICE, transfer.id)


@pytest.mark.parametrize("caller", [ALICE, ADMIN])
async def test_its_owner_drops_what_is_kept(world: World, caller: object) -> None:
    transfer = await failed(world, "", JobPhase.OUT_OF_MEMORY)
    dropped = await cancel_transfer(world.tools, caller, transfer.id)  # type: ignore[arg-type]
    assert (dropped.state, dropped.retry_until, dropped.cleaned) == (State.FAILED, None, True)
    assert world.left_outside() == []
    with pytest.raises(Conflict, match="already ended"):
        await cancel_transfer(world.tools, ALICE, transfer.id)
    await until_end(world)


async def test_an_upload_goes_on_from_the_staged_object_after_space_was_made(world: World) -> None:
    transfer = await failed(world, "no_space")
    again = await retry_transfer(world.tools, ALICE, transfer.id)
    assert (again.state, again.attempt, again.job_id, again.retry_until) == (State.STAGED, 2, None, None)
    assert (again.code, again.reason, again.ended_at) == (None, None, None)
    assert (await delivered(world)).state is State.DONE
    assert (await until_end(world)).attempt == 2
    assert world.files.entries[TARGET].content == CONTENT
    assert world.left_outside() == []
    names_of_jobs = [what for verb, _, what in world.scheduler.calls if verb == "submit"]
    assert names_of_jobs == [names.job_name(transfer.id), names.job_name(transfer.id, 2)]


async def test_a_retry_begins_the_count_of_tries_anew(world: World) -> None:
    transfer = await queued_upload(world)
    tried = replace(transfer, resubmissions=3, attempt=4)
    await world.tools.transfers.save(tried, next_check_at=world.clock.now())
    world.scheduler.set_phase(transfer.job_id or "", JobPhase.NODE_FAIL)
    assert (await settled(world)).code == "node_failed"
    again = await retry_transfer(world.tools, ALICE, transfer.id)
    assert (again.attempt, again.resubmissions) == (5, 0)


async def test_a_download_goes_on_with_the_same_multipart(world: World) -> None:
    transfer = await failed(world, "mover_error", direction="download")
    again = await retry_transfer(world.tools, ALICE, transfer.id)
    assert (again.state, again.upload_id) == (State.QUEUED, transfer.upload_id)
    await world.work()
    assert f"{transfer.job_directory}/journal.json" in world.files.entries
    assert (await delivered(world)).state is State.STAGED
    assert world.scheduler.count("submit") == 2


async def test_a_download_whose_object_is_whole_though_its_job_died_can_be_retried(world: World) -> None:
    transfer = (await begun_download(world)).transfer
    world.put_object(transfer, CONTENT)
    world.nodes.end_with(transfer.job_id or "", JobPhase.OUT_OF_MEMORY)
    await settled(world)
    assert (await retry_transfer(world.tools, ALICE, transfer.id)).state is State.QUEUED


async def test_an_upload_that_failed_while_its_parts_were_put_is_opened_again(world: World) -> None:
    begun = await begun_upload(world)
    key = names.object_key(begun.transfer.id)

    async def refused(*_: object) -> None:
        raise PermissionRefused("The store takes nothing.")

    list_parts_then, world.store.list_parts = world.store.list_parts, refused  # type: ignore[method-assign, assignment]
    await world.work(20, seconds=300)
    world.store.list_parts = list_parts_then  # type: ignore[method-assign]
    transfer = await settled(world)
    assert (transfer.code, left_by_kind(world)) == ("permission_denied", {"multipart"})
    assert world.scheduler.jobs[begun.transfer.job_id or ""].phase is JobPhase.CANCELLED
    again = await retry_transfer(world.tools, ALICE, transfer.id)
    assert again.state is State.RECEIVING
    assert again.expires_at == min(world.clock.now() + timedelta(days=7), transfer.created_at + timedelta(days=7))
    await world.work()
    again = await world.the_transfer()
    assert world.scheduler.jobs[again.job_id or ""].phase is JobPhase.HELD
    report = await list_parts(world.tools, ALICE, transfer.id)
    part_size = transfer.part_size_bytes
    assert put_by_urls(world.store.follow, CONTENT, part_size, list(report.missing_urls.values()), report.complete_url)
    assert await world.store.head_object(transfer.bucket, key) is not None
    assert (await delivered(world)).state is State.DONE
    await until_end(world)
    assert world.left_outside() == []


async def test_a_job_that_waited_itself_and_ended_is_followed_by_another_that_waits(world: World) -> None:
    begun = await begun_upload(world, "bora")
    world.scheduler.set_phase(begun.transfer.job_id or "", JobPhase.TIMEOUT)
    transfer = await settled(world)
    assert transfer.code == "job_ended_early"
    world.clock.advance(7 * 3600)
    assert (await retry_transfer(world.tools, ALICE, transfer.id)).state is State.RECEIVING
    await world.work()
    again = await world.the_transfer()
    assert world.scheduler.jobs[again.job_id or ""].phase is JobPhase.PENDING
    ticket = world.nodes.ticket(again.job_directory or "")
    assert ticket is not None
    assert again.expires_at is not None
    assert ticket["wait"] == {"until_epoch_seconds": int(again.expires_at.timestamp())}
    assert again.expires_at > world.clock.now()
    assert world.put_by_client(begun, CONTENT)
    assert (await delivered(world)).state is State.DONE


async def test_an_upload_that_became_whole_after_its_failure_goes_on_as_a_whole_one(world: World) -> None:
    begun = await begun_upload(world, "bora")
    world.scheduler.set_phase(begun.transfer.job_id or "", JobPhase.TIMEOUT)
    await settled(world)
    assert world.put_by_client(begun, CONTENT)
    again = await retry_transfer(world.tools, ALICE, begun.transfer.id)
    assert (again.state, again.bytes_staged) == (State.STAGED, len(CONTENT))
    assert again.object_etag is not None
    assert (await delivered(world)).state is State.DONE


async def test_what_the_store_lost_meanwhile_is_told_and_nothing_begins(world: World) -> None:
    transfer = await failed(world, "no_space")
    await world.store.delete_objects(transfer.bucket, [names.object_key(transfer.id)])
    with pytest.raises(Conflict, match="begin a new transfer"):
        await retry_transfer(world.tools, ALICE, transfer.id)
    assert (await world.the_transfer()).state is State.FAILED


async def test_a_retry_that_is_refused_by_the_scheduler_fails_again_and_can_be_retried_again(world: World) -> None:
    transfer = await failed(world, "no_space")
    await retry_transfer(world.tools, ALICE, transfer.id)
    world.scheduler.refusal = SubmissionRefused("sbatch: error: over quota")
    again = await settled(world)
    assert (again.code, again.attempt) == ("submission_refused", 2)
    world.scheduler.refusal = None
    await retry_transfer(world.tools, ALICE, transfer.id)
    assert (await delivered(world)).state is State.DONE
    assert (await world.the_transfer()).attempt == 3


@pytest.mark.parametrize("fate", ["made", "never", "late"])
async def test_the_lost_answer_to_a_retrys_submission_never_makes_two_jobs(world: World, fate: str) -> None:
    transfer = await failed(world, "no_space")
    await retry_transfer(world.tools, ALICE, transfer.id)
    world.scheduler.lose_answers = [fate]
    await world.work(4, seconds=5)
    world.scheduler.late_jobs_appear()
    await world.work(40, seconds=5)
    assert [job.name for job in world.scheduler.open_jobs()] == [names.job_name(transfer.id, 2)]
    assert (await delivered(world)).state is State.DONE


async def test_only_its_owner_and_administrators_retry(world: World) -> None:
    transfer = await failed(world, "no_space")
    with pytest.raises(TransferNotFound):
        await retry_transfer(world.tools, BOB, transfer.id)
    assert (await retry_transfer(world.tools, ADMIN, transfer.id)).state is State.STAGED


async def test_only_a_failed_transfer_is_retried(world: World) -> None:
    begun = await begun_upload(world)
    with pytest.raises(Conflict, match="only a failed one"):
        await retry_transfer(world.tools, ALICE, begun.transfer.id)
    await cancel_transfer(world.tools, ALICE, begun.transfer.id)
    with pytest.raises(Conflict, match="only a failed one"):
        await retry_transfer(world.tools, ALICE, begun.transfer.id)


async def test_two_retries_at_once_make_one(world: World) -> None:
    transfer = await failed(world, "no_space")
    await retry_transfer(world.tools, ALICE, transfer.id)
    with pytest.raises(Conflict, match="only a failed one"):
        await retry_transfer(world.tools, ALICE, transfer.id)
    assert (await delivered(world)).state is State.DONE
    assert world.scheduler.count("submit") == 2


async def test_a_retry_waits_until_what_the_failure_left_is_tidied_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "SETTLING_SECONDS", 0)
    transfer = await queued_upload(world)
    world.nodes.end_with(transfer.job_id or "", JobPhase.FAILED, "no_space")

    async def refused(*_: object) -> None:
        raise PermissionRefused("You may not write in this directory.")

    remove_tree, world.files.remove_tree = world.files.remove_tree, refused  # type: ignore[method-assign, assignment]
    await world.work(30, seconds=60)
    nudges = world.nudges
    with pytest.raises(Unavailable, match="in a moment"):
        await retry_transfer(world.tools, ALICE, transfer.id)
    assert world.nudges > nudges
    assert (await world.the_transfer()).next_check_at == world.clock.now()
    world.files.remove_tree = remove_tree  # type: ignore[method-assign]
    await settled(world)
    assert (await retry_transfer(world.tools, ALICE, transfer.id)).state is State.STAGED


async def test_a_slow_job_is_ended_before_anything_is_kept(world: World) -> None:
    world.scheduler.slow_cancel = True
    transfer = await queued_upload(world)
    world.nodes.move_some(transfer.job_id or "", 610)
    await world.work()

    async def refused(*_: object) -> None:
        raise PermissionRefused("The system does not take the key.")

    reports, world.scheduler.reports = world.scheduler.reports, refused  # type: ignore[method-assign, assignment]
    await world.work(40, seconds=300)
    world.scheduler.reports = reports  # type: ignore[method-assign]
    await world.work(5, seconds=300)
    waiting = await world.the_transfer()
    assert waiting.state is State.FAILED
    assert waiting.next_check_at is not None
    assert waiting.retry_until is not None
    assert waiting.next_check_at < waiting.retry_until
    world.scheduler.end_cancelled_jobs()
    await settled(world)
    assert left_by_kind(world) == {"object"}


async def test_an_empty_upload_is_retried_too(world: World) -> None:
    begun = await begin_upload(world.tools, ALICE, "alps", TARGET, 0)
    assert world.put_by_client(begun, b"")
    await world.work(2)
    world.nodes.end_with(begun.transfer.job_id or "", JobPhase.FAILED, "no_space")
    await settled(world)
    await retry_transfer(world.tools, ALICE, begun.transfer.id)
    assert (await delivered(world)).state is State.DONE


async def test_the_story_says_what_is_kept_and_who_retried(world: World) -> None:
    transfer = await failed(world, "no_space")
    await retry_transfer(world.tools, ADMIN, transfer.id)
    lines = [line.message for line in await world.transfers.history(transfer.id)]
    assert transfer.retry_until is not None
    kept = f"What is staged is kept until {transfer.retry_until:%Y-%m-%d %H:%M} UTC; a retry goes on from it."
    assert lines[-2] == f"The mover says no_space. {kept}"
    assert lines[-1] == "Retried by root-of-all: the staged object is brought to the cluster again."
    assert transfer.reason == "The mover says no_space."


@pytest.mark.parametrize("bound", ["max_open_transfers_per_user", "max_open_transfers"])
async def test_a_retry_needs_a_place_among_the_open_ones(tmp_path: Path, database_template: Path, bound: str) -> None:
    limits = {"limits": {"keep_failed_seconds": KEPT_SECONDS, bound: 1}}
    async with open_world(tmp_path, database_template, world_settings(alps=limits)) as world:
        transfer = await failed(world, "no_space")
        caller = ALICE if "user" in bound else BOB
        other = await begin_upload(world.tools, caller, "alps", f"/home/{caller.username}/two", 10)
        with pytest.raises(TooManyTransfers) as refused:
            await retry_transfer(world.tools, ALICE, transfer.id)
        assert refused.value.data["limit"] == refused.value.data["used"] == 1
        assert await world.get(transfer.id) == transfer
        await cancel_transfer(world.tools, ADMIN, other.transfer.id)
        assert (await retry_transfer(world.tools, ALICE, transfer.id)).state is State.STAGED


async def test_who_retries_several_at_the_same_moment_gets_no_more_places_than_there_are(
    tmp_path: Path, database_template: Path
) -> None:
    limits = {"limits": {"keep_failed_seconds": KEPT_SECONDS, "max_open_transfers_per_user": 1}}
    async with open_world(tmp_path, database_template, world_settings(alps=limits)) as world:
        ids = []
        for name in ("one", "two", "three"):
            begun = await begin_upload(world.tools, ALICE, "alps", f"/home/alice/{name}", len(CONTENT))
            assert world.put_by_client(begun, CONTENT)
            await world.work(2)
            job_id = (await world.get(begun.transfer.id)).job_id or ""
            world.nodes.move_some(job_id, 610)
            world.nodes.end_with(job_id, JobPhase.FAILED, "no_space")
            await world.work(10, seconds=5)
            assert (await world.get(begun.transfer.id)).state is State.FAILED
            ids.append(begun.transfer.id)
        answers = await asyncio.gather(*(retry_transfer(world.tools, ALICE, each) for each in ids), return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in answers) == ["TooManyTransfers", "TooManyTransfers", "Transfer"]
        states = [transfer.state for transfer in await world.all_transfers()]
        assert sorted(states) == [State.FAILED, State.FAILED, State.STAGED]
