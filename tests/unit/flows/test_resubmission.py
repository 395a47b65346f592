"""A staging job that ended before its work: another one takes over where that can help, as often as it may."""

from __future__ import annotations

import json

import pytest
from tests.fakes.world import ALICE, World
from tests.unit.flows.test_a_transfers_life import (
    CONTENT,
    TARGET,
    begun_download,
    begun_upload,
    queued_upload,
    receipt,
    until_end,
)

from stagecoach.core import names
from stagecoach.core.errors import SubmissionRefused
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows import cancel_transfer as cancelling
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.show_transfers import show_job
from stagecoach.ports.scheduler import JobPhase


async def moving(world: World, bytes_done: int, direction: str = "upload") -> Transfer:
    """A transfer whose job has got so far."""
    transfer = await queued_upload(world) if direction == "upload" else (await begun_download(world)).transfer
    world.nodes.move_some(transfer.job_id or "", bytes_done)
    await world.work()
    transfer = await world.the_transfer()
    assert (transfer.state, transfer.bytes_moved) == (State.MOVING, bytes_done)
    return transfer


async def until_resubmitted(world: World, attempt: int) -> Transfer:
    """Looks until the job of ``attempt`` is in the queue."""
    for _ in range(1000):
        await world.work(seconds=5)
        transfer = await world.the_transfer()
        if transfer.state.is_end or (transfer.attempt == attempt and transfer.job_id is not None):
            return transfer
    raise AssertionError(f"still attempt {transfer.attempt}, {transfer.state}")


async def story(world: World) -> str:
    return "\n".join(line.message for line in await world.transfers.history((await world.the_transfer()).id))


@pytest.mark.parametrize("direction", ["upload", "download"])
@pytest.mark.parametrize(
    ("phase", "code", "told"),
    [
        (JobPhase.NODE_FAIL, None, "The compute node nid000001 failed at 61 %; another job takes over."),
        (JobPhase.PREEMPTED, None, "pushed aside by one of higher priority at 61 %"),
        (JobPhase.PREEMPTED, "interrupted", "pushed aside by one of higher priority at 61 %"),
        (JobPhase.TIMEOUT, None, "reached its time limit at 61 %"),
        (JobPhase.TIMEOUT, "interrupted", "reached its time limit at 61 %"),
        (JobPhase.FAILED, None, "ended without a word at 61 %"),
        (JobPhase.FAILED, "interrupted", "was interrupted at 61 %"),
        (JobPhase.FAILED, "store_unreachable", "could not reach the store at 61 %"),
        (JobPhase.FAILED, "ticket_expired", "addresses of the store had expired at 61 %"),
        (JobPhase.FAILED, "another_mover", "An earlier job of this transfer is still at work at 61 %"),
    ],
)
async def test_what_passes_is_followed_by_another_job_that_goes_on(
    world: World, direction: str, phase: JobPhase, code: str | None, told: str
) -> None:
    first = await moving(world, 610, direction)
    world.nodes.end_with(first.job_id or "", phase, code)
    second = await until_resubmitted(world, 2)
    assert second.state is State.QUEUED
    assert second.job_id not in {None, first.job_id}
    assert world.scheduler.jobs[second.job_id or ""].name == names.job_name(first.id, 2)
    assert world.scheduler.jobs[second.job_id or ""].phase is JobPhase.PENDING
    assert (second.bytes_at_submission, second.resubmissions) == (610, 0 if code == "another_mover" else 1)
    assert told in await story(world)
    assert f"Staging job {second.job_id} is in the queue; it goes on from 61 %." in await story(world)
    assert world.scheduler.count("submit") == 2
    ticket = world.nodes.ticket(second.job_directory or "")
    assert ticket is not None
    assert ticket["attempt"] == 2
    world.let_cluster_work()
    await world.work(2)
    world.let_cluster_work()
    if direction == "upload":
        assert (await until_end(world)).state is State.DONE
        assert world.files.entries[TARGET].content == CONTENT
        assert world.left_outside() == []
    else:
        await world.work(3)
        assert (await world.the_transfer()).state is State.STAGED
    # The client still asks for the job that it was told of first.
    assert (await show_job(world.tools, ALICE, "alps", first.job_id or "")).id == first.id


