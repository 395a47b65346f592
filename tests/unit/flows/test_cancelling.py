"""A cancel works in every state and leaves nothing: no job, multipart, object, temporary file, job directory."""

from __future__ import annotations

import json

import pytest
from tests.fakes.world import ALICE, BOB, Process, World

from stagecoach.core import names
from stagecoach.core.errors import Conflict, SubmissionRefused, TransferNotFound
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows import cancel_transfer as cancelling
from stagecoach.flows.begin_transfer import begin_download, begin_upload
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.finish_transfer import finish_transfer
from stagecoach.ports.scheduler import JobPhase

CONTENT = b"content " * 100
TARGET = "/home/alice/file"
HIDDEN = "/home/alice/"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request looks again at once, and gives up at once."""
    monkeypatch.setattr(cancelling, "LOOK_SECONDS", 0)


async def at_state(world: World, direction: str, state: State) -> Transfer:
    """A transfer in that state, with all that it has outside then."""
    if direction == "download":
        world.files.add_file(TARGET, "alice", CONTENT)
        transfer = (await begin_download(world.tools, ALICE, "alps", TARGET)).transfer
    else:
        begun = await begin_upload(world.tools, ALICE, "alps", TARGET, len(CONTENT))
        transfer = begun.transfer
        if state is not State.RECEIVING:
            assert world.put_by_client(begun, CONTENT)
            await world.work()
        if state not in {State.RECEIVING, State.STAGED}:
            await world.work()
    if state is State.MOVING or (direction, state) == ("download", State.STAGED):
        world.nodes.start_pending()
        await world.work()
        if direction == "upload":
            world.files.add_file(HIDDEN + names.temporary_name(transfer.id), "alice", b"half")
    if (direction, state) == ("download", State.STAGED):
        world.nodes.finish_running()
        await world.work()
    transfer = await world.get(transfer.id)
    assert transfer.state is state
    return transfer


EVERY_STATE = [("upload", state) for state in (State.RECEIVING, State.STAGED, State.QUEUED, State.MOVING)]
EVERY_STATE += [("download", state) for state in (State.QUEUED, State.MOVING, State.STAGED)]


@pytest.mark.parametrize(("direction", "state"), EVERY_STATE)
async def test_a_cancel_leaves_nothing(world: World, direction: str, state: State) -> None:
    transfer = await at_state(world, direction, state)
    assert world.left_outside() != []
    cancelled = await cancel_transfer(world.tools, ALICE, transfer.id)
    assert (cancelled.state, cancelled.cleaned) == (State.CANCELLED, True)
    assert world.left_outside() == []
    await world.work(5, seconds=100)
    after = await world.get(transfer.id)
    assert (after.state, after.next_check_at) == (State.CANCELLED, None)
    if direction == "download":
        assert world.files.entries[TARGET].content == CONTENT
    else:
        assert TARGET not in world.files.entries
    assert (await cancel_transfer(world.tools, ALICE, transfer.id)).state is State.CANCELLED


@pytest.mark.parametrize(("direction", "state"), EVERY_STATE)
@pytest.mark.parametrize("away", ["scheduler", "store", "files"])
async def test_a_cancel_that_meets_trouble_is_carried_out_by_the_worker(
    world: World, direction: str, state: State, away: str
) -> None:
    transfer = await at_state(world, direction, state)
    world.scheduler.unavailable = away == "scheduler"
    world.store.failing = away == "store"
    world.files.unavailable = away == "files"
    assert (await cancel_transfer(world.tools, ALICE, transfer.id)).state is State.CANCELLING
    await world.work(5, seconds=100)
    assert (await world.get(transfer.id)).state is State.CANCELLING
    world.scheduler.unavailable = world.store.failing = world.files.unavailable = False
    await world.work(5, seconds=300)
    transfer = await world.get(transfer.id)
    assert (transfer.state, transfer.next_check_at) == (State.CANCELLED, None)
    assert world.left_outside() == []


async def test_a_job_that_takes_its_time_to_end_is_waited_for_before_its_files_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer = await at_state(world, "upload", State.MOVING)
    monkeypatch.setattr(cancelling, "INLINE_SECONDS", 0)
    world.scheduler.slow_cancel = True
    assert (await cancel_transfer(world.tools, ALICE, transfer.id)).state is State.CANCELLING
    await world.work(5, seconds=15)
    assert (await world.get(transfer.id)).state is State.CANCELLING
    assert transfer.job_directory in world.files.entries
    world.scheduler.end_cancelled_jobs()
    await world.work(2, seconds=15)
    assert (await world.get(transfer.id)).state is State.CANCELLED
    assert world.left_outside() == []


async def test_a_file_that_arrived_before_its_cancel_is_told_as_done(world: World) -> None:
    transfer = await at_state(world, "upload", State.MOVING)
    world.nodes.finish_running()
    done = await cancel_transfer(world.tools, ALICE, transfer.id)
    assert done.state is State.DONE
    assert "arrived before" in (done.reason or "")
    await world.work(2)
    assert (await world.get(transfer.id)).cleaned
    assert world.left_outside() == []
    assert world.files.entries[TARGET].content == CONTENT


async def test_what_has_ended_is_not_cancelled(world: World) -> None:
    transfer = await at_state(world, "download", State.STAGED)
    await finish_transfer(world.tools, ALICE, transfer.id)
    with pytest.raises(Conflict) as refused:
        await cancel_transfer(world.tools, ALICE, transfer.id)
    assert refused.value.data == {"state": "done"}


async def test_nobody_cancels_anothers_transfer(world: World) -> None:
    transfer = await at_state(world, "upload", State.RECEIVING)
    with pytest.raises(TransferNotFound):
        await cancel_transfer(world.tools, BOB, transfer.id)
    assert (await world.get(transfer.id)).state is State.RECEIVING


@pytest.mark.parametrize(
    "place",
    [
        "store.ensure_bucket",
        "store.open_multipart",
        "store.write_object",
        "files.make_directory",
        "files.write_file",
        "scheduler.submit",
    ],
)
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_a_cancel_while_it_is_being_prepared_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, place: str, late: bool
) -> None:
    """The cancel runs in the middle of the request that makes everything, before or after one of its steps."""
    room, name = place.split(".")
    thing = getattr(world, room)
    step = getattr(thing, name)

    async def and_a_cancel(*arguments: object, **options: object) -> object:
        setattr(thing, name, step)
        result = await step(*arguments, **options) if late else None
        transfer = await world.the_transfer()
        assert transfer.state is State.PREPARING
        await cancel_transfer(world.tools, ALICE, transfer.id)
        return result if late else await step(*arguments, **options)

    setattr(thing, name, and_a_cancel)
    if place == "scheduler.submit":
        monkeypatch.setattr(cancelling, "INLINE_SECONDS", 0)
    with pytest.raises(Conflict, match="was cancelled while it was being prepared"):
        await begin_upload(world.tools, ALICE, "alps", TARGET, len(CONTENT))
    await world.work(5, seconds=100)
    transfer = await world.the_transfer()
    assert (transfer.state, transfer.cleaned, transfer.next_check_at) == (State.CANCELLED, True, None)
    assert world.left_outside() == []


async def test_a_cancel_while_a_failing_request_unmakes_its_transfer_keeps_its_word(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = world.scheduler.submit
    monkeypatch.setattr(cancelling, "INLINE_SECONDS", 0)

    async def refused(*arguments: object) -> object:
        await cancel_transfer(world.tools, ALICE, (await world.the_transfer()).id)
        world.scheduler.refusal = SubmissionRefused("no")
        return await submit(*arguments)  # type: ignore[arg-type]

    world.scheduler.submit = refused  # type: ignore[method-assign, assignment]
    with pytest.raises(SubmissionRefused):
        await begin_upload(world.tools, ALICE, "alps", TARGET, len(CONTENT))
    await world.work(5, seconds=100)
    assert (await world.the_transfer()).state is State.CANCELLED
    assert world.left_outside() == []


@pytest.mark.parametrize("vanished", [False, True], ids=["held", "vanished"])
@pytest.mark.parametrize("at", range(1, 14))
async def test_a_worker_that_meets_a_concurrent_cancel_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, at: int, vanished: bool
) -> None:
    """The worker releases (or submits anew) while the cancel is carried out between two of its steps."""
    transfer = await at_state(world, "upload", State.STAGED)
    if vanished:
        world.scheduler.forget(transfer.job_id or "")

    class Interrupted(Process):
        async def run(self, name: str, call: object) -> object:
            self.calls.append(name)
            if len(self.calls) == at:
                if (await world.get(transfer.id)).job_id is None:
                    # A late job is waited for then: by the worker, not by the request.
                    monkeypatch.setattr(cancelling, "INLINE_SECONDS", 0)
                await cancel_transfer(world.tools, ALICE, transfer.id)
            return await call()  # type: ignore[operator]

    await world.work(worker=world.worker(Interrupted()))
    if (await world.get(transfer.id)).state not in {State.CANCELLED, State.CANCELLING}:
        await cancel_transfer(world.tools, ALICE, transfer.id)
    await world.work(10, seconds=100)
    transfer = await world.get(transfer.id)
    assert (transfer.state, transfer.cleaned, transfer.next_check_at) == (State.CANCELLED, True, None)
    assert world.left_outside() == []


@pytest.mark.parametrize("at", range(1, 14))
async def test_a_cancel_that_meets_a_concurrent_worker_leaves_nothing(world: World, at: int) -> None:
    """The other way about: the worker's whole look happens between two steps of the cancel."""
    transfer = await at_state(world, "upload", State.STAGED)

    class Interrupted(Process):
        async def run(self, name: str, call: object) -> object:
            self.calls.append(name)
            if len(self.calls) == at:
                await world.work()
            return await call()  # type: ignore[operator]

    await cancel_transfer(world.toolbox(Interrupted()), ALICE, transfer.id)
    await world.work(10, seconds=100)
    transfer = await world.get(transfer.id)
    assert (transfer.state, transfer.cleaned) == (State.CANCELLED, True)
    assert world.left_outside() == []


