"""Uploads and downloads from beginning to end, and what stands in their way; the worker moves them, the clock is a test's."""

from __future__ import annotations

import base64
import json

import pytest
from tests.fakes.systems import put_by_urls
from tests.fakes.world import ALICE, World

from stagecoach.core import names
from stagecoach.core.errors import Conflict, PartsMissing, StoreUnavailable, SubmissionRefused, SystemUnavailable
from stagecoach.core.job_scripts import TaskLayout
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows import cancel_transfer as cancelling
from stagecoach.flows.begin_transfer import BegunDownload, BegunUpload, begin_download, begin_upload
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.finish_transfer import finish_transfer, list_parts
from stagecoach.ports.scheduler import JobPhase, ReportsIncomplete
from stagecoach.settings.systems import ParallelSettings

CONTENT = bytes(range(250)) * 4
TARGET = "/home/alice/two words"


async def begun_upload(world: World, system: str = "alps") -> BegunUpload:
    account = "acc" if system == "bora" else None
    return await begin_upload(world.tools, ALICE, system, TARGET, len(CONTENT), account)


async def begun_download(world: World) -> BegunDownload:
    world.files.add_file(TARGET, "alice", CONTENT)
    return await begin_download(world.tools, ALICE, "alps", TARGET)


async def queued_upload(world: World) -> Transfer:
    begun = await begun_upload(world)
    assert world.put_by_client(begun, CONTENT)
    await world.work(2)
    transfer = await world.the_transfer()
    assert transfer.state is State.QUEUED
    return transfer


async def staged_download(world: World) -> Transfer:
    await begun_download(world)
    for _ in range(4):
        world.let_cluster_work()
        await world.work()
    transfer = await world.the_transfer()
    assert transfer.state is State.STAGED
    return transfer


async def until_end(world: World, rounds: int = 60, seconds: float = 10.0) -> Transfer:
    for _ in range(rounds):
        await world.work(seconds=seconds)
        transfer = await world.the_transfer()
        if transfer.state.is_end and transfer.next_check_at is None:
            assert transfer.cleaned
            return transfer
    raise AssertionError(f"still {transfer.state}, next look at {transfer.next_check_at}, clean: {transfer.cleaned}")


async def test_an_upload_from_receiving_to_done(world: World) -> None:
    begun = await begun_upload(world)
    assert begun.transfer.state is State.RECEIVING
    job = world.scheduler.jobs[begun.transfer.job_id or ""]
    assert (job.phase, job.name, job.user) == (JobPhase.HELD, names.job_name(begun.transfer.id), "alice")
    await world.work(3)
    assert (await world.the_transfer()).state is State.RECEIVING
    assert world.put_by_client(begun, CONTENT)
    await world.work()
    assert (await world.the_transfer()).state is State.STAGED
    await world.work()
    assert (await world.the_transfer()).state is State.QUEUED
    assert world.scheduler.jobs[job.job_id].phase is JobPhase.PENDING
    world.let_cluster_work()
    await world.work()
    assert (await world.the_transfer()).state is State.MOVING
    world.let_cluster_work()
    await world.work()
    transfer = await world.the_transfer()
    assert (transfer.state, transfer.bytes_moved, transfer.job_log) == (State.DONE, len(CONTENT), "job output\n")
    assert transfer.proved == ({"how": "size", "value": str(len(CONTENT))},)
    await world.work()
    transfer = await world.the_transfer()
    assert (transfer.cleaned, transfer.next_check_at) == (True, None)
    assert world.files.entries[TARGET].content == CONTENT
    assert world.left_outside() == []
    told = [line.state for line in await world.transfers.history(transfer.id)]
    assert told == [State.PREPARING, State.RECEIVING, State.STAGED, State.QUEUED, State.MOVING, State.DONE]