@pytest.mark.parametrize(
    ("phase", "code", "ends_with"),
    [
        (JobPhase.OUT_OF_MEMORY, None, "out_of_memory"),
        (JobPhase.CANCELLED, None, "job_cancelled"),
        (JobPhase.CANCELLED, "interrupted", "job_cancelled"),
        (JobPhase.COMPLETED, None, "receipt_missing"),
        (JobPhase.FAILED, "no_space", "no_space"),
        (JobPhase.NODE_FAIL, "digest_mismatch", "digest_mismatch"),
        (JobPhase.TIMEOUT, "permission_denied", "permission_denied"),
    ],
)
async def test_what_another_job_cannot_mend_fails_at_once(
    world: World, phase: JobPhase, code: str | None, ends_with: str
) -> None:
    transfer = await moving(world, 610)
    world.nodes.end_with(transfer.job_id or "", phase, code)
    transfer = await until_end(world)
    assert (transfer.state, transfer.code, transfer.attempt) == (State.FAILED, ends_with, 1)
    assert transfer.bytes_moved == 610
    assert world.scheduler.count("submit") == 1
    assert world.left_outside() == []


@pytest.mark.parametrize("phase", [JobPhase.TIMEOUT, JobPhase.FAILED])
async def test_a_job_that_got_no_further_is_not_followed_by_one_that_would_not_either(world: World, phase: JobPhase) -> None:
    first = await moving(world, 610)
    world.nodes.end_with(first.job_id or "", phase)
    second = await until_resubmitted(world, 2)
    world.nodes.move_some(second.job_id or "", 610)
    await world.work()
    world.nodes.end_with(second.job_id or "", phase)
    ended = await until_end(world)
    assert (ended.state, ended.attempt) == (State.FAILED, 2)


async def test_progress_that_was_told_after_the_last_look_counts(world: World) -> None:
    first = await queued_upload(world)
    world.nodes.move_some(first.job_id or "", 300)
    world.scheduler.set_phase(first.job_id or "", JobPhase.TIMEOUT)
    second = await until_resubmitted(world, 2)
    assert (second.state, second.bytes_at_submission) == (State.QUEUED, 300)


async def test_after_its_bound_it_fails_with_the_last_reason_and_how_often_it_was_tried(world: World) -> None:
    begun_at, submitted_at = world.clock.now(), []
    transfer = await queued_upload(world)
    for attempt in (1, 2, 3, 4):
        transfer = await until_resubmitted(world, attempt)
        submitted_at.append((world.clock.now() - begun_at).total_seconds())
        begun_at = world.clock.now()
        world.scheduler.set_phase(transfer.job_id or "", JobPhase.RUNNING)
        await world.work()
        world.scheduler.set_phase(transfer.job_id or "", JobPhase.NODE_FAIL)
    ended = await until_end(world)
    assert (ended.state, ended.code, ended.attempt, ended.resubmissions) == (State.FAILED, "node_failed", 4, 3)
    assert ended.reason == "The compute node of the staging job failed. 4 jobs were tried."
    assert world.scheduler.count("submit") == 4
    assert world.left_outside() == []
    # Fifteen seconds of grace for a receipt, then 10, 60 and 360 of pause.
    assert 25 <= submitted_at[1] < 45
    assert 75 <= submitted_at[2] < 95
    assert 375 <= submitted_at[3] < 395