async def test_a_ticket_written_after_the_clean_up_goes_as_well_while_the_cancel_is_not_saved_yet(world: World) -> None:
    """The worker's look fails on its old version between the cancel's clean-up and the cancel's last save."""
    transfer = await at_state(world, "upload", State.STAGED)
    transfers = world.tools.transfers
    save, saves = transfers.save, []

    async def slow_last_save(row: Transfer, *messages: str, **options: object) -> Transfer:
        saves.append(row.state)
        if row.state is State.CANCELLED:
            await world.store.write_object(row.bucket, names.ticket_key(row.id), json.dumps({}).encode())
            await world.transfers.demand_cleaning(row.id, world.clock.now())
        return await save(row, *messages, **options)  # type: ignore[arg-type]

    transfers.save = slow_last_save  # type: ignore[method-assign]
    await cancel_transfer(world.tools, ALICE, transfer.id)
    assert State.CANCELLED in saves
    transfers.save = save  # type: ignore[method-assign]
    await world.work(5, seconds=100)
    assert (await world.get(transfer.id)).state is State.CANCELLED
    assert world.left_outside() == []


async def test_two_workers_on_one_database_never_both_save(world: World) -> None:
    transfer = await at_state(world, "upload", State.STAGED)
    world.clock.advance(1)
    first, second = world.worker(name="first"), world.worker(name="second")
    taken = [await first.round(), await second.round()]
    await first.settle()
    await second.settle()
    assert taken == [1, 0]
    assert world.scheduler.count("release") == 1
    transfer = await world.get(transfer.id)
    assert transfer.state is State.QUEUED
    told = [line.state for line in await world.transfers.history(transfer.id)]
    assert told.count(State.QUEUED) == 1