async def test_a_download_from_queued_to_fetched(world: World) -> None:
    begun = await begun_download(world)
    assert begun.transfer.state is State.QUEUED
    assert world.scheduler.jobs[begun.transfer.job_id or ""].phase is JobPhase.PENDING
    assert world.store.follow("GET", begun.download_url)[0] == 404
    world.let_cluster_work()
    await world.work()
    assert (await world.the_transfer()).state is State.MOVING
    world.let_cluster_work()
    await world.work()
    transfer = await world.the_transfer()
    assert (transfer.state, transfer.bytes_staged) == (State.STAGED, len(CONTENT))
    status, _, body = world.store.follow("GET", begun.download_url)
    assert (status, body) == (200, CONTENT)
    await finish_transfer(world.tools, ALICE, transfer.id)
    await world.work()
    transfer = await world.the_transfer()
    assert (transfer.state, transfer.cleaned, transfer.next_check_at) == (State.DONE, True, None)
    assert world.left_outside() == []
    assert world.files.entries[TARGET].content == CONTENT


async def test_an_empty_file_goes_both_ways(world: World) -> None:
    begun = await begin_upload(world.tools, ALICE, "alps", TARGET, 0)
    assert len(begun.part_urls) == 1
    assert world.put_by_client(begun, b"")
    for _ in range(5):
        await world.work()
        world.let_cluster_work()
    assert (await until_end(world)).state is State.DONE
    assert world.files.entries[TARGET].content == b""


@pytest.mark.parametrize(("above_bytes", "tasks"), [(len(CONTENT) - 1, 6), (len(CONTENT), 1)])
async def test_a_file_above_the_systems_bound_gets_a_job_of_several_tasks(world: World, above_bytes: int, tasks: int) -> None:
    (alps, *others) = world.settings.systems
    parallel = ParallelSettings(nodes=3, tasks_per_node=2, above_bytes=above_bytes)
    slurm = alps.scheduler.model_copy(update={"binaries": "/opt/slurm/bin"})
    systems = (alps.model_copy(update={"parallel": parallel, "scheduler": slurm}), *others)
    world.settings = world.settings.model_copy(update={"systems": systems})
    world.tools = world.toolbox()
    await begun_upload(world)
    (request,) = world.scheduler.requests.values()
    script = world.files.entries[request.script_path].content
    assert request.layout == (TaskLayout(3, 2) if tasks == 6 else TaskLayout(1, 1))
    assert (base64.b64encode(b"/opt/slurm/bin/srun") in script) == (tasks == 6)
    world.put_object(await world.the_transfer(), CONTENT)
    await world.work(2)
    assert world.files.entries[request.script_path].content == script


async def test_a_job_that_waits_itself_is_not_held_and_not_released(world: World) -> None:
    begun = await begun_upload(world, "bora")
    job_id = begun.transfer.job_id or ""
    assert world.scheduler.jobs[job_id].phase is JobPhase.PENDING
    world.scheduler.set_phase(job_id, JobPhase.RUNNING)
    ticket = world.nodes.ticket(begun.transfer.job_directory or "")
    assert ticket is not None
    assert ticket["wait"] == {"until_epoch_seconds": int(world.clock.now().timestamp()) + 6 * 3600}
    assert world.put_by_client(begun, CONTENT)
    await world.work(2)
    world.let_cluster_work()
    assert (await until_end(world)).state is State.DONE
    assert world.scheduler.count("release") == 0
    assert world.left_outside() == []


async def test_a_waiting_job_that_ends_early_fails_the_upload(world: World) -> None:
    begun = await begun_upload(world, "bora")
    world.scheduler.set_phase(begun.transfer.job_id or "", JobPhase.TIMEOUT)
    await world.work()
    transfer = await until_end(world)
    assert (transfer.state, transfer.code) == (State.FAILED, "job_ended_early")
    assert world.left_outside() == []


@pytest.mark.parametrize("size", [0, len(CONTENT) - 1, len(CONTENT) + 1])
async def test_an_object_of_the_wrong_size_is_never_brought_to_the_cluster(world: World, size: int) -> None:
    world.files.add_file(TARGET, "alice", b"the old content")
    begun = await begun_upload(world)
    world.put_object(begun.transfer, bytes(size))
    transfer = await until_end(world)
    assert (transfer.state, transfer.code) == (State.FAILED, "size_mismatch")
    assert str(size) in (transfer.reason or "")
    assert world.scheduler.count("release") == 0
    assert world.files.entries[TARGET].content == b"the old content"
    assert world.left_outside() == []


