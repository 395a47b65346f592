"""The process dies before any call to anything outside; another worker, later, repairs everything alone."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.fakes.world import ALICE, Crash, Process, World, open_world, world_settings

from stagecoach.core.errors import StagecoachError
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows import cancel_transfer as cancelling
from stagecoach.flows.begin_transfer import BegunUpload, begin_download, begin_upload
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.finish_transfer import finish_transfer
from stagecoach.flows.retry_transfer import retry_transfer
from stagecoach.ports.scheduler import JobPhase

CONTENT = b"content " * 100
TARGET = "/home/alice/file"
KEPT_SECONDS = 300

Story = Callable[[World, Process], Awaitable[None]]


async def work(world: World, process: Process, rounds: int = 1, *, seconds: float = 1) -> None:
    """Rounds of a worker in the process that will die; then nothing of it goes on."""
    worker = world.worker(process)
    for _ in range(rounds):
        world.clock.advance(seconds)
        await worker.round()
        await worker.settle()
        if process.is_dead:
            raise Crash


async def upload(world: World, process: Process) -> None:
    begun = await begin_upload(world.toolbox(process), ALICE, "alps", TARGET, len(CONTENT))
    await work(world, process)
    assert world.put_by_client(begun, CONTENT)
    for _ in range(5):
        await work(world, process)
        world.let_cluster_work()


async def upload_finished_by_the_service(world: World, process: Process) -> None:
    begun = await begin_upload(world.toolbox(process), ALICE, "alps", TARGET, len(CONTENT))
    assert world.store.follow("PUT", begun.part_urls[0], CONTENT)[0] == 200
    await finish_transfer(world.toolbox(process), ALICE, begun.transfer.id)
    for _ in range(5):
        await work(world, process)
        world.let_cluster_work()


async def upload_whose_held_job_vanishes(world: World, process: Process) -> None:
    begun = await begin_upload(world.toolbox(process), ALICE, "alps", TARGET, len(CONTENT))
    world.scheduler.forget(begun.transfer.job_id or "")
    assert world.put_by_client(begun, CONTENT)
    for _ in range(5):
        await work(world, process)
        world.let_cluster_work()


async def upload_of_the_wrong_size(world: World, process: Process) -> None:
    begun = await begin_upload(world.toolbox(process), ALICE, "alps", TARGET, len(CONTENT))
    world.put_object(begun.transfer, b"wrong")
    await work(world, process, 4)


async def upload_whose_submission_is_refused(world: World, process: Process) -> None:
    world.scheduler.lose_answers = ["late"]
    with suppress(StagecoachError):
        await begin_upload(world.toolbox(process), ALICE, "alps", TARGET, len(CONTENT))
    await work(world, process, 3)


async def download(world: World, process: Process) -> None:
    begun = await begin_download(world.toolbox(process), ALICE, "alps", TARGET)
    for _ in range(4):
        world.let_cluster_work()
        await work(world, process)
    assert (await world.get(begun.transfer.id)).state is State.STAGED
    assert world.store.follow("GET", begun.download_url)[2] == CONTENT
    await finish_transfer(world.toolbox(process), ALICE, begun.transfer.id)
    await work(world, process, 2)


def cancel_at(state: State, direction: str) -> Story:
    """A healthy service brings the transfer to ``state``; the process that cancels it dies."""

    async def story(world: World, process: Process) -> None:
        if direction == "upload":
            begun: BegunUpload = await begin_upload(world.tools, ALICE, "alps", TARGET, len(CONTENT))
            transfer = begun.transfer
            if state is not State.RECEIVING:
                assert world.put_by_client(begun, CONTENT)
        else:
            transfer = (await begin_download(world.tools, ALICE, "alps", TARGET)).transfer
        for _ in range(6):
            if (await world.get(transfer.id)).state is state:
                break
            world.let_cluster_work()
            await world.work()
        assert (await world.get(transfer.id)).state is state
        await cancel_transfer(world.toolbox(process), ALICE, transfer.id)
        await work(world, process, 2)

    story.__name__ = f"cancel_of_{direction}_{state}"
    return story


STORIES: list[tuple[Story, set[State]]] = [
    (upload, {State.DONE}),
    (upload_finished_by_the_service, {State.DONE}),
    (upload_whose_held_job_vanishes, {State.DONE}),
    (upload_of_the_wrong_size, {State.FAILED}),
    (upload_whose_submission_is_refused, {State.FAILED}),
    (download, {State.DONE, State.EXPIRED}),
    (cancel_at(State.RECEIVING, "upload"), {State.CANCELLED}),
    (cancel_at(State.STAGED, "upload"), {State.CANCELLED}),
    (cancel_at(State.QUEUED, "upload"), {State.CANCELLED}),
    (cancel_at(State.MOVING, "upload"), {State.CANCELLED, State.DONE}),
    (cancel_at(State.QUEUED, "download"), {State.CANCELLED}),
    (cancel_at(State.MOVING, "download"), {State.CANCELLED}),
    (cancel_at(State.STAGED, "download"), {State.CANCELLED}),
]


async def repaired(world: World) -> State | None:
    """Another process's worker, from well after the crash on, until nothing is left to do; the state at the end."""
    worker = world.worker(name="another")
    world.clock.advance(world.settings.worker.lease_seconds + 1)
    seconds = 20.0
    for round_number in itertools.count():
        await world.work(seconds=seconds, worker=worker)
        world.let_cluster_work()
        if round_number == 3:
            world.scheduler.late_jobs_appear()
        transfers = await world.all_transfers()
        if not transfers:
            return None
        (transfer,) = transfers
        if round_number > 4 and transfer.next_check_at is None:
            assert transfer.state.is_end
            assert transfer.cleaned
            return transfer.state
        if transfer.next_check_at is not None:
            seconds = max(20.0, (transfer.next_check_at - world.clock.now()).total_seconds())
        if round_number == 12 and transfer.state in {State.STAGED, State.RECEIVING}:
            # What waits for its client waits until it expires.
            world.clock.advance(11 * 24 * 3600)
        assert round_number < 120, f"still {transfer.state}, clean: {transfer.cleaned}, next look: {transfer.next_check_at}"
    raise AssertionError