async def test_one_that_finds_another_mover_at_work_for_long_does_not_use_its_tries_up(world: World) -> None:
    transfer = await queued_upload(world)
    for attempt in range(1, 6):
        transfer = await until_resubmitted(world, attempt)
        world.scheduler.set_phase(transfer.job_id or "", JobPhase.RUNNING)
        await world.work()
        world.nodes.end_with(transfer.job_id or "", JobPhase.FAILED, "another_mover")
    assert (transfer.state, transfer.resubmissions) == (State.QUEUED, 0)
    # The first one arrives after all; the job that was to take over goes.
    for _ in range(3):
        await world.work()
    await world.store.write_object(transfer.bucket, names.receipt_key(transfer.id), receipt(transfer, attempt=1))
    transfer = await until_resubmitted(world, 6)
    assert (await until_end(world)).state is State.DONE
    assert world.left_outside() == []


async def test_a_late_receipt_of_an_earlier_attempt_does_not_fail_the_next_one(world: World) -> None:
    first = await moving(world, 610)
    world.nodes.end_with(first.job_id or "", JobPhase.NODE_FAIL)
    second = await until_resubmitted(world, 2)
    late = receipt(first, ok=False, attempt=1, code="no_space", message="Late.")
    await world.store.write_object(first.bucket, names.receipt_key(first.id), late)
    world.scheduler.set_phase(second.job_id or "", JobPhase.RUNNING)
    await world.work()
    world.scheduler.set_phase(second.job_id or "", JobPhase.NODE_FAIL)
    third = await until_resubmitted(world, 3)
    assert (third.state, third.resubmissions) == (State.QUEUED, 2)


async def test_a_late_success_of_an_earlier_attempt_is_believed_and_the_later_job_goes(world: World) -> None:
    first = await moving(world, 610)
    world.nodes.end_with(first.job_id or "", JobPhase.NODE_FAIL)
    second = await until_resubmitted(world, 2)
    await world.store.write_object(first.bucket, names.receipt_key(first.id), receipt(first, attempt=1))
    assert (await until_end(world)).state is State.DONE
    assert world.scheduler.jobs[second.job_id or ""].phase is JobPhase.CANCELLED
    assert world.left_outside() == []


async def test_a_failed_nodes_script_that_runs_on_is_cancelled_before_another_is_submitted(world: World) -> None:
    first = await moving(world, 610)
    world.scheduler.set_phase(first.job_id or "", JobPhase.NODE_FAIL)
    await until_resubmitted(world, 2)
    verbs = [(verb, what) for verb, _, what in world.scheduler.calls]
    assert verbs.index(("cancel", first.job_id)) < verbs.index(("submit", names.job_name(first.id, 2)))


async def test_a_job_that_is_known_by_its_name_only_is_followed_and_one_of_its_number_left_alone(world: World) -> None:
    first = await queued_upload(world)
    job_id = first.job_id or ""
    ours = world.scheduler.jobs.pop(job_id)
    # The scheduler came back with another memory: our job has another number, and a stranger has ours.
    renumbered = await world.scheduler.submit("alice", world.scheduler.requests[job_id])
    world.scheduler.jobs[job_id] = type(ours)(job_id=job_id, name="mine", phase=JobPhase.RUNNING, state="RUNNING", user="alice")
    for _ in range(30):
        await world.work(seconds=10)
    transfer = await world.the_transfer()
    assert (transfer.attempt, transfer.job_id) == (1, renumbered)
    assert not world.scheduler.jobs[renumbered].phase.is_final
    assert world.scheduler.jobs[job_id].phase is JobPhase.RUNNING


@pytest.mark.parametrize("fate", ["made", "never", "late"])
async def test_the_lost_answer_of_a_resubmission_never_makes_two_jobs(world: World, fate: str) -> None:
    first = await moving(world, 610)
    world.nodes.end_with(first.job_id or "", JobPhase.NODE_FAIL)
    world.scheduler.lose_answers = [fate]
    await world.work(12, seconds=5)
    world.scheduler.late_jobs_appear()
    second = await until_resubmitted(world, 2)
    assert second.state is State.QUEUED
    assert [job.name for job in world.scheduler.open_jobs()] == [names.job_name(first.id, 2)]
    world.let_cluster_work()
    world.let_cluster_work()
    assert (await until_end(world)).state is State.DONE
    assert world.left_outside() == []


