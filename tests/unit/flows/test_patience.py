"""What gets in a transfer's way and may pass, or must not be waited for: each was once a transfer that hung or was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from tests.fakes.world import ALICE, World
from tests.unit.flows.test_a_transfers_life import CONTENT, TARGET, begun_download, begun_upload, queued_upload, until_end

from stagecoach.core.errors import Conflict, PathRefused, PermissionRefused
from stagecoach.core.names import object_key
from stagecoach.core.transfer import State
from stagecoach.flows.begin_transfer import begin_upload
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.finish_transfer import finish_transfer
from stagecoach.ports.scheduler import JobKey, JobPhase, JobReport

SHA256, OTHER = "0" * 64, "1" * 64


async def test_a_digest_that_comes_too_late_is_not_dropped_in_silence(world: World) -> None:
    transfer = await queued_upload(world)
    with pytest.raises(Conflict, match="too late"):
        await finish_transfer(world.tools, ALICE, transfer.id, {"sha256": SHA256})
    assert (await finish_transfer(world.tools, ALICE, transfer.id)).state is State.QUEUED


async def test_a_second_digest_does_not_replace_the_first(world: World) -> None:
    begun = await begin_upload(world.tools, ALICE, "alps", TARGET, len(CONTENT), digests={"sha256": SHA256})
    assert world.put_by_client(begun, CONTENT)
    with pytest.raises(Conflict, match="not the one"):
        await finish_transfer(world.tools, ALICE, begun.transfer.id, {"sha256": OTHER})
    finished = await finish_transfer(world.tools, ALICE, begun.transfer.id, {"sha256": SHA256})
    assert finished.digests == {"sha256": SHA256}


async def test_a_directory_too_deep_for_the_hidden_file_is_refused(world: World) -> None:
    directory = "/home/alice"
    while len(directory) < 4060:
        directory += "/" + "d" * min(200, 4080 - len(directory))
        world.files.add_directory(directory, "alice")
    with pytest.raises(PathRefused, match="hidden file"):
        await begin_upload(world.tools, ALICE, "alps", f"{directory}/z", 1)
    assert world.left_outside() == []


@pytest.mark.parametrize("name", ["output.log", "error.log", "receipt.json"])
async def test_a_pipe_at_a_log_s_place_does_not_keep_a_transfer_from_its_end(world: World, name: str) -> None:
    transfer = await queued_upload(world)
    world.files.add_other(f"{transfer.job_directory}/{name}", "alice")
    world.scheduler.set_phase(transfer.job_id or "", JobPhase.FAILED)
    ended = await until_end(world)
    assert (ended.state, ended.code) == (State.FAILED, "job_failed")
    assert world.left_outside() == []


async def test_what_the_script_said_before_the_mover_began_is_the_reason(world: World) -> None:
    transfer = await queued_upload(world)
    said = b"noise\nstagecoach: no python3 of version 3.6 or newer on node n1; ask the administrators\n"
    await world.files.write_file("alice", f"{transfer.job_directory}/error.log", said, 0o600)
    world.scheduler.set_phase(transfer.job_id or "", JobPhase.FAILED)
    ended = await until_end(world)
    assert (ended.state, ended.code) == (State.FAILED, "job_failed")
    assert ended.reason == (
        "The staging job could not begin: no python3 of version 3.6 or newer on node n1; ask the administrators."
    )


async def test_a_job_that_the_scheduler_held_again_is_released_again(world: World) -> None:
    transfer = await queued_upload(world)
    world.scheduler.set_phase(transfer.job_id or "", JobPhase.HELD, reason="launch failed requeued held")
    await world.work(3)
    assert world.scheduler.jobs[transfer.job_id or ""].phase is JobPhase.PENDING


async def test_a_job_that_an_administrator_holds_is_left_alone_and_the_reason_shown(world: World) -> None:
    transfer = await queued_upload(world)
    world.scheduler.set_phase(transfer.job_id or "", JobPhase.HELD, reason="JobHeldAdmin")
    await world.work(3)
    assert world.scheduler.jobs[transfer.job_id or ""].phase is JobPhase.HELD
    assert (await world.the_transfer()).job_reason == "JobHeldAdmin"


async def test_a_job_that_never_starts_is_taken_back_when_its_time_is_over(world: World) -> None:
    await begun_download(world)
    await world.work(10, seconds=86400)
    ended = await world.the_transfer()
    assert (ended.state, ended.cleaned) == (State.EXPIRED, True)
    assert world.left_outside() == []


async def test_a_bucket_that_somebody_removed_is_made_again(world: World) -> None:
    first = await begun_upload(world)
    await cancel_transfer(world.tools, ALICE, first.transfer.id)
    del world.store._buckets[first.transfer.bucket]
    again = await begin_upload(world.tools, ALICE, "alps", TARGET, len(CONTENT))
    assert again.transfer.state is State.RECEIVING


async def test_a_login_refused_for_a_while_does_not_end_a_staged_upload_and_says_why_it_waits(world: World) -> None:
    begun = await begun_upload(world)
    assert world.put_by_client(begun, CONTENT)
    await world.work()
    assert (await world.the_transfer()).state is State.STAGED

    async def refused(username: str, job_id: str) -> None:
        raise PermissionRefused("The system does not take the key.")

    release, world.scheduler.release = world.scheduler.release, refused  # type: ignore[method-assign]
    for _ in range(20):
        await world.work(seconds=30)
    waiting = await world.the_transfer()
    assert (waiting.state, waiting.reason) == (State.STAGED, "The system does not take the key.")
    world.scheduler.release = release  # type: ignore[method-assign]
    await world.work(2, seconds=300)
    mended = await world.the_transfer()
    assert (mended.state, mended.reason) == (State.QUEUED, None)


async def test_a_login_refused_for_good_ends_it_with_the_reason(world: World) -> None:
    begun = await begun_upload(world)
    assert world.put_by_client(begun, CONTENT)
    await world.work()

    async def refused(*_: object) -> None:
        raise PermissionRefused("The system does not take the key.")

    world.scheduler.release = world.scheduler.reports = refused  # type: ignore[method-assign, assignment]
    await world.work(40, seconds=300)
    ended = await world.the_transfer()
    assert (ended.state, ended.code) == (State.FAILED, "permission_denied")
    # The job cannot be asked about, but the data in the store must not stay for it.
    await world.work(2, seconds=2 * 86400)
    assert [left for left in world.left_outside() if left.startswith(("object", "multipart"))] == []


async def test_a_completion_that_lands_after_the_clean_up_is_found(world: World) -> None:
    begun = await begun_upload(world)
    cancelled = await cancel_transfer(world.tools, ALICE, begun.transfer.id)
    assert cancelled.cleaned
    await world.store.write_object(begun.transfer.bucket, object_key(begun.transfer.id), CONTENT)
    await world.work(2, seconds=61)
    assert world.left_outside() == []
    assert (await world.the_transfer()).next_check_at is None


async def test_a_system_that_hangs_does_not_delay_another(world: World) -> None:
    slow = await begin_upload(world.tools, ALICE, "bora", TARGET, len(CONTENT), "acc")
    quick = await begin_upload(world.tools, ALICE, "alps", TARGET + "2", len(CONTENT))
    hangs = asyncio.Event()
    reports = world.scheduler.reports

    async def hanging(jobs: Sequence[JobKey]) -> dict[str, JobReport]:
        if any(key.job_id == slow.transfer.job_id for key in jobs):
            await hangs.wait()
        return dict(await reports(jobs))

    world.scheduler.reports = hanging  # type: ignore[method-assign, assignment]
    assert world.put_by_client(quick, CONTENT)
    worker = world.worker()
    for _ in range(4):
        world.clock.advance(1)
        await worker.round()
        while (await world.get(quick.transfer.id)).lease_owner is not None:
            await asyncio.sleep(0)
    assert (await world.get(quick.transfer.id)).state is State.QUEUED
    hangs.set()
    await worker.settle()