async def test_an_upload_that_never_comes_expires(world: World) -> None:
    begun = await begun_upload(world)
    world.clock.advance(7 * 24 * 3600 - 60)
    await world.work()
    assert (await world.the_transfer()).state is State.RECEIVING
    transfer = await until_end(world)
    assert (transfer.state, transfer.code) == (State.EXPIRED, "expired")
    assert world.left_outside() == []
    assert not world.put_by_client(begun, CONTENT)


async def test_an_upload_that_came_in_time_is_not_expired_because_the_worker_was_away(world: World) -> None:
    begun = await begun_upload(world)
    assert world.put_by_client(begun, CONTENT)
    world.clock.advance(7 * 24 * 3600 + 60)
    for _ in range(6):
        await world.work()
        world.let_cluster_work()
    assert (await until_end(world)).state is State.DONE
    assert world.files.entries[TARGET].content == CONTENT


async def test_a_download_that_is_never_fetched_expires(world: World) -> None:
    transfer = await staged_download(world)
    assert transfer.expires_at is not None
    await world.work(3, seconds=24 * 3600)
    assert (await world.the_transfer()).state is State.STAGED
    assert world.left_outside() != []
    await world.work(1, seconds=8 * 24 * 3600)
    transfer = await until_end(world)
    assert transfer.state is State.EXPIRED
    assert world.left_outside() == []
    assert world.files.entries[TARGET].content == CONTENT


async def test_a_staged_download_is_left_in_peace_until_it_expires(world: World) -> None:
    transfer = await staged_download(world)
    assert transfer.next_check_at == transfer.expires_at


async def test_what_is_gone_from_the_store_fails_after_a_minute_not_at_once(world: World) -> None:
    begun = await begun_upload(world)
    transfer = begun.transfer
    await world.store.abort_multipart(transfer.bucket, names.object_key(transfer.id), transfer.upload_id or "")
    await world.work(5, seconds=10)
    assert (await world.the_transfer()).state is State.RECEIVING
    transfer = await until_end(world)
    assert (transfer.state, transfer.code) == (State.FAILED, "upload_gone")
    assert world.left_outside() == []


async def test_a_multipart_that_was_out_of_sight_once_is_given_a_whole_minute_the_next_time(world: World) -> None:
    begun = await begun_upload(world)
    uploads = world.store._buckets[begun.transfer.bucket].uploads
    hidden = dict(uploads)
    uploads.clear()
    await world.work()
    uploads.update(hidden)
    await world.work(20, seconds=30)
    uploads.clear()
    await world.work(2, seconds=5)
    assert (await world.the_transfer()).state is State.RECEIVING
    uploads.update(hidden)
    assert world.put_by_client(begun, CONTENT)
    for _ in range(6):
        await world.work(seconds=35)
        world.let_cluster_work()
    assert (await until_end(world)).state is State.DONE


async def test_the_held_job_that_vanished_is_submitted_anew(world: World) -> None:
    begun = await begun_upload(world)
    old = begun.transfer.job_id or ""
    world.scheduler.forget(old)
    assert world.put_by_client(begun, CONTENT)
    await world.work(2)
    transfer = await world.the_transfer()
    assert transfer.state is State.QUEUED
    assert transfer.job_id not in {None, old}
    assert len(world.scheduler.open_jobs()) == 1
    world.let_cluster_work()
    world.let_cluster_work()
    assert (await until_end(world)).state is State.DONE
    assert world.left_outside() == []


@pytest.mark.parametrize("phase", [JobPhase.CANCELLED, JobPhase.FAILED, JobPhase.NODE_FAIL])
async def test_a_held_job_that_was_ended_by_somebody_is_submitted_anew(world: World, phase: JobPhase) -> None:
    begun = await begun_upload(world)
    world.scheduler.set_phase(begun.transfer.job_id or "", phase)
    world.clock.advance(60)
    assert world.put_by_client(begun, CONTENT)
    for _ in range(6):
        await world.work()
        world.let_cluster_work()
    assert (await until_end(world)).state is State.DONE
    assert world.files.entries[TARGET].content == CONTENT
    assert world.left_outside() == []