async def test_a_worker_whose_lease_ran_out_does_not_save_over_the_next_one(world: World) -> None:
    transfer = await at_state(world, "upload", State.STAGED)

    class Slow(Process):
        async def run(self, name: str, call: object) -> object:
            self.calls.append(name)
            if name == "MemoryScheduler.release":
                result = await call()  # type: ignore[operator]
                world.clock.advance(31)
                await world.work(3)
                world.let_cluster_work()
                await world.work(1)
                return result
            return await call()  # type: ignore[operator]

    await world.work(worker=world.worker(Slow(), "slow"))
    transfer = await world.get(transfer.id)
    assert transfer.state is State.MOVING
    told = [line.state for line in await world.transfers.history(transfer.id)]
    assert told.count(State.QUEUED) == 1
    assert len(world.scheduler.jobs) == 1
    assert world.scheduler.jobs[transfer.job_id or ""].phase is JobPhase.RUNNING


async def test_a_directory_that_its_owner_made_in_place_of_the_hidden_file_is_removed_as_that_would_be(world: World) -> None:
    transfer = await at_state(world, "upload", State.QUEUED)
    hidden = HIDDEN + names.temporary_name(transfer.id)
    world.files.add_directory(hidden, "alice")
    world.files.add_file(f"{hidden}/inside", "alice", b"x")
    transfer = await cancel_transfer(world.tools, ALICE, transfer.id)
    assert (transfer.state, transfer.cleaned) == (State.CANCELLED, True)
    assert world.left_outside() == []
