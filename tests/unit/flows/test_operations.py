"""Operations on files within a system from beginning to end, and what stands in their way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import delete
from tests.fakes.world import ALICE, BOB, World, open_world, world_settings

from stagecoach.core.audit import Kind
from stagecoach.core.errors import (
    AccountRequired,
    Conflict,
    FileMissing,
    KeyReused,
    NotADirectory,
    NotAFile,
    PathRefused,
    PermissionRefused,
    StagecoachError,
    SubmissionRefused,
    SystemUnavailable,
    TargetExists,
    TransferNotFound,
)
from stagecoach.core.file_commands import Compression
from stagecoach.core.operations import Operation, OperationOptions
from stagecoach.core.transfer import Direction, State, Transfer, TransferFilter
from stagecoach.database.tables import transfers
from stagecoach.flows.answer_again import RepeatableRequest
from stagecoach.flows.audit_fix import run_audit
from stagecoach.flows.audit_looks import Scope
from stagecoach.flows.begin_operation import OperationRequest, begin_operation
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.check_bounds import bounds_of
from stagecoach.flows.retry_transfer import retry_transfer
from stagecoach.flows.show_transfers import show_transfer
from stagecoach.ports.scheduler import JobPhase

HOME = "/home/alice"
NOW = Scope(grace_seconds=0)
SOURCE, TARGET = f"{HOME}/it's a $(source)", f"{HOME}/target"


async def begun(
    world: World, operation: Operation, source: str | None = SOURCE, target: str = TARGET, **options: object
) -> Transfer:
    request = OperationRequest(operation, target, source, OperationOptions(**options))  # type: ignore[arg-type]
    return (await begin_operation(world.tools, ALICE, "alps", request)).transfer


def with_tree(world: World) -> None:
    world.files.add_directory(SOURCE, "alice")
    world.files.add_file(f"{SOURCE}/one", "alice", b"1" * 100)
    world.files.add_file(f"{SOURCE}/two", "alice", b"2" * 50)


async def until_over(world: World, rounds: int = 60, seconds: float = 10.0) -> Transfer:
    for _ in range(rounds):
        await world.work(seconds=seconds)
        transfer = await world.the_transfer()
        if transfer.state.is_end and transfer.next_check_at is None:
            return transfer
        world.let_cluster_work()
    raise AssertionError(f"still {transfer.state}")


@pytest.mark.parametrize("operation", Operation)
async def test_an_operation_from_queued_to_done(world: World, operation: Operation) -> None:
    with_tree(world)
    source: str | None = SOURCE
    if operation is Operation.EXTRACT:
        world.files.add_directory(TARGET, "alice")
        source = f"{SOURCE}/one"
    target = SOURCE if operation is Operation.REMOVE else TARGET
    transfer = await begun(world, operation, None if operation is Operation.REMOVE else source, target)
    assert (transfer.state, transfer.direction, transfer.operation) == (State.QUEUED, Direction.WITHIN, operation)
    assert world.scheduler.jobs[transfer.job_id or ""].phase is JobPhase.PENDING
    assert world.left_in_store() == []
    world.let_cluster_work()
    await world.work()
    assert (await world.the_transfer()).state is State.MOVING
    world.let_cluster_work()
    await world.work()
    done = await world.the_transfer()
    assert (done.state, done.bytes_moved, done.size_bytes) == (State.DONE, done.size_bytes, done.bytes_moved)
    things = 1 if operation is Operation.EXTRACT else 3
    assert (done.file_count, done.files_moved, done.job_log) == (things, things, "job output\n")
    await world.work(2)
    assert ((await world.the_transfer()).cleaned, world.left_outside()) == (True, [])
    assert (SOURCE in world.files.entries) is (operation not in {Operation.MOVE, Operation.REMOVE})
    told = [line.state for line in await world.transfers.history(done.id)]
    assert told == [State.PREPARING, State.QUEUED, State.MOVING, State.DONE]


async def test_a_job_that_could_not_be_released_at_once_is_by_the_worker(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def cannot(username: str, job_id: str) -> None:
        raise SystemUnavailable("The controller is away.")

    with_tree(world)
    with monkeypatch.context() as away:
        away.setattr(world.scheduler, "release", cannot)
        transfer = await begun(world, Operation.COPY)
    assert world.scheduler.jobs[transfer.job_id or ""].phase is JobPhase.HELD
    await world.work()
    assert world.scheduler.jobs[transfer.job_id or ""].phase is JobPhase.PENDING


async def test_its_ticket_is_a_file_and_the_store_is_not_needed(world: World) -> None:
    with_tree(world)
    world.store.unavailable = True
    transfer = await begun(world, Operation.COPY, dereference=True)
    ticket = world.nodes.ticket(transfer.job_directory or "")
    assert ticket is not None
    assert (ticket["kind"], ticket["attempt"]) == ("cp", 1)
    assert "?" not in json.dumps(ticket)
    world.let_cluster_work()
    world.let_cluster_work()
    await world.work(4)
    assert (await world.the_transfer()).state is State.DONE


async def test_progress_is_seen_in_bytes_and_files(world: World) -> None:
    with_tree(world)
    transfer = await begun(world, Operation.COPY)
    world.nodes.move_some(transfer.job_id or "", 40)
    await world.work()
    seen = await world.the_transfer()
    assert (seen.state, seen.bytes_moved, seen.size_bytes) == (State.MOVING, 40, 160)
    assert (seen.files_moved, seen.file_count) == (2, 5)


async def test_a_failure_says_why_and_leaves_nothing(world: World) -> None:
    with_tree(world)
    transfer = await begun(world, Operation.COPY)
    world.nodes.move_some(transfer.job_id or "", 40)
    await world.work()
    world.nodes.end_with(transfer.job_id or "", JobPhase.FAILED, "source_changed")
    failed = await until_over(world)
    assert (failed.state, failed.code, failed.reason) == (State.FAILED, "source_changed", "The mover says source_changed.")
    assert world.left_outside() == []


async def test_cancelled_in_the_middle_nothing_half_stays(world: World) -> None:
    with_tree(world)
    transfer = await begun(world, Operation.COPY)
    world.nodes.move_some(transfer.job_id or "", 40)
    await world.work()
    cancelled = await cancel_transfer(world.tools, ALICE, transfer.id)
    assert cancelled.state is State.CANCELLED
    await world.work(3)
    assert world.left_outside() == []
    assert (TARGET in world.files.entries, f"{SOURCE}/one" in world.files.entries) == (False, True)


async def test_what_was_done_before_it_could_be_cancelled_is_done(world: World) -> None:
    with_tree(world)
    transfer = await begun(world, Operation.MOVE)
    world.let_cluster_work()
    world.nodes.run(transfer.job_id or "")
    late = await cancel_transfer(world.tools, ALICE, transfer.id)
    assert (late.state, late.files_moved) == (State.DONE, 3)
    await world.work(4, seconds=60)
    assert world.left_outside() == []


async def test_a_node_that_fails_is_followed_by_another_job(world: World) -> None:
    with_tree(world)
    transfer = await begun(world, Operation.COPY)
    first = transfer.job_id or ""
    world.nodes.move_some(first, 40)
    await world.work()
    world.nodes.end_with(first, JobPhase.NODE_FAIL)
    done = await until_over(world)
    assert (done.state, done.attempt, done.first_job_id) == (State.DONE, 2, first)
    assert f"{TARGET}/two" in world.files.entries
    assert world.left_outside() == []


@pytest.mark.parametrize("code", ["no_space", "job_timed_out"])
async def test_it_can_be_retried_for_a_while(tmp_path: Path, database_template: Path, code: str) -> None:
    settings = world_settings(alps={"limits": {"keep_failed_seconds": 3600}})
    async with open_world(tmp_path, database_template, settings) as world:
        with_tree(world)
        transfer = await begun(world, Operation.COPY)
        world.nodes.move_some(transfer.job_id or "", 40)
        await world.work()
        phase = JobPhase.TIMEOUT if code == "job_timed_out" else JobPhase.FAILED
        world.nodes.end_with(transfer.job_id or "", phase, code)
        await world.work(3)
        failed = await world.the_transfer()
        assert (failed.state, failed.retry_until is not None) == (State.FAILED, True)
        again = await retry_transfer(world.tools, ALICE, transfer.id)
        assert again.state is State.QUEUED
        done = await until_over(world)
        assert (done.state, done.attempt) == (State.DONE, 2)
        assert world.left_outside() == []


async def test_the_same_request_again_begins_nothing(world: World) -> None:
    with_tree(world)
    request = OperationRequest(Operation.COPY, TARGET, SOURCE)
    repeatable = RepeatableRequest("key", "digest")
    first = await begin_operation(world.tools, ALICE, "alps", request, repeatable)
    second = await begin_operation(world.tools, ALICE, "alps", request, repeatable)
    assert (second.transfer.id, second.is_repeated, len(world.scheduler.jobs)) == (first.transfer.id, True, 1)
    with pytest.raises(KeyReused):
        await begin_operation(world.tools, ALICE, "alps", request, RepeatableRequest("key", "other"))


async def test_it_counts_among_the_open_ones_but_not_as_staged(world: World) -> None:
    with_tree(world)
    await begun(world, Operation.REMOVE, None, f"{SOURCE}/one")
    usage = await world.transfers.usage("alice", "alps", bounds_of(world.tools, world.tools.system("alps")), world.clock.now())
    assert (usage.open_of_user, usage.staged_of_user_bytes) == (1, 0)
    listed = await world.transfers.page(TransferFilter(direction=Direction.WITHIN))
    assert [transfer.operation for transfer in listed] == [Operation.REMOVE]


async def test_nobody_else_sees_it(world: World) -> None:
    with_tree(world)
    transfer = await begun(world, Operation.COPY)
    with pytest.raises(TransferNotFound):
        await show_transfer(world.tools, BOB, transfer.id)
    with pytest.raises(TransferNotFound):
        await cancel_transfer(world.tools, BOB, transfer.id)


async def test_a_refused_submission_leaves_nothing(world: World) -> None:
    with_tree(world)
    world.scheduler.refusal = SubmissionRefused("Invalid account.")
    with pytest.raises(SubmissionRefused):
        await begun(world, Operation.MOVE)
    failed = await world.the_transfer()
    assert (failed.state, failed.code) == (State.FAILED, "submission_refused")
    await world.work(3, seconds=200)
    assert world.left_outside() == []


REFUSED: list[tuple[Operation, str | None, str, type[StagecoachError]]] = [
    (Operation.COPY, f"{HOME}/nothing", TARGET, FileMissing),
    (Operation.COPY, SOURCE, f"{HOME}/no/where", FileMissing),
    (Operation.COPY, SOURCE, SOURCE, PathRefused),
    (Operation.COPY, SOURCE, f"{SOURCE}/inner", PathRefused),
    (Operation.COPY, SOURCE, HOME, PathRefused),
    (Operation.COPY, SOURCE, f"{HOME}/file", TargetExists),
    (Operation.COPY, f"{HOME}/file", f"{HOME}/full", NotAFile),
    (Operation.COPY, "/etc/passwd", TARGET, PathRefused),
    (Operation.COPY, SOURCE, "/etc/target", PathRefused),
    (Operation.COPY, "relative", TARGET, PathRefused),
    (Operation.COPY, SOURCE, f"{HOME}/way-out/target", PathRefused),
    (Operation.COPY, f"{HOME}/way-out/secret", TARGET, PathRefused),
    (Operation.COPY, f"{HOME}/closed", TARGET, PermissionRefused),
    (Operation.COPY, f"{HOME}/file", "/scratch/file", PermissionRefused),
    (Operation.COPY, f"{HOME}/file", f"{HOME}/new/", FileMissing),
    (Operation.MOVE, SOURCE, f"{SOURCE}/one/more", NotAFile),
    (Operation.MOVE, SOURCE, f"{HOME}/full", TargetExists),
    (Operation.MOVE, HOME, "/scratch/alice", PathRefused),
    (Operation.MOVE, f"{HOME}/.stagecoach", f"{HOME}/elsewhere", PathRefused),
    (Operation.REMOVE, None, HOME, PathRefused),
    (Operation.REMOVE, None, f"{HOME}/nothing", FileMissing),
    (Operation.REMOVE, None, f"{HOME}/way-out/secret", PathRefused),
    (Operation.REMOVE, None, "/scratch", PathRefused),
    (Operation.REMOVE, None, f"{HOME}/.stagecoach", PathRefused),
    (Operation.COMPRESS, SOURCE, f"{HOME}/full", NotAFile),
    (Operation.COMPRESS, f"{HOME}/file", f"{HOME}/file", PathRefused),
    (Operation.EXTRACT, SOURCE, TARGET, NotAFile),
    (Operation.EXTRACT, f"{HOME}/file", f"{HOME}/nothing", FileMissing),
    (Operation.EXTRACT, f"{HOME}/file", f"{HOME}/file", NotADirectory),
]


@pytest.mark.parametrize(("operation", "source", "target", "error"), REFUSED)
async def test_what_cannot_be_is_refused_and_nothing_is_made(
    world: World, operation: Operation, source: str | None, target: str, error: type[StagecoachError]
) -> None:
    with_tree(world)
    files = world.files
    files.add_directory("/scratch", "root")
    files.add_file(f"{HOME}/file", "alice", b"x")
    files.add_file(f"{HOME}/closed", "bob", b"x", 0o600)
    files.add_directory(f"{HOME}/full", "alice")
    files.add_directory(f"{HOME}/full/{SOURCE.rsplit('/', 1)[1]}", "alice")
    files.add_file(f"{HOME}/full/{SOURCE.rsplit('/', 1)[1]}/there", "alice", b"x")
    files.add_directory(f"{HOME}/full/file", "alice")
    files.add_directory(f"{HOME}/.stagecoach", "alice")
    files.add_directory("/outside", "alice", 0o777)
    files.add_file("/outside/secret", "alice", b"x")
    files.add_symlink(f"{HOME}/way-out", "alice", "/outside")
    before = dict(files.entries)
    with pytest.raises(error):
        await begun(world, operation, source, target)
    assert (await world.all_transfers(), files.entries, world.scheduler.jobs) == ([], before, {})


async def test_into_a_directory_it_goes_by_its_own_name(world: World) -> None:
    with_tree(world)
    world.files.add_directory(TARGET, "alice")
    copied = await begun(world, Operation.COPY)
    assert (copied.path, copied.hidden_path) == (
        f"{TARGET}/it's a $(source)",
        f"{TARGET}/.stagecoach-{copied.id}.part",
    )
    assert copied.operation_options is not None
    assert not copied.operation_options.merges


async def test_a_copy_into_a_directory_of_its_own_name_is_added_to_it(world: World) -> None:
    with_tree(world)
    there = f"{TARGET}/it's a $(source)"
    world.files.add_directory(TARGET, "alice")
    world.files.add_directory(there, "alice")
    copied = await begun(world, Operation.COPY)
    assert (copied.real_path, copied.hidden_path) == (there, f"{there}/.stagecoach-{copied.id}.part")


async def test_a_link_is_moved_itself_and_copied_as_asked(world: World) -> None:
    with_tree(world)
    world.files.add_symlink(f"{HOME}/link", "alice", SOURCE)
    moved = await begun(world, Operation.MOVE, f"{HOME}/link", f"{HOME}/moved")
    assert moved.real_source_path == f"{HOME}/link"
    followed = await begun(world, Operation.COPY, f"{HOME}/link", f"{HOME}/followed", dereference=True)
    assert followed.real_source_path == SOURCE


async def test_options_come_back_from_the_database(world: World) -> None:
    with_tree(world)
    made = await begun(world, Operation.COMPRESS, compression=Compression.XZ, match_pattern=".*", dereference=True)
    assert (await world.get(made.id)).operation_options == OperationOptions(True, Compression.XZ, ".*")


async def test_an_account_is_asked_for_where_the_system_needs_one(world: World) -> None:
    with_tree(world)
    with pytest.raises(AccountRequired):
        await begin_operation(world.tools, ALICE, "bora", OperationRequest(Operation.COPY, TARGET, SOURCE))
    request = OperationRequest(Operation.COPY, TARGET, SOURCE, account="acc")
    transfer = (await begin_operation(world.tools, ALICE, "bora", request)).transfer
    assert world.scheduler.requests[transfer.job_id or ""].account == "acc"


async def test_an_ended_one_cannot_be_cancelled(world: World) -> None:
    with_tree(world)
    transfer = await begun(world, Operation.COPY)
    await until_over(world)
    with pytest.raises(Conflict):
        await cancel_transfer(world.tools, ALICE, transfer.id)


async def test_an_audit_finds_what_was_left_in_the_target_that_it_was_added_to(world: World) -> None:
    with_tree(world)
    world.files.add_directory(TARGET, "alice")
    transfer = await begun(world, Operation.EXTRACT, f"{SOURCE}/one")
    done = await until_over(world)
    assert (done.state, (await run_audit(world.tools, NOW, fix=False)).findings) == (State.DONE, [])
    world.clock.advance(3600)
    world.files.add_file(f"{TARGET}/.stagecoach-{transfer.id}.part", "alice", b"half")
    found = await run_audit(world.tools, NOW, fix=False)
    assert [(one.kind, one.transfer_id) for one in found.findings] == [(Kind.TEMPORARY_FILE, transfer.id)]
    await run_audit(world.tools, NOW, fix=True)
    assert world.left_outside() == []


async def test_an_audit_knows_a_job_that_no_row_knows_by_its_ticket(world: World) -> None:
    with_tree(world)
    transfer = await begun(world, Operation.COPY)
    await begun(world, Operation.COPY, target=f"{HOME}/other")
    stranger = world.tools.new_id()
    ticket = {**(world.nodes.ticket(transfer.job_directory or "") or {}), "address": "memory://other/x/ticket.json"}
    directory = f"{HOME}/.stagecoach/{stranger}"
    world.files.add_directory(directory, "alice")
    world.files.add_file(f"{directory}/ticket.json", "alice", json.dumps(ticket).encode())
    async with world.engine.begin() as connection:
        await connection.execute(delete(transfers).where(transfers.c.id == transfer.id))
    found = await run_audit(world.tools, NOW, fix=False)
    kinds = {(finding.kind, finding.transfer_id) for finding in found.findings}
    assert kinds == {(Kind.JOB, transfer.id), (Kind.JOB_DIRECTORY, transfer.id)}
    assert len(found.foreign) == 1


async def test_an_open_one_is_no_broken_one_for_an_audit(world: World) -> None:
    with_tree(world)
    transfer = await begun(world, Operation.COPY)
    world.nodes.move_some(transfer.job_id or "", 40)
    await world.work()
    world.clock.advance(1)
    found = await run_audit(world.tools, NOW, fix=False)
    assert (found.findings, found.unseen, found.foreign) == ([], [], [])