async def test_a_job_of_a_lost_answer_that_ended_meanwhile_is_judged_and_not_forgotten(world: World) -> None:
    first = await moving(world, 610)
    world.nodes.end_with(first.job_id or "", JobPhase.NODE_FAIL)
    world.scheduler.lose_answers = ["late"]
    while not [call for call in world.scheduler.calls if call[0] == "submit" and call[2] == names.job_name(first.id, 2)]:
        await world.work(seconds=5)
    world.scheduler.late_jobs_appear()
    (job,) = world.scheduler.open_jobs()
    world.nodes.end_with(job.job_id, JobPhase.FAILED, "no_space")
    ended = await until_end(world)
    assert (ended.state, ended.code, ended.job_id) == (State.FAILED, "no_space", job.job_id)
    assert world.scheduler.count("submit") == 2


async def test_a_refused_resubmission_fails_with_the_schedulers_words(world: World) -> None:
    first = await moving(world, 610)
    world.nodes.end_with(first.job_id or "", JobPhase.PREEMPTED)
    world.scheduler.refusal = SubmissionRefused("sbatch: error: invalid qos")
    ended = await until_end(world)
    assert (ended.state, ended.code) == (State.FAILED, "submission_refused")
    assert "invalid qos" in (ended.reason or "")
    assert world.left_outside() == []


async def test_a_cancel_during_the_pause_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "INLINE_SECONDS", 0)
    first = await moving(world, 610)
    world.nodes.end_with(first.job_id or "", JobPhase.PREEMPTED)
    while (await world.the_transfer()).attempt == 1:
        await world.work(seconds=1)
    await cancel_transfer(world.tools, ALICE, first.id)
    assert (await until_end(world)).state is State.CANCELLED
    assert world.scheduler.count("submit") == 1
    assert world.left_outside() == []


async def test_a_transfer_whose_time_is_over_during_the_pause_expires(world: World) -> None:
    first = await moving(world, 610)
    world.nodes.end_with(first.job_id or "", JobPhase.PREEMPTED)
    while (await world.the_transfer()).attempt == 1:
        await world.work(seconds=1)
    world.clock.advance(11 * 24 * 3600)
    assert (await until_end(world)).state is State.EXPIRED
    assert world.left_outside() == []


async def test_a_held_job_is_looked_at_and_released_with_one_question_each(world: World) -> None:
    begun = await begun_upload(world)
    assert world.put_by_client(begun, CONTENT)
    await world.work()
    assert (await world.the_transfer()).state is State.STAGED
    calls = len(world.scheduler.calls)
    await world.work()
    assert (await world.the_transfer()).state is State.QUEUED
    assert [verb for verb, _, _ in world.scheduler.calls[calls:]] == ["reports", "release"]


async def test_a_job_that_its_owner_cancels_after_the_release_is_not_replaced(world: World) -> None:
    transfer = await queued_upload(world)
    world.clock.advance(60)
    world.scheduler.set_phase(transfer.job_id or "", JobPhase.CANCELLED)
    ended = await until_end(world)
    assert (ended.state, ended.code) == (State.FAILED, "job_cancelled")
    assert world.scheduler.count("submit") == 1


async def test_a_receipt_without_an_attempt_is_of_the_first(world: World) -> None:
    transfer = await queued_upload(world)
    content = json.loads(receipt(transfer, ok=False, code="no_space"))
    assert "attempt" not in content
    await world.store.write_object(transfer.bucket, names.receipt_key(transfer.id), json.dumps(content).encode())
    world.scheduler.set_phase(transfer.job_id or "", JobPhase.FAILED)
    assert (await until_end(world)).code == "no_space"