async def told(story: Story, world: World, process: Process) -> str:
    """The story in the process, until that dies; where it did."""
    if "download" in story.__name__:
        world.files.add_file(TARGET, "alice", CONTENT)
    with suppress(Crash):
        await story(world, process)
    return process.where


def check_outside(story: Story, world: World, end: State | None, where: str) -> None:
    """Nothing is left over, and the target is whole or was never there."""
    assert world.left_outside() == [], where
    if "download" in story.__name__ or end is State.DONE:
        assert world.files.entries[TARGET].content == CONTENT, where
    else:
        assert TARGET not in world.files.entries, where


@pytest.mark.parametrize(("story", "ends"), STORIES, ids=[story.__name__ for story, _ in STORIES])
async def test_a_crash_between_any_two_steps_is_repaired_by_the_worker_alone(
    tmp_path: Path,
    database_template: Path,
    story: Story,
    ends: set[State],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(cancelling, "LOOK_SECONDS", 0)
    for crash_at in itertools.count(1):
        process = Process(crash_at)
        async with open_world(tmp_path, database_template) as world:
            where = await told(story, world, process)
            begun_state = [line.state for row in await world.all_transfers() for line in await world.transfers.history(row.id)]
            end = await repaired(world)
            check_outside(story, world, end, where)
            if not process.is_dead:
                assert end in ends, where
                break
            # Before the client had its answer the transfer may fail; after that, nothing that the client did is lost.
            was_answered = State.RECEIVING in begun_state or "cancel" in story.__name__ or story is download
            if story in {upload, upload_finished_by_the_service, upload_whose_held_job_vanishes}:
                put = len(begun_state) > 2
                assert end in ({State.DONE} if put else {State.DONE, State.FAILED, State.EXPIRED, None}), (where, end)
            elif "cancel" in story.__name__:
                promised = State.CANCELLING in begun_state
                assert end in (ends if promised else set(State) - {State.FAILED}), (where, end)
            elif was_answered and story is download:
                assert end in {State.DONE, State.EXPIRED, State.FAILED, None}, (where, end)
    assert crash_at >= 10, "the story has hardly any steps; the test would be empty"


async def moving(world: World, direction: str, system: str = "alps") -> Transfer:
    """A healthy service and its cluster bring a transfer half the way."""
    if direction == "upload":
        begun = await begin_upload(world.tools, ALICE, system, TARGET, len(CONTENT))
        assert world.put_by_client(begun, CONTENT)
        await world.work(3)
    else:
        await begin_download(world.tools, ALICE, system, TARGET)
    transfer = await world.the_transfer()
    world.nodes.move_some(transfer.job_id or "", len(CONTENT) // 2)
    await world.work()
    return await world.the_transfer()


async def kept(world: World, direction: str) -> Transfer:
    """The same, and an administrator ended its job; what is staged is kept for a retry."""
    transfer = await moving(world, direction)
    world.nodes.end_with(transfer.job_id or "", JobPhase.CANCELLED)
    await world.work(4, seconds=20)
    transfer = await world.the_transfer()
    assert transfer.next_check_at == transfer.retry_until is not None
    return transfer


async def upload_whose_node_fails(world: World, process: Process) -> None:
    transfer = await moving(world, "upload")
    world.nodes.end_with(transfer.job_id or "", JobPhase.NODE_FAIL)
    await work(world, process, 8, seconds=10)
    world.let_cluster_work()
    await work(world, process, 2)
    world.let_cluster_work()
    await work(world, process, 2)


async def download_whose_job_reaches_its_time_limit(world: World, process: Process) -> None:
    transfer = await moving(world, "download")
    world.nodes.end_with(transfer.job_id or "", JobPhase.TIMEOUT, "interrupted")
    await work(world, process, 8, seconds=10)
    world.let_cluster_work()
    await work(world, process, 2)
    world.let_cluster_work()
    await work(world, process, 2)


async def upload_that_fails_and_is_retried_by_nobody(world: World, process: Process) -> None:
    transfer = await moving(world, "upload")
    world.nodes.end_with(transfer.job_id or "", JobPhase.FAILED, "no_space")
    await work(world, process, 3)
    world.clock.advance(KEPT_SECONDS)
    await work(world, process, 4)


async def retry_of_an_upload(world: World, process: Process) -> None:
    transfer = await kept(world, "upload")
    await retry_transfer(world.toolbox(process), ALICE, transfer.id)
    for _ in range(5):
        await work(world, process)
        world.let_cluster_work()


async def retry_of_a_download(world: World, process: Process) -> None:
    transfer = await kept(world, "download")
    await retry_transfer(world.toolbox(process), ALICE, transfer.id)
    for _ in range(4):
        await work(world, process)
        world.let_cluster_work()


async def retry_of_an_upload_whose_parts_are_still_put(world: World, process: Process) -> None:
    begun = await begin_upload(world.tools, ALICE, "bora", TARGET, len(CONTENT), "acc")
    world.nodes.end_with(begun.transfer.job_id or "", JobPhase.TIMEOUT)
    await world.work(3)
    await retry_transfer(world.toolbox(process), ALICE, begun.transfer.id)
    await work(world, process, 2)
    assert world.put_by_client(begun, CONTENT)
    for _ in range(4):
        await work(world, process)
        world.let_cluster_work()


async def giving_up_of_what_is_kept(world: World, process: Process) -> None:
    transfer = await kept(world, "upload")
    await cancel_transfer(world.toolbox(process), ALICE, transfer.id)
    await work(world, process, 2)


# With each story how it ends, and how it may end where the process died before its owner's word was written down.
RETRIES: list[tuple[Story, set[State], set[State]]] = [
    (upload_whose_node_fails, {State.DONE}, {State.DONE}),
    (download_whose_job_reaches_its_time_limit, {State.EXPIRED}, {State.EXPIRED}),
    (upload_that_fails_and_is_retried_by_nobody, {State.FAILED}, {State.FAILED}),
    (retry_of_an_upload, {State.DONE}, {State.FAILED}),
    (retry_of_a_download, {State.EXPIRED}, {State.FAILED}),
    (retry_of_an_upload_whose_parts_are_still_put, {State.DONE, State.EXPIRED, State.FAILED}, {State.FAILED}),
    (giving_up_of_what_is_kept, {State.FAILED}, {State.FAILED}),
]


@pytest.mark.parametrize(("story", "ends", "ends_unheard"), RETRIES, ids=[story.__name__ for story, _, _ in RETRIES])
async def test_a_crash_while_something_is_tried_again_is_repaired_by_the_worker_alone(
    tmp_path: Path,
    database_template: Path,
    story: Story,
    ends: set[State],
    ends_unheard: set[State],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    keeping = {"limits": {"keep_failed_seconds": KEPT_SECONDS}}
    settings = world_settings(alps=keeping, bora=keeping)
    for crash_at in itertools.count(1):
        process = Process(crash_at)
        async with open_world(tmp_path, database_template, settings) as world:
            where = await told(story, world, process)
            lines = await world.transfers.history((await world.the_transfer()).id)
            end = await repaired(world)
            check_outside(story, world, end, where)
            names_of_jobs = [what for verb, _, what in world.scheduler.calls if verb == "submit"]
            assert len(names_of_jobs) == len(set(names_of_jobs)) or process.is_dead, where
            heard = "retry" not in story.__name__ or any("Retried by" in line.message for line in lines)
            assert end in (ends if heard else ends_unheard), (where, end)
            if not process.is_dead:
                break
    assert crash_at > 5, "the story has hardly any steps; the test would be empty"
