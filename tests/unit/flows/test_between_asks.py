"""What the job tells of itself is believed between two questions to the scheduler; it is seen out afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from unittest.mock import ANY

import pytest
from sqlalchemy import delete, insert
from tests.fakes.world import ALICE, World, open_world, world_settings

from stagecoach.core import names
from stagecoach.core.polling import LONGEST_GAP_SECONDS
from stagecoach.core.transfer import State, Transfer
from stagecoach.database.engine import writing
from stagecoach.database.followed_jobs import LIVELY_SECONDS, Sight
from stagecoach.database.tables import system_polls
from stagecoach.flows.begin_transfer import begin_download, begin_upload
from stagecoach.flows.clean_up import ON_ITS_WAY_OUT_SECONDS
from stagecoach.ports.scheduler import JobKey, JobPhase, JobReport

CONTENT = bytes(range(250)) * 4
TARGET = "/home/alice/file"
NEXT_ASK_SECONDS = LONGEST_GAP_SECONDS + 1


@pytest.fixture
async def seldom(tmp_path: Path, database_template: Path) -> AsyncIterator[World]:
    """A world whose schedulers are asked once in two minutes and a half."""
    async with open_world(tmp_path, database_template, world_settings(worker={"scheduler_asks_per_minute": 3})) as opened:
        yield opened


async def asked_a_moment_ago(world: World, system: str = "alps", next_in_seconds: float = 100) -> None:
    """Its scheduler may not be asked for a while."""
    at = world.clock.now() + timedelta(seconds=next_in_seconds)
    async with writing(world.engine) as connection:
        await connection.execute(delete(system_polls).where(system_polls.c.system == system))
        await connection.execute(insert(system_polls).values(system=system, version=1, recent_asks=[], next_ask_at=at))


async def tell(world: World, bytes_done: int) -> None:
    """The job tells how far it is."""
    transfer = await world.the_transfer()
    progress = {"version": 1, "transfer_id": transfer.id, "bytes_done": bytes_done}
    await world.store.write_object(transfer.bucket, names.progress_key(transfer.id), json.dumps(progress).encode())


async def queued_upload(world: World) -> Transfer:
    begun = await begin_upload(world.tools, ALICE, "alps", TARGET, len(CONTENT))
    assert world.put_by_client(begun, CONTENT)
    await asked_a_moment_ago(world)
    await world.work(2)
    transfer = await world.the_transfer()
    assert transfer.state is State.QUEUED
    return transfer


async def moving_upload(world: World) -> str:
    """A job that has moved 100 bytes, and was seen to; its id."""
    begun = await begin_upload(world.tools, ALICE, "alps", TARGET, len(CONTENT))
    assert world.put_by_client(begun, CONTENT)
    await world.work(2)
    job_id = (await world.the_transfer()).job_id or ""
    world.nodes.move_some(job_id, 100)
    await world.work()
    return job_id


async def test_an_upload_is_seen_moving_and_done_while_its_scheduler_may_not_be_asked(seldom: World) -> None:
    job_id = (await queued_upload(seldom)).job_id or ""
    asked = seldom.scheduler.count("reports")
    seldom.nodes.move_some(job_id, 400)
    await seldom.work()
    transfer = await seldom.the_transfer()
    assert (transfer.state, transfer.bytes_moved) == (State.MOVING, 400)
    seldom.nodes.move_some(job_id, 700)
    await seldom.work()
    assert (await seldom.the_transfer()).bytes_moved == 700
    seldom.nodes.finish_running()
    await seldom.work()
    transfer = await seldom.the_transfer()
    assert (transfer.state, transfer.cleaned) == (State.DONE, False)
    assert seldom.scheduler.count("reports") == asked
    assert seldom.files.entries[TARGET].content == CONTENT
    await seldom.work(seconds=NEXT_ASK_SECONDS)
    transfer = await seldom.the_transfer()
    assert (transfer.cleaned, transfer.job_state, transfer.job_exit_code) == (True, "COMPLETED", 0)
    # One ask told of the job's end; the clean-up put no question of its own.
    assert seldom.scheduler.count("reports") == asked + 1
    assert seldom.scheduler.count("find") == seldom.scheduler.count("cancel") == 0
    assert seldom.left_outside() == []
    story = [line.message for line in await seldom.transfers.history(transfer.id)]
    assert story[-2:] == ["The staging job moves the data.", f"The file is at its place, {len(CONTENT)} bytes, verified."]


async def test_a_download_is_staged_before_the_scheduler_tells_its_jobs_end(seldom: World) -> None:
    seldom.files.add_file(TARGET, "alice", CONTENT)
    begun = await begin_download(seldom.tools, ALICE, "alps", TARGET)
    await asked_a_moment_ago(seldom)
    seldom.let_cluster_work()
    seldom.let_cluster_work()
    await seldom.work()
    transfer = await seldom.the_transfer()
    assert (transfer.state, transfer.job_ended, transfer.job_log) == (State.STAGED, False, None)
    assert seldom.store.follow("GET", begun.download_url)[2] == CONTENT
    await seldom.work(seconds=NEXT_ASK_SECONDS)
    transfer = await seldom.the_transfer()
    assert (transfer.state, transfer.job_ended, transfer.job_state) == (State.STAGED, True, "COMPLETED")
    assert transfer.job_log == "job output\n"
    assert transfer.next_check_at == transfer.expires_at is not None


async def test_what_waits_in_its_job_is_seen_complete(seldom: World) -> None:
    begun = await begin_upload(seldom.tools, ALICE, "bora", TARGET, len(CONTENT), "acc")
    await asked_a_moment_ago(seldom, "bora")
    assert seldom.put_by_client(begun, CONTENT)
    await seldom.work(2)
    assert (await seldom.the_transfer()).state is State.QUEUED
    assert seldom.scheduler.count("reports") == 0


async def test_what_a_job_told_before_it_was_put_back_into_the_queue_does_not_make_it_run(seldom: World) -> None:
    transfer = await queued_upload(seldom)
    job_id = transfer.job_id or ""
    seldom.scheduler.set_phase(job_id, JobPhase.RUNNING)
    seldom.nodes.move_some(job_id, 400)
    await seldom.work(seconds=NEXT_ASK_SECONDS)
    seldom.scheduler.set_phase(job_id, JobPhase.PENDING)
    seldom.scheduler.jobs[job_id] = replace(seldom.scheduler.jobs[job_id], restarts=1)
    await seldom.work(seconds=NEXT_ASK_SECONDS)
    assert (await seldom.the_transfer()).state is State.QUEUED
    await seldom.work(5)
    transfer = await seldom.the_transfer()
    assert (transfer.state, transfer.restarts) == (State.QUEUED, 1)


async def test_progress_of_a_job_that_only_waits_is_told_once_and_not_again_and_again(seldom: World) -> None:
    transfer = await queued_upload(seldom)
    for done in range(10, 400, 10):
        # Its owner can put such a document at any time.
        await tell(seldom, done)
        await seldom.work(seconds=NEXT_ASK_SECONDS if done % 50 == 0 else 1)
    story = [line.message for line in await seldom.transfers.history(transfer.id)]
    assert story.count("The staging job moves the data.") == 1
    assert len([line for line in story if "back into its queue" in line]) == 1
    assert (await seldom.the_transfer()).state is State.QUEUED
    # The real job is followed all the same.
    seldom.let_cluster_work()
    await seldom.work(seconds=NEXT_ASK_SECONDS)
    assert (await seldom.the_transfer()).state is State.MOVING
    seldom.let_cluster_work()
    await seldom.work(seconds=NEXT_ASK_SECONDS)
    assert (await seldom.the_transfer()).state is State.DONE


async def test_a_job_whose_bytes_move_is_alive_although_the_scheduler_calls_it_dead(world: World) -> None:
    job_id = await moving_upload(world)
    world.scheduler.set_phase(job_id, JobPhase.NODE_FAIL)
    await world.work()
    assert (await world.the_transfer()).job_missing_since is not None
    for done in range(200, 900, 100):
        await tell(world, done)
        # Told between two asks; the next ask finds nothing new.
        await asked_a_moment_ago(world, next_in_seconds=5)
        await world.work(seconds=1)
        assert (await world.the_transfer()).bytes_moved == done
        await world.work(seconds=10)
        assert (await world.the_transfer()).state is State.MOVING
    await world.work(4, seconds=8)
    assert (await world.the_transfer()).attempt == 2


async def test_the_trouble_of_the_scheduler_is_told_beside_what_the_job_tells(world: World) -> None:
    await moving_upload(world)
    world.scheduler.unavailable = True
    await world.work(2)
    trouble = (await world.the_transfer()).reason
    assert trouble == "The scheduler does not answer."
    for done in range(200, 900, 100):
        await tell(world, done)
        world.clock.advance(10)
        await asked_a_moment_ago(world, next_in_seconds=5)
        await world.work(seconds=0.1)
        transfer = await world.the_transfer()
        assert (transfer.state, transfer.bytes_moved, transfer.reason) == (State.MOVING, done, trouble)
    world.nodes.finish_running()
    world.clock.advance(10)
    await asked_a_moment_ago(world)
    await world.work()
    assert (await world.the_transfer()).state is State.DONE


async def test_a_failure_is_told_by_receipt_and_scheduler_together(seldom: World) -> None:
    transfer = await queued_upload(seldom)
    said = {"version": 1, "transfer_id": transfer.id, "ok": False, "code": "no_space", "message": "The disk is full."}
    await seldom.store.write_object(transfer.bucket, names.receipt_key(transfer.id), json.dumps(said).encode())
    seldom.scheduler.set_phase(transfer.job_id or "", JobPhase.FAILED)
    await seldom.work(3)
    assert (await seldom.the_transfer()).state is State.QUEUED
    await seldom.work(seconds=NEXT_ASK_SECONDS)
    transfer = await seldom.the_transfer()
    assert (transfer.state, transfer.code) == (State.FAILED, "no_space")


async def test_the_store_is_left_alone_once_nothing_has_happened_for_a_while(seldom: World) -> None:
    transfer = await queued_upload(seldom)
    reads: list[str] = []
    read = seldom.store.read_object

    async def counted(bucket: str, key: str, limit_bytes: int) -> bytes | None:
        reads.append(key)
        return await read(bucket, key, limit_bytes)

    seldom.store.read_object = counted  # type: ignore[method-assign]
    await seldom.work(int(LIVELY_SECONDS), seconds=1)
    assert 2 <= reads.count(names.receipt_key(transfer.id)) < LIVELY_SECONDS
    reads.clear()
    await seldom.work(20, seconds=1)
    assert reads == []


async def test_a_job_that_does_not_go_after_its_work_is_cancelled_in_the_end(seldom: World) -> None:
    transfer = await queued_upload(seldom)
    job_id = transfer.job_id or ""
    seldom.let_cluster_work()
    seldom.nodes.finish_running()
    running = replace(seldom.scheduler.jobs[job_id], phase=JobPhase.RUNNING, state="RUNNING", end_time=None, exit_code=None)
    seldom.scheduler.jobs[job_id] = running
    await seldom.work()
    assert (await seldom.the_transfer()).state is State.DONE
    await seldom.work(seconds=ON_ITS_WAY_OUT_SECONDS - 10)
    assert seldom.scheduler.jobs[job_id].phase is JobPhase.RUNNING
    await seldom.work(4, seconds=NEXT_ASK_SECONDS)
    assert seldom.scheduler.jobs[job_id].phase is JobPhase.CANCELLED
    transfer = await seldom.the_transfer()
    assert (transfer.state, transfer.cleaned) == (State.DONE, True)
    assert seldom.left_outside() == []


async def test_a_job_that_nobody_knows_after_its_work_is_looked_for_by_name_before_all_is_removed(seldom: World) -> None:
    transfer = await queued_upload(seldom)
    seldom.let_cluster_work()
    seldom.nodes.finish_running()
    await seldom.work()
    seldom.scheduler.forget(transfer.job_id or "")
    await seldom.work(2, seconds=NEXT_ASK_SECONDS)
    transfer = await seldom.the_transfer()
    assert (transfer.state, transfer.cleaned) == (State.DONE, True)
    assert seldom.scheduler.count("ping") == seldom.scheduler.count("find") == 1
    assert seldom.left_outside() == []


async def test_a_scheduler_that_is_away_keeps_what_has_arrived_but_says_nothing_of_it(seldom: World) -> None:
    await queued_upload(seldom)
    seldom.let_cluster_work()
    seldom.nodes.finish_running()
    await seldom.work()
    seldom.scheduler.unavailable = True
    await seldom.work(5, seconds=NEXT_ASK_SECONDS)
    transfer = await seldom.the_transfer()
    assert (transfer.state, transfer.reason, transfer.cleaned) == (State.DONE, None, False)
    seldom.scheduler.unavailable = False
    await seldom.work(8, seconds=NEXT_ASK_SECONDS)
    assert (await seldom.the_transfer()).cleaned
    assert seldom.left_outside() == []


async def test_a_staged_download_ends_in_time_although_its_scheduler_is_away(seldom: World) -> None:
    seldom.files.add_file(TARGET, "alice", CONTENT)
    await begin_download(seldom.tools, ALICE, "alps", TARGET)
    await asked_a_moment_ago(seldom)
    seldom.let_cluster_work()
    seldom.let_cluster_work()
    await seldom.work()
    transfer = await seldom.the_transfer()
    assert (transfer.state, transfer.job_ended) == (State.STAGED, False)
    seldom.scheduler.unavailable = True
    life = ((transfer.expires_at or seldom.clock.now()) - seldom.clock.now()).total_seconds()
    await seldom.work(seconds=life - 400)
    await seldom.work(3, seconds=400)
    assert (await seldom.the_transfer()).state is State.EXPIRED


@pytest.mark.parametrize("is_away", [False, True])
async def test_progress_that_is_saved_while_the_scheduler_is_asked_does_not_make_its_answer_stale(
    world: World, is_away: bool
) -> None:
    job_id = await moving_upload(world)
    ask = world.scheduler.reports

    async def slowly(jobs: Sequence[JobKey]) -> Mapping[str, JobReport]:
        transfer = await world.the_transfer()
        await world.transfers.save(replace(transfer, bytes_moved=transfer.bytes_moved + 1), next_check_at=world.clock.now())
        return await ask(jobs)

    world.scheduler.reports = slowly  # type: ignore[method-assign]
    world.scheduler.unavailable = is_away
    if not is_away:
        world.nodes.end_with(job_id, JobPhase.FAILED, "no_space")
    await world.work()
    transfer = await world.the_transfer()
    expected = (None, "The scheduler does not answer.") if is_away else ("no_space", ANY)
    assert (transfer.code, transfer.reason) == expected


async def test_an_answer_that_comes_during_another_look_is_carried_out_after_it(world: World) -> None:
    job_id = await moving_upload(world)
    ask = world.scheduler.reports
    other_looks = []

    async def other_look(taken: Transfer) -> None:
        await asyncio.sleep(0.5)
        assert await world.transfers.put_off(taken, world.clock.now())

    async def while_it_is_looked_at(jobs: Sequence[JobKey]) -> Mapping[str, JobReport]:
        sight = Sight((await world.the_transfer()).id, State.MOVING, job_id)
        (taken,) = await world.transfers.take([sight], "another", world.clock.now(), 30, due_in_seconds=LIVELY_SECONDS)
        other_looks.append(asyncio.create_task(other_look(taken)))
        return await ask(jobs)

    world.scheduler.reports = while_it_is_looked_at  # type: ignore[method-assign]
    world.nodes.end_with(job_id, JobPhase.FAILED, "no_space")
    await world.work()
    assert (await world.the_transfer()).code == "no_space"
    await asyncio.gather(*other_looks)