async def test_the_lost_answer_of_a_submission_whose_job_exists(world: World) -> None:
    world.scheduler.lose_answers = ["made"]
    begun = await begun_upload(world)
    assert begun.transfer.state is State.RECEIVING
    assert world.scheduler.count("submit") == 1
    assert list(world.scheduler.jobs) == [begun.transfer.job_id]


@pytest.mark.parametrize("fate", ["never", "late"])
async def test_the_lost_answer_of_a_submission_whose_job_does_not_exist_yet(world: World, fate: str) -> None:
    world.scheduler.lose_answers = [fate]
    with pytest.raises(SystemUnavailable):
        await begun_upload(world)
    assert (await world.the_transfer()).state is State.FAILED
    await world.work(2)
    world.scheduler.late_jobs_appear()
    transfer = await until_end(world, seconds=5)
    assert (transfer.state, transfer.code) == (State.FAILED, "submission_uncertain")
    assert world.scheduler.count("submit") == 1
    assert world.left_outside() == []


@pytest.mark.parametrize("fate", ["made", "never", "late"])
async def test_the_lost_answer_when_a_vanished_job_is_submitted_anew(world: World, fate: str) -> None:
    begun = await begun_upload(world)
    world.scheduler.forget(begun.transfer.job_id or "")
    world.scheduler.lose_answers = [fate]
    assert world.put_by_client(begun, CONTENT)
    await world.work(2)
    world.scheduler.late_jobs_appear()
    for _ in range(40):
        await world.work(seconds=5)
        world.let_cluster_work()
    assert (await until_end(world)).state is State.DONE
    assert world.scheduler.count("submit") == (3 if fate == "never" else 2)
    assert world.left_outside() == []


async def test_a_cancel_after_a_resubmission_whose_answer_was_lost_leaves_no_job(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "INLINE_SECONDS", 0)
    begun = await begun_upload(world)
    world.scheduler.forget(begun.transfer.job_id or "")
    world.scheduler.lose_answers = ["late"]
    assert world.put_by_client(begun, CONTENT)
    await world.work(2)
    await cancel_transfer(world.tools, ALICE, begun.transfer.id)
    await world.work(2)
    world.scheduler.late_jobs_appear()
    transfer = await until_end(world, seconds=20)
    assert transfer.state is State.CANCELLED
    assert world.left_outside() == []


async def test_a_refused_resubmission_fails_with_the_schedulers_words(world: World) -> None:
    begun = await begun_upload(world)
    world.scheduler.forget(begun.transfer.job_id or "")
    world.scheduler.refusal = SubmissionRefused("sbatch: error: invalid account")
    assert world.put_by_client(begun, CONTENT)
    transfer = await until_end(world)
    assert (transfer.state, transfer.code) == (State.FAILED, "submission_refused")
    assert "invalid account" in (transfer.reason or "")
    assert world.left_outside() == []


async def test_a_refused_submission_leaves_nothing(world: World) -> None:
    world.scheduler.refusal = SubmissionRefused("sbatch: error: invalid account")
    with pytest.raises(SubmissionRefused, match="invalid account"):
        await begun_upload(world)
    transfer = await until_end(world)
    assert (transfer.state, transfer.code) == (State.FAILED, "submission_refused")
    assert world.left_outside() == []


async def test_a_scheduler_that_is_down_for_a_while_changes_nothing(world: World) -> None:
    await queued_upload(world)
    world.scheduler.unavailable = True
    await world.work(40, seconds=60)
    transfer = await world.the_transfer()
    assert transfer.state is State.QUEUED
    assert transfer.failed_looks > 2
    calls = len(world.scheduler.calls)
    await world.work(60, seconds=1)
    assert len(world.scheduler.calls) - calls <= 2
    world.scheduler.unavailable = False
    world.let_cluster_work()
    world.let_cluster_work()
    transfer = await until_end(world, seconds=60)
    assert (transfer.state, transfer.failed_looks) == (State.DONE, 0)
    assert world.left_outside() == []


