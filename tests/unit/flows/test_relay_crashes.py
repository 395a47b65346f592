"""The process dies before any call to anything outside while a relay is begun, followed, cancelled or retried.

Another worker, later, brings both its rows to their ends alone, and leaves nothing on either system or in the store.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.fakes.systems import IN_ARCHIVE
from tests.fakes.world import ALICE, READS, Crash, Process, World, open_world, world_settings
from tests.unit.flows.test_crashes import KEPT_SECONDS, work

from stagecoach.core.errors import StagecoachError
from stagecoach.core.transfer import Archive, State, Transfer
from stagecoach.flows import cancel_transfer as cancelling
from stagecoach.flows import retry_transfer as retrying
from stagecoach.flows.begin_relay import RelayEnd, begin_relay
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.retry_transfer import retry_transfer
from stagecoach.flows.toolbox import Toolbox
from stagecoach.ports.scheduler import JobPhase

CONTENT = b"content " * 100
SOURCE, TARGET = "/home/alice/source", "/home/alice/target"
TREE, NEW_TREE = "/home/alice/tree", "/home/alice/new"

# Who dies at one of these has done neither less nor more than who dies at the next call, or has noted only when to look again.
QUESTIONS = {
    f"{who}.{what}"
    for who, questions in {
        "MemoryFiles": ("status", "real_path", "may", "home", "free_bytes", "is_empty", "read_file"),
        "MemoryScheduler": ("reports", "find", "ping", "try_directives"),
        "MemoryStore": ("head_object", "read_object", "list_parts", "find_multiparts"),
        "Transfers": ("put_off",),
        "FollowedJobs": ("put_off",),
        "SystemPolls": ("win", "settle"),
    }.items()
    for what in questions
}

Story = Callable[[World, Process], Awaitable[None]]


async def begun(tools: Toolbox) -> Transfer:
    return (await begin_relay(tools, ALICE, RelayEnd("alps", SOURCE), RelayEnd("bora", TARGET, "acc"))).transfer


async def rows(world: World) -> tuple[Transfer, Transfer]:
    """The leg and the transfer."""
    leg, transfer = sorted(await world.all_transfers(), key=lambda row: row.relay_of is None)
    return leg, transfer


async def brought_to(world: World, state: State) -> Transfer:
    """A healthy service brings the transfer there."""
    await begun(world.tools)
    for _ in range(20):
        leg, transfer = await rows(world)
        if transfer.state is state:
            return transfer
        world.let_cluster_work()
        await world.work()
    raise AssertionError(f"the transfer is {transfer.state}, its leg {leg.state}")


async def goes_on(world: World, process: Process, rounds: int = 9) -> None:
    for _ in range(rounds):
        await work(world, process)
        world.let_cluster_work()
        if all(row.cleaned for row in await world.all_transfers()):
            break


async def relay(world: World, process: Process) -> None:
    await begun(world.toolbox(process))
    await goes_on(world, process)


async def relay_of_a_directory(world: World, process: Process) -> None:
    ends = RelayEnd("alps", TREE), RelayEnd("bora", NEW_TREE, "acc")
    await begin_relay(world.toolbox(process), ALICE, *ends, archive=Archive.TAR)
    await goes_on(world, process)


async def relay_whose_submission_is_not_answered(world: World, process: Process) -> None:
    world.scheduler.lose_answers = ["late"]
    with suppress(StagecoachError):
        await begun(world.toolbox(process))
    await work(world, process, 3)


async def relay_whose_source_fails(world: World, process: Process) -> None:
    await begun(world.tools)
    leg, _ = await rows(world)
    world.nodes.move_some(leg.job_id or "", 100)
    world.nodes.end_with(leg.job_id or "", JobPhase.FAILED, "source_changed")
    await work(world, process, 6, seconds=10)


def relay_whose_node_fails(which: int) -> Story:
    async def story(world: World, process: Process) -> None:
        await brought_to(world, State.RECEIVING if which == 0 else State.QUEUED)
        job_id = (await rows(world))[which].job_id or ""
        world.nodes.move_some(job_id, 100)
        await work(world, process)
        world.nodes.end_with(job_id, JobPhase.NODE_FAIL)
        await work(world, process, 5, seconds=10)
        await goes_on(world, process)

    story.__name__ = f"relay_whose_{('source', 'destination')[which]}_node_fails"
    return story


def cancel_at(state: State) -> Story:
    async def story(world: World, process: Process) -> None:
        transfer = await brought_to(world, state)
        await cancel_transfer(world.toolbox(process), ALICE, transfer.id)
        await work(world, process, 2)

    story.__name__ = f"cancel_at_{state}"
    return story


async def failed(world: World, which: int) -> Transfer:
    """One leg failed, and what is staged is kept for a retry."""
    await brought_to(world, State.RECEIVING if which == 0 else State.MOVING)
    job_id = (await rows(world))[which].job_id or ""
    world.nodes.move_some(job_id, len(CONTENT) // 2)
    world.nodes.end_with(job_id, JobPhase.CANCELLED)
    await world.work(5, seconds=20)
    transfer = (await rows(world))[1]
    assert transfer.next_check_at == transfer.retry_until is not None
    return transfer


def retry_of(which: int) -> Story:
    async def story(world: World, process: Process) -> None:
        transfer = await failed(world, which)
        await retry_transfer(world.toolbox(process), ALICE, transfer.id)
        await goes_on(world, process)

    story.__name__ = f"retry_of_{('source', 'destination')[which]}"
    return story


async def giving_up(world: World, process: Process) -> None:
    transfer = await failed(world, 0)
    await cancel_transfer(world.toolbox(process), ALICE, transfer.id)
    await work(world, process, 2)


async def retried_by_nobody(world: World, process: Process) -> None:
    await failed(world, 1)
    world.clock.advance(KEPT_SECONDS)
    await work(world, process, 5)


# With each story how it ends where it is told whole, and how it may end where it breaks off before anybody was promised more.
STORIES: list[tuple[Story, set[State], set[State]]] = [
    (relay, {State.DONE}, {State.FAILED}),
    (relay_of_a_directory, {State.DONE}, {State.FAILED}),
    (relay_whose_submission_is_not_answered, {State.FAILED}, {State.FAILED}),
    (relay_whose_source_fails, {State.FAILED}, {State.FAILED}),
    (relay_whose_node_fails(0), {State.DONE}, {State.DONE}),
    (relay_whose_node_fails(1), {State.DONE}, {State.DONE}),
    (cancel_at(State.RECEIVING), {State.CANCELLED}, {State.DONE}),
    (cancel_at(State.STAGED), {State.CANCELLED}, {State.DONE}),
    (cancel_at(State.QUEUED), {State.CANCELLED}, {State.DONE}),
    (cancel_at(State.MOVING), {State.CANCELLED, State.DONE}, {State.DONE}),
    (retry_of(0), {State.DONE}, {State.FAILED}),
    (retry_of(1), {State.DONE}, {State.FAILED}),
    (giving_up, {State.FAILED}, {State.FAILED}),
    (retried_by_nobody, {State.FAILED}, {State.FAILED}),
]
# How the line begins after which a story must end as told, by the first word of its name.
PROMISES = {"cancel": "Cancelled by", "retry": "Retried by"}


async def repaired(world: World) -> State | None:
    """Another process's worker, from well after the crash on, until nothing is left to do; the transfer's end."""
    worker = world.worker(name="another")
    world.clock.advance(world.settings.worker.lease_seconds + 1)
    seconds = 20.0
    for round_number in itertools.count():
        await world.work(seconds=seconds, worker=worker)
        world.let_cluster_work()
        if round_number == 3:
            world.scheduler.late_jobs_appear()
        found = await world.all_transfers()
        if not found:
            return None
        leg, transfer = await rows(world)
        due = [row.next_check_at for row in found if row.next_check_at is not None]
        if round_number > 4 and not due:
            assert all(row.state.is_end and row.cleaned for row in found), found
            assert leg.state is State.DONE or transfer.state is not State.DONE
            return transfer.state
        if due:
            seconds = max(20.0, (min(due) - world.clock.now()).total_seconds())
        assert round_number < 120, f"still {transfer.state} and {leg.state}; next looks: {due}"
    raise AssertionError


async def promised(world: World, words: str) -> bool:
    """Whether its owner was, or may have been, told ``words`` of the transfer."""
    for row in await world.all_transfers():
        if row.relay_of is None:
            told = await world.transfers.history(row.id)
            return any(line.message.startswith(words) for line in told)
    return False


@pytest.mark.parametrize(("story", "ends", "ends_unheard"), STORIES, ids=[story.__name__ for story, _, _ in STORIES])
async def test_the_worker_alone_repairs_both_rows(
    tmp_path: Path,
    database_template: Path,
    story: Story,
    ends: set[State],
    ends_unheard: set[State],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr("tests.fakes.world.READS", READS | QUESTIONS)
    monkeypatch.setattr(cancelling, "LOOK_SECONDS", 0)
    monkeypatch.setattr(retrying, "LOOK_SECONDS", 0)
    keeping = {"limits": {"keep_failed_seconds": KEPT_SECONDS}}
    settings = world_settings(alps=keeping, bora=keeping)
    words = PROMISES.get(story.__name__.partition("_")[0], "Staging job")
    for crash_at in itertools.count(1):
        process = Process(crash_at)
        async with open_world(tmp_path, database_template, settings) as world:
            world.files.add_file(SOURCE, "alice", CONTENT)
            world.files.add_directory(TREE, "alice")
            world.files.add_file(f"{TREE}/{IN_ARCHIVE}", "alice", CONTENT)
            with suppress(Crash):
                await story(world, process)
            where = process.where
            was_promised = await promised(world, words)
            end = await repaired(world)
            assert world.left_outside() == [], where
            target = f"{NEW_TREE}/{IN_ARCHIVE}" if story is relay_of_a_directory else TARGET
            if end is State.DONE:
                assert world.files.entries[target].content == CONTENT, where
            else:
                assert target not in world.files.entries, where
            assert world.files.entries[SOURCE].content == CONTENT
            names_of_jobs = [what for verb, _, what in world.scheduler.calls if verb == "submit"]
            assert len(names_of_jobs) == len(set(names_of_jobs)) or process.is_dead, where
            assert end in (ends if was_promised or not process.is_dead else {*ends_unheard, None}), (where, end)
            if not process.is_dead:
                break
    assert crash_at > 5, "the story has hardly any steps; the test would be empty"
