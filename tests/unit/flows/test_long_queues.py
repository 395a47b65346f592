"""What a staging job reads stays alive: in a queue of weeks, after a requeue, and while it runs for days."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.fakes.world import ALICE, World
from tests.unit.flows.test_a_transfers_life import (
    CONTENT,
    TARGET,
    begun_download,
    begun_upload,
    queued_upload,
    until_end,
)

from stagecoach.core import names
from stagecoach.core.errors import NoSpace
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows.finish_transfer import finish_transfer, list_parts
from stagecoach.flows.follow_job import ordinal
from stagecoach.ports.scheduler import JobPhase

HOUR, DAY = 3600, 86400
THIRD = 7 * DAY / 3


async def running_upload(world: World) -> Transfer:
    transfer = await queued_upload(world)
    world.scheduler.set_phase(transfer.job_id or "", JobPhase.RUNNING)
    await world.work()
    return await now_is(world, State.MOVING)


async def now_is(world: World, state: State) -> Transfer:
    transfer = await world.the_transfer()
    assert transfer.state is state, transfer
    return transfer


async def age_seconds(world: World) -> float:
    transfer = await world.the_transfer()
    assert transfer.signed_at is not None
    return (world.clock.now() - transfer.signed_at).total_seconds()


def ticket_url(world: World, transfer: Transfer) -> bytes:
    return world.files.entries[f"{transfer.job_directory}/ticket-url"].content


async def story(world: World) -> list[str]:
    return [entry.message for entry in await world.transfers.history((await world.the_transfer()).id)]


async def restarted(world: World, transfer: Transfer, phase: JobPhase, restarts: int) -> None:
    """The scheduler has put the job back into its queue so often, and it is there or runs again."""
    job_id = transfer.job_id or ""
    world.scheduler.set_phase(job_id, phase)
    world.scheduler.jobs[job_id] = replace(world.scheduler.jobs[job_id], restarts=restarts)


async def test_every_ticket_is_dated(world: World) -> None:
    begun = await begun_upload(world)
    assert begun.transfer.signed_at == world.clock.now()
    world.clock.advance(DAY)
    assert world.put_by_client(begun, CONTENT)
    await world.work(2)
    await now_is(world, State.QUEUED)
    assert await age_seconds(world) < 5


@pytest.mark.parametrize("direction", ["upload", "download"])
@pytest.mark.parametrize("state", [State.QUEUED, State.MOVING])
async def test_a_ticket_never_grows_older_than_a_third_of_its_life(world: World, direction: str, state: State) -> None:
    transfer = await queued_upload(world) if direction == "upload" else (await begun_download(world)).transfer
    if state is State.MOVING:
        world.scheduler.set_phase(transfer.job_id or "", JobPhase.RUNNING)
    seen = set()
    # The store keeps a whole object for ten days, an open upload for seven; a job that runs is not taken back.
    for _ in range(6 * 24 if state is State.QUEUED else 20 * 24):
        await world.work(seconds=HOUR)
        await now_is(world, state)
        assert await age_seconds(world) <= THIRD + HOUR
        seen.add(ticket_url(world, transfer))
        assert world.nodes.ticket(transfer.job_directory or "") is not None
    assert len(seen) == (3 if state is State.QUEUED else 9)


async def test_a_transfer_from_before_tickets_were_dated_gets_its_date(world: World) -> None:
    transfer = await queued_upload(world)
    await world.transfers.save(replace(transfer, signed_at=None), next_check_at=world.clock.now())
    await world.work(seconds=THIRD)
    assert await age_seconds(world) == 0


async def test_a_ticket_that_cannot_be_renewed_yet_does_not_trouble_a_job_that_runs(world: World) -> None:
    transfer = await running_upload(world)
    write = world.files.write_file

    async def full(username: str, path: str, content: bytes, mode: int) -> None:
        raise NoSpace("No space left on device.")

    world.files.write_file = full  # type: ignore[method-assign]
    await world.work(20, seconds=HOUR * 3)
    assert (await now_is(world, State.MOVING)).failed_looks == 0
    world.clock.advance(THIRD)
    await world.work()
    short = await now_is(world, State.MOVING)
    assert (short.failed_looks, short.reason) == (1, "No space left on device.")
    world.files.write_file = write  # type: ignore[method-assign]
    await world.work(2, seconds=300)
    assert await age_seconds(world) < 600
    world.nodes.run(transfer.job_id or "")
    assert (await until_end(world)).state is State.DONE


async def test_a_job_put_back_into_the_queue_finds_a_fresh_ticket(world: World) -> None:
    transfer = await running_upload(world)
    world.clock.advance(2 * DAY)
    await restarted(world, transfer, JobPhase.PENDING, 1)
    await world.work()
    waiting = await now_is(world, State.QUEUED)
    assert waiting.restarts == 1
    assert await age_seconds(world) == 0
    await restarted(world, transfer, JobPhase.RUNNING, 1)
    await world.work()
    await now_is(world, State.MOVING)
    world.nodes.run(transfer.job_id or "")
    assert (await until_end(world)).state is State.DONE
    told = await story(world)
    assert told[-3:-1] == [
        "The scheduler put the job back into its queue; when it starts again it continues where it was.",
        "The staging job moves the data on nid000001 again (2nd time).",
    ]


async def test_a_requeue_between_two_looks_is_told_and_signs_anew(world: World) -> None:
    transfer = await running_upload(world)
    for restarts, time in ((1, "2nd"), (2, "3rd")):
        world.clock.advance(DAY)
        await restarted(world, transfer, JobPhase.RUNNING, restarts)
        await world.work()
        assert await age_seconds(world) == 0
        told = (await story(world))[-1]
        assert told == f"The job was put back into the queue and started again on nid000001 ({time} time)."
    await world.work(5)
    assert (await story(world))[-1] == told
    assert (await now_is(world, State.MOVING)).restarts == 2


async def test_a_start_and_a_requeue_between_two_looks_are_told(world: World) -> None:
    transfer = await queued_upload(world)
    world.clock.advance(DAY)
    await restarted(world, transfer, JobPhase.PENDING, 1)
    await world.work(3)
    assert (await now_is(world, State.QUEUED)).restarts == 1
    assert sum("back into its queue" in line for line in await story(world)) == 1
    assert await age_seconds(world) < 5


async def test_a_directory_that_was_removed_while_the_job_waited_is_made_again(world: World) -> None:
    transfer = await queued_upload(world)
    await world.files.remove_tree("alice", transfer.job_directory or "")
    await world.work(seconds=THIRD)
    assert {f"{transfer.job_directory}/{name}" for name in ("ticket-url", "stagecoach_mover.py")} <= set(world.files.entries)
    world.let_cluster_work()
    world.let_cluster_work()
    assert (await until_end(world)).state is State.DONE


async def test_a_release_after_days_finds_neither_directory_nor_ticket_and_makes_both_again(world: World) -> None:
    begun = await begun_upload(world)
    transfer = begun.transfer
    world.clock.advance(6 * DAY)
    await world.files.remove_tree("alice", transfer.job_directory or "")
    await world.store.delete_objects(transfer.bucket, [names.ticket_key(transfer.id)])
    report = await list_parts(world.tools, ALICE, transfer.id)
    for url in report.missing_urls.values():
        assert world.store.follow("PUT", url, CONTENT)[0] == 200
    await finish_transfer(world.tools, ALICE, transfer.id)
    await world.work(2)
    world.let_cluster_work()
    world.let_cluster_work()
    assert (await until_end(world)).state is State.DONE
    assert world.files.entries[TARGET].content == CONTENT
    assert world.scheduler.count("submit") == 1


async def test_bytes_that_move_keep_a_job_from_being_lost(world: World) -> None:
    transfer = await running_upload(world)
    world.scheduler.forget(transfer.job_id or "")
    for done in range(10, 400, 10):
        progress = {"version": 1, "transfer_id": transfer.id, "bytes_done": done, "phase": "moving"}
        await world.store.write_object(transfer.bucket, names.progress_key(transfer.id), json.dumps(progress).encode())
        await world.work(seconds=60)
        assert (await now_is(world, State.MOVING)).bytes_moved == done
    assert sum("does not know job" in line for line in await story(world)) == 1
    await world.work(10, seconds=60)
    assert (await now_is(world, State.QUEUED)).attempt == 2
    assert any("has lost the staging job" in line for line in await story(world))


@pytest.mark.parametrize(
    ("number", "word"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (22, "22nd")]
)
def test_ordinals(number: int, word: str) -> None:
    assert ordinal(number) == word