async def test_a_store_that_is_down_for_a_while_changes_nothing(world: World) -> None:
    begun = await begun_upload(world)
    world.store.failing = True
    await world.work(30, seconds=30)
    assert (await world.the_transfer()).state is State.RECEIVING
    world.store.failing = False
    assert world.put_by_client(begun, CONTENT)
    for _ in range(6):
        await world.work(seconds=300)
        world.let_cluster_work()
    assert (await until_end(world)).state is State.DONE


async def test_files_that_are_down_for_a_while_leave_nothing_in_the_end(world: World) -> None:
    begun = await begun_upload(world)
    world.put_object(begun.transfer, b"wrong size")
    world.files.unavailable = True
    await world.work(30, seconds=30)
    transfer = await world.the_transfer()
    assert (transfer.state, transfer.cleaned) == (State.FAILED, False)
    world.files.unavailable = False
    await until_end(world, seconds=300)
    assert world.left_outside() == []


async def test_a_receipt_of_a_job_nobody_knows_any_more_is_believed(world: World) -> None:
    transfer = await queued_upload(world)
    world.let_cluster_work()
    world.let_cluster_work()
    world.scheduler.forget(transfer.job_id or "")
    assert (await until_end(world)).state is State.DONE
    assert world.files.entries[TARGET].content == CONTENT


@pytest.mark.parametrize(
    ("phase", "code"),
    [
        (JobPhase.COMPLETED, "receipt_missing"),
        (JobPhase.FAILED, "job_failed"),
        (JobPhase.TIMEOUT, "job_timed_out"),
        (JobPhase.OUT_OF_MEMORY, "out_of_memory"),
        (JobPhase.CANCELLED, "job_cancelled"),
    ],
)
async def test_a_job_that_ends_without_a_receipt_is_not_believed_whatever_it_says(
    world: World, phase: JobPhase, code: str
) -> None:
    transfer = await queued_upload(world)
    world.scheduler.set_phase(transfer.job_id or "", phase)
    await world.work()
    assert (await world.the_transfer()).state is State.QUEUED
    transfer = await until_end(world)
    assert (transfer.state, transfer.code) == (State.FAILED, code)
    assert TARGET not in world.files.entries
    assert world.left_outside() == []


async def test_a_job_that_is_lost_without_a_receipt_is_given_its_time_before_another_takes_over(world: World) -> None:
    transfer = await queued_upload(world)
    world.scheduler.forget(transfer.job_id or "")
    await world.work(10, seconds=11)
    assert (await world.the_transfer()).attempt == 1
    for _ in range(10):
        await world.work(seconds=11)
        world.let_cluster_work()
    transfer = await until_end(world)
    assert (transfer.state, transfer.attempt, transfer.resubmissions) == (State.DONE, 2, 1)
    assert world.left_outside() == []


async def test_a_job_that_is_out_of_sight_for_a_while_is_followed_again(world: World) -> None:
    transfer = await queued_upload(world)
    hidden = world.scheduler.jobs.pop(transfer.job_id or "")
    await world.work(5, seconds=10)
    world.scheduler.jobs[hidden.job_id] = hidden
    await world.work(20, seconds=30)
    assert (await world.the_transfer()).state is State.QUEUED
    world.let_cluster_work()
    world.let_cluster_work()
    assert (await until_end(world)).state is State.DONE


def receipt(transfer: Transfer, **changes: object) -> bytes:
    document = {"version": 1, "transfer_id": transfer.id, "ok": True, "size_bytes": len(CONTENT), "message": "Whole."}
    return json.dumps({**document, **changes}).encode()


async def test_a_receipt_in_the_directory_counts_when_the_store_has_none(world: World) -> None:
    transfer = await queued_upload(world)
    world.files.add_file(f"{transfer.job_directory}/receipt.json", "alice", receipt(transfer))
    world.scheduler.set_phase(transfer.job_id or "", JobPhase.COMPLETED)
    assert (await until_end(world)).state is State.DONE


@pytest.mark.parametrize("changes", [{"size_bytes": 5}, {"size_bytes": None}, {"ok": "yes"}, {"ok": 1}])
async def test_a_forged_or_wrong_receipt_fails_the_transfer(world: World, changes: dict[str, object]) -> None:
    transfer = await queued_upload(world)
    await world.store.write_object(transfer.bucket, names.receipt_key(transfer.id), receipt(transfer, **changes))
    world.scheduler.set_phase(transfer.job_id or "", JobPhase.COMPLETED)
    transfer = await until_end(world)
    assert transfer.state is State.FAILED
    assert world.left_outside() == []


@pytest.mark.parametrize("changes", [{"transfer_id": "0" * 26}, {"version": 2}])
async def test_a_receipt_of_something_else_is_no_receipt(world: World, changes: dict[str, object]) -> None:
    transfer = await queued_upload(world)
    await world.store.write_object(transfer.bucket, names.receipt_key(transfer.id), receipt(transfer, **changes))
    world.scheduler.set_phase(transfer.job_id or "", JobPhase.COMPLETED)
    transfer = await until_end(world)
    assert (transfer.state, transfer.code) == (State.FAILED, "receipt_missing")


async def test_a_message_that_no_database_takes_does_not_hold_a_transfer_up(world: World) -> None:
    transfer = await queued_upload(world)
    content = receipt(transfer, ok=False, code="a\0b", message="\ud800 and \0")
    await world.store.write_object(transfer.bucket, names.receipt_key(transfer.id), content)
    world.scheduler.set_phase(transfer.job_id or "", JobPhase.FAILED)
    await world.work()
    transfer = await world.the_transfer()
    assert transfer.state is State.FAILED
    assert "\0" not in (transfer.reason or "") + (transfer.code or "")


async def test_a_good_receipt_is_believed_while_its_job_still_runs_and_the_job_is_ended_in_time(world: World) -> None:
    transfer = await queued_upload(world)
    job_id = transfer.job_id or ""
    world.scheduler.set_phase(job_id, JobPhase.RUNNING)
    await world.store.write_object(transfer.bucket, names.receipt_key(transfer.id), receipt(transfer))
    await world.work(3, seconds=2)
    transfer = await world.the_transfer()
    assert (transfer.state, transfer.cleaned) == (State.DONE, False)
    assert world.scheduler.jobs[job_id].phase is JobPhase.RUNNING
    await until_end(world)
    assert world.scheduler.jobs[job_id].phase is JobPhase.CANCELLED
    assert world.left_outside() == []


async def test_a_job_that_is_put_back_into_the_queue_is_followed_further(world: World) -> None:
    transfer = await queued_upload(world)
    job_id = transfer.job_id or ""
    world.scheduler.set_phase(job_id, JobPhase.RUNNING)
    await world.work()
    world.scheduler.set_phase(job_id, JobPhase.PENDING)
    interrupted = receipt(transfer, ok=False, code="interrupted", message="SIGTERM")
    await world.store.write_object(transfer.bucket, names.receipt_key(transfer.id), interrupted)
    await world.work()
    assert (await world.the_transfer()).state is State.QUEUED
    world.let_cluster_work()
    world.let_cluster_work()
    assert (await until_end(world)).state is State.DONE


async def test_progress_is_shown_while_the_job_runs(world: World) -> None:
    transfer = await queued_upload(world)
    world.scheduler.set_phase(transfer.job_id or "", JobPhase.RUNNING)
    progress = {"version": 1, "transfer_id": transfer.id, "bytes_done": 400, "rate_bytes_per_second": 20.5, "phase": "moving"}
    await world.store.write_object(transfer.bucket, names.progress_key(transfer.id), json.dumps(progress).encode())
    await world.work()
    transfer = await world.the_transfer()
    assert (transfer.state, transfer.bytes_moved, transfer.rate_bytes_per_second) == (State.MOVING, 400, 20.5)


async def test_a_staged_download_whose_object_is_not_there_fails(world: World) -> None:
    begun = await begun_download(world)
    await world.store.write_object(begun.transfer.bucket, names.receipt_key(begun.transfer.id), receipt(begun.transfer))
    world.scheduler.set_phase(begun.transfer.job_id or "", JobPhase.COMPLETED)
    transfer = await until_end(world)
    assert (transfer.state, transfer.code) == (State.FAILED, "object_missing")
    assert world.left_outside() == []


async def test_a_staged_download_of_another_size_fails(world: World) -> None:
    transfer = (await begun_download(world)).transfer
    world.put_object(transfer, CONTENT[:-1])
    await world.store.write_object(transfer.bucket, names.receipt_key(transfer.id), receipt(transfer))
    world.scheduler.set_phase(transfer.job_id or "", JobPhase.COMPLETED)
    transfer = await until_end(world)
    assert (transfer.state, transfer.code) == (State.FAILED, "object_missing")
    assert world.left_outside() == []


async def test_finish_completes_an_upload_whose_parts_are_all_there(world: World) -> None:
    begun = await begun_upload(world)
    with pytest.raises(PartsMissing) as missing:
        await finish_transfer(world.tools, ALICE, begun.transfer.id)
    assert missing.value.data == {"missing": [1], "missing_count": 1}
    report = await list_parts(world.tools, ALICE, begun.transfer.id)
    assert world.store.follow("PUT", report.missing_urls[1], CONTENT)[0] == 200
    transfer = await finish_transfer(world.tools, ALICE, begun.transfer.id)
    assert transfer.state is State.STAGED
    assert world.nudges > 0
    assert (await finish_transfer(world.tools, ALICE, begun.transfer.id)).state is State.STAGED


async def test_a_part_of_the_wrong_size_counts_as_missing(world: World) -> None:
    begun = await begun_upload(world)
    assert world.store.follow("PUT", begun.part_urls[0], CONTENT[:-1])[0] == 200
    with pytest.raises(PartsMissing):
        await finish_transfer(world.tools, ALICE, begun.transfer.id)
    assert list((await list_parts(world.tools, ALICE, begun.transfer.id)).missing_urls) == [1]


async def test_finish_and_the_worker_may_see_the_object_at_the_same_time(world: World) -> None:
    begun = await begun_upload(world)
    assert world.put_by_client(begun, CONTENT)
    head, worker = world.store.head_object, world.worker()

    async def slow_head(bucket: str, key: str) -> object:
        found = await head(bucket, key)
        world.store.head_object = head  # type: ignore[method-assign]
        await world.work(worker=worker)
        return found

    world.store.head_object = slow_head  # type: ignore[method-assign, assignment]
    transfer = await finish_transfer(world.tools, ALICE, begun.transfer.id)
    assert transfer.state in {State.STAGED, State.QUEUED}


async def test_finish_while_the_client_completes(world: World) -> None:
    begun = await begun_upload(world)
    listed = world.store.list_parts

    async def completed_meanwhile(bucket: str, key: str, upload_id: str) -> object:
        assert world.put_by_client(begun, CONTENT)
        return await listed(bucket, key, upload_id)

    world.store.list_parts = completed_meanwhile  # type: ignore[method-assign, assignment]
    assert (await finish_transfer(world.tools, ALICE, begun.transfer.id)).state is State.STAGED


async def test_an_upload_is_continued_with_what_the_store_has(world: World) -> None:
    part = 8 * 1024 * 1024
    content = bytes(2 * part + 5)
    begun = await begin_upload(world.tools, ALICE, "alps", TARGET, len(content))
    assert len(begun.part_urls) == 3
    assert world.store.follow("PUT", begun.part_urls[1], content[part : 2 * part])[0] == 200
    await world.work()
    assert (await world.the_transfer()).bytes_staged == part
    report = await list_parts(world.tools, ALICE, begun.transfer.id)
    assert [stored.number for stored in report.stored] == [2]
    assert list(report.missing_urls) == [1, 3]
    for number, url in report.missing_urls.items():
        assert world.store.follow("PUT", url, content[(number - 1) * part : number * part])[0] == 200
    assert (await finish_transfer(world.tools, ALICE, begun.transfer.id)).state is State.STAGED


async def test_a_download_is_not_finished_before_it_is_staged(world: World) -> None:
    begun = await begun_download(world)
    with pytest.raises(Conflict):
        await finish_transfer(world.tools, ALICE, begun.transfer.id)
    with pytest.raises(Conflict):
        await list_parts(world.tools, ALICE, begun.transfer.id)


async def test_a_url_has_new_life_when_the_job_is_released_after_a_long_upload(world: World) -> None:
    begun = await begun_upload(world)
    world.clock.advance(7 * 24 * 3600 - 3600)
    fresh = (await list_parts(world.tools, ALICE, begun.transfer.id)).missing_urls
    complete = (await list_parts(world.tools, ALICE, begun.transfer.id)).complete_url
    assert put_by_urls(world.store.follow, CONTENT, begun.transfer.part_size_bytes, fresh.values(), complete)
    await world.work(2)
    world.clock.advance(6 * 24 * 3600)
    world.let_cluster_work()
    world.let_cluster_work()
    assert (await until_end(world)).state is State.DONE


@pytest.mark.parametrize("direction", ["upload", "download"])
async def test_a_url_does_not_die_in_a_long_queue(world: World, direction: str) -> None:
    if direction == "upload":
        await queued_upload(world)
    else:
        await begun_download(world)
    # The store keeps an open upload for seven days, a whole object for ten.
    for _ in range((9 if direction == "upload" else 6) * 4):
        await world.work(seconds=6 * 3600)
    assert (await world.the_transfer()).state is State.QUEUED
    world.let_cluster_work()
    world.let_cluster_work()
    await world.work(8, seconds=10)
    assert (await world.the_transfer()).state is (State.DONE if direction == "upload" else State.STAGED)


async def test_a_completion_that_was_on_its_way_when_its_upload_was_cancelled_leaves_nothing(world: World) -> None:
    begun = await begun_upload(world)
    await cancel_transfer(world.tools, ALICE, begun.transfer.id)
    await world.store.write_object(begun.transfer.bucket, names.object_key(begun.transfer.id), CONTENT)
    assert (await until_end(world)).state is State.CANCELLED
    assert world.left_outside() == []


async def test_a_store_that_is_down_leaves_nothing_of_a_beginning(world: World) -> None:
    world.store.failing = True
    with pytest.raises(StoreUnavailable):
        await begun_upload(world)
    world.store.failing = False
    transfer = await until_end(world)
    assert (transfer.state, transfer.code) == (State.FAILED, "store_unavailable")
    assert world.left_outside() == []
    assert world.scheduler.count("submit") == 0


async def test_the_scheduler_is_asked_once_for_all_jobs_of_a_system(world: World) -> None:
    for number in range(12):
        begun = await begin_upload(world.tools, ALICE, "alps", f"{TARGET}{number}", len(CONTENT))
        assert world.put_by_client(begun, CONTENT)
    await world.work(2)
    assert {transfer.state for transfer in await world.all_transfers()} == {State.QUEUED}
    asked = world.scheduler.count("reports")
    await world.work()
    assert world.scheduler.count("reports") == asked + 1


async def test_one_owner_who_cannot_be_asked_about_does_not_stop_the_others(world: World) -> None:
    """A scheduler that answers for some owners only says so in the error: reports, and the ids it could not ask about."""
    first = await begin_upload(world.tools, ALICE, "alps", TARGET, len(CONTENT))
    second = await begin_upload(world.tools, ALICE, "alps", TARGET + "2", len(CONTENT))
    for begun in (first, second):
        assert world.put_by_client(begun, CONTENT)
    await world.work(2)
    world.let_cluster_work()
    reports = world.scheduler.reports

    async def partly(jobs: object) -> object:
        known = dict(await reports(jobs))  # type: ignore[arg-type]
        known.pop(first.transfer.job_id or "", None)
        raise ReportsIncomplete(known, {first.transfer.job_id or ""}, SystemUnavailable("The login of one owner fails."))

    world.scheduler.reports = partly  # type: ignore[method-assign, assignment]
    await world.work()
    assert (await world.get(second.transfer.id)).state is State.MOVING
    assert (await world.get(first.transfer.id)).state is State.QUEUED
    assert (await world.get(first.transfer.id)).failed_looks == 1
