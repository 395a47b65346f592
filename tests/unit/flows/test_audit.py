"""An audit finds every orphan, removes it when asked, and never touches or reports what a transfer still needs."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, update
from tests.fakes.world import ALICE, BOB, World, open_world, world_settings

from stagecoach.core import names
from stagecoach.core.audit import Kind
from stagecoach.core.errors import StagecoachError
from stagecoach.core.transfer import State, Transfer
from stagecoach.database.tables import transfer_history, transfers
from stagecoach.flows.audit import Audit
from stagecoach.flows.audit_fix import run_audit
from stagecoach.flows.audit_looks import Scope
from stagecoach.flows.audit_words import as_document, as_lines
from stagecoach.flows.begin_transfer import BegunDownload, BegunUpload, begin_download, begin_upload
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.finish_transfer import finish_transfer
from stagecoach.flows.forget_ended import forget_ended
from stagecoach.ports.scheduler import JobPhase, JobRequest

CONTENT = b"content " * 100
NOW = Scope(grace_seconds=0)
WORK = "/home/alice/.stagecoach"

Plant = Callable[[World, Transfer], Awaitable[None]]


async def begun(world: World, path: str = "/home/alice/file") -> BegunUpload:
    return await begin_upload(world.tools, ALICE, "alps", path, len(CONTENT))


async def ended(world: World) -> Transfer:
    """A delivered upload of alice's, of which nothing is left."""
    upload = await begun(world)
    assert world.put_by_client(upload, CONTENT)
    for _ in range(5):
        await world.work()
        world.let_cluster_work()
    await world.work(3, seconds=60)
    transfer = await world.get(upload.transfer.id)
    assert (transfer.state, transfer.cleaned, transfer.next_check_at) == (State.DONE, True, None)
    return transfer


async def look(world: World, scope: Scope = NOW) -> Audit:
    return await run_audit(world.tools, scope, fix=False)


async def plant_object(world: World, transfer: Transfer) -> None:
    await world.store.write_object(transfer.bucket, names.receipt_key(transfer.id), b"late")


async def plant_multipart(world: World, transfer: Transfer) -> None:
    await world.store.open_multipart(transfer.bucket, names.object_key(transfer.id))


async def plant_job(world: World, transfer: Transfer) -> None:
    request = JobRequest(names.job_name(transfer.id, 2), "/s", "/", "/o", "/e", held=True)
    await world.scheduler.submit(transfer.owner, request)


async def plant_job_directory(world: World, transfer: Transfer) -> None:
    world.files.add_directory(f"{WORK}/{transfer.id}", "alice", 0o700)
    world.files.add_file(f"{WORK}/{transfer.id}/ticket-url", "alice", b"https://elsewhere/x")


async def plant_temporary_file(world: World, transfer: Transfer) -> None:
    world.files.add_file(f"/home/alice/{names.temporary_name(transfer.id)}", "alice", b"half")


async def plant_temporary_directory(world: World, transfer: Transfer) -> None:
    world.files.add_directory(f"/home/alice/{names.temporary_name(transfer.id)}", "alice")
    world.files.add_file(f"/home/alice/{names.temporary_name(transfer.id)}/inner", "alice", b"half")


PLANTS: list[tuple[Kind, Plant]] = [
    (Kind.OBJECT, plant_object),
    (Kind.MULTIPART, plant_multipart),
    (Kind.JOB, plant_job),
    (Kind.JOB_DIRECTORY, plant_job_directory),
    (Kind.TEMPORARY_FILE, plant_temporary_file),
    (Kind.TEMPORARY_FILE, plant_temporary_directory),
]


@pytest.mark.parametrize(("kind", "plant"), PLANTS)
async def test_each_orphan_of_an_ended_transfer_is_found_and_removed(world: World, kind: Kind, plant: Plant) -> None:
    transfer = await ended(world)
    world.files.add_file("/home/alice/.stagecoach/notes", "alice", b"mine")
    living = await begun(world, "/home/alice/living")
    assert await look(world) == Audit([], [], [])
    before = world.left_outside()

    await plant(world, transfer)
    (finding,) = (await look(world)).findings
    assert (finding.kind, finding.transfer_id, finding.user, finding.fixable) == (kind, transfer.id, "alice", True)
    assert finding.why == "its transfer has ended (done) and was cleaned"
    assert finding.age_seconds is not None

    after = await run_audit(world.tools, NOW, fix=True)
    assert (after.findings, after.unseen, [fixed.kind for fixed in after.fixed]) == ([], [], [kind])
    assert world.left_outside() == before
    assert (await look(world)).findings == []
    assert world.put_by_client(living, CONTENT)
    for _ in range(5):
        await world.work()
        world.let_cluster_work()
    assert (await world.get(living.transfer.id)).state is State.DONE


@pytest.mark.parametrize(("kind", "plant"), PLANTS)
async def test_what_is_young_is_left_alone(world: World, kind: Kind, plant: Plant) -> None:
    transfer = await ended(world)
    await plant(world, transfer)
    if kind in {Kind.OBJECT, Kind.MULTIPART}:
        assert (await look(world, Scope())).findings == []
    world.clock.advance(301)
    assert [finding.kind for finding in (await look(world, Scope())).findings] == [kind]


async def test_all_kinds_at_once_are_removed_in_one_run(world: World) -> None:
    transfer = await ended(world)
    for _, plant in PLANTS:
        await plant(world, transfer)
    after = await run_audit(world.tools, NOW, fix=True)
    assert len(after.fixed) == 5
    assert (after.findings, world.left_outside()) == ([], [])


async def test_things_of_a_transfer_that_no_row_knows(world: World) -> None:
    """In the store all of our prefix is ours; on a cluster only what our own ticket URL proves."""
    upload = await begun(world)
    transfer = upload.transfer
    stranger = world.tools.new_id()
    world.files.add_directory(f"{WORK}/{stranger}", "alice")
    world.files.add_file(f"{WORK}/{stranger}/ticket-url", "alice", b"memory://other/stagecoach-alice/x?y")
    world.files.add_directory(f"{WORK}/{world.tools.new_id()}", "alice")
    await world.scheduler.submit("alice", JobRequest(names.job_name(stranger), "/s", "/", "/o", "/e", held=True))
    other = await begun(world, "/home/alice/other")
    async with world.engine.begin() as connection:
        await connection.execute(delete(transfers).where(transfers.c.id == transfer.id))

    found = await look(world)
    assert {(finding.kind, finding.transfer_id) for finding in found.findings} == {
        (kind, transfer.id) for kind in (Kind.OBJECT, Kind.MULTIPART, Kind.JOB, Kind.JOB_DIRECTORY)
    }
    assert len(found.foreign) == 3
    after = await run_audit(world.tools, NOW, fix=True)
    assert (after.findings, len(after.foreign)) == ([], 3)
    assert {job.name for job in world.scheduler.open_jobs()} == {names.job_name(stranger), other.transfer.job_name}
    assert {path for path in world.files.below(WORK) if "/" not in path[len(WORK) + 1 :]} >= {f"{WORK}/{stranger}"}


async def test_objects_with_other_keys_and_buckets_of_others_are_foreign_and_stay(world: World) -> None:
    transfer = await ended(world)
    await world.store.write_object(transfer.bucket, "backup/2030.tar", b"mine")
    await world.store.ensure_bucket("stagecoach-museum")
    await world.store.write_object("stagecoach-museum", "coach.jpg", b"red")
    await world.store.write_object("stagecoach-museum", f"{transfer.id}/data", b"?")
    after = await run_audit(world.tools, NOW, fix=True)
    assert (after.findings, after.fixed) == ([], ())
    assert [place for place, _ in after.foreign] == ["stagecoach-alice", "stagecoach-museum"]
    assert len(world.left_outside()) == 3


async def test_a_bucket_of_ours_that_the_table_lost_is_looked_at_all_the_same(world: World) -> None:
    transfer = await ended(world)
    await world.store.ensure_bucket("stagecoach-carol")
    await world.store.write_object("stagecoach-carol", names.object_key(world.tools.new_id()), b"x")
    after = await run_audit(world.tools, NOW, fix=True)
    assert [(fixed.kind, fixed.place) for fixed in after.fixed] == [(Kind.OBJECT, "stagecoach-carol")]
    assert await world.store.list_buckets("") == ["stagecoach-alice", "stagecoach-carol"], transfer


async def test_without_a_prefix_only_known_buckets_are_looked_at(tmp_path: Path, database_template: Path) -> None:
    settings = world_settings(s3={"bucket_prefix": ""})
    async with open_world(tmp_path, database_template, settings) as world:
        await ended(world)
        await world.store.ensure_bucket("somebody")
        await world.store.write_object("somebody", names.object_key(world.tools.new_id()), b"x")
        assert await look(world) == Audit([], [], [])


async def test_what_happens_during_an_audit_is_not_taken_for_an_orphan(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call outside is a moment in which a request begins a transfer and the worker ends another."""
    await ended(world)
    living = [await begun(world, f"/home/alice/living-{number}") for number in range(8)]
    moments: list[str] = []

    def in_between(thing: object, name: str) -> None:
        call = getattr(thing, name)

        async def watched(*arguments: object, **options: object) -> object:
            answer = await call(*arguments, **options)
            moments.append(name)
            await begun(world, f"/home/alice/new-{len(moments)}")
            await cancel_transfer(world.tools, ALICE, living.pop().transfer.id)
            await world.work(2, seconds=61)
            return answer

        monkeypatch.setattr(thing, name, watched)

    for thing, name in ((world.store, "list_multiparts"), (world.files, "list_directory"), (world.scheduler, "list_open_jobs")):
        in_between(thing, name)
    found = await look(world)
    assert {"list_multiparts", "list_directory", "list_open_jobs"} == set(moments)
    assert found == Audit([], [], [])


async def test_a_job_that_was_followed_by_another_during_the_audit_is_no_orphan(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await begun(world)
    world.clock.advance(400)
    await world.work()
    list_open_jobs = world.scheduler.list_open_jobs

    async def resubmitted(asker: str, name_prefix: str, *, of_everyone: bool) -> object:
        jobs = await list_open_jobs(asker, name_prefix, of_everyone=of_everyone)
        row = await world.get(upload.transfer.id)
        await world.transfers.save(replace(row, job_id="999", attempt=2), next_check_at=row.next_check_at)
        return jobs

    monkeypatch.setattr(world.scheduler, "list_open_jobs", resubmitted)
    assert (await look(world)).findings == []


async def test_a_second_job_of_a_living_transfer_is_ended_and_its_own_goes_on(world: World) -> None:
    upload = await begun(world)
    second = JobRequest(upload.transfer.job_name, "/s", "/", "/o", "/e", held=True)
    job_id = await world.scheduler.submit("alice", second)
    assert (await look(world)).findings == []
    world.clock.advance(400)
    world.scheduler.jobs[job_id] = replace(world.scheduler.jobs[job_id], submit_time=int(world.clock.now().timestamp()) - 350)
    await world.work(2)
    after = await run_audit(world.tools, NOW, fix=True)
    assert [fixed.name for fixed in after.fixed] == [job_id]
    assert [job.job_id for job in world.scheduler.open_jobs()] == [upload.transfer.job_id]


async def test_a_staged_upload_without_its_object_is_told_and_not_removed(world: World) -> None:
    upload = await begun(world)
    assert world.put_by_client(upload, CONTENT)
    await world.work(2)
    transfer = await world.get(upload.transfer.id)
    assert transfer.state is State.QUEUED
    await world.store.delete_objects(transfer.bucket, [names.object_key(transfer.id)])
    after = await run_audit(world.tools, NOW, fix=True)
    assert [(finding.kind, finding.fixable) for finding in after.findings] == [(Kind.BROKEN_TRANSFER, False)]
    assert after.fixed == ()
    assert (await world.get(transfer.id)).state is State.QUEUED


async def test_a_bucket_that_is_gone_is_told_and_forgotten(world: World) -> None:
    transfer = await ended(world)
    world.store.remove_bucket(transfer.bucket)
    after = await run_audit(world.tools, NOW, fix=True)
    assert [(fixed.kind, fixed.name, fixed.user) for fixed in after.fixed] == [(Kind.MISSING_BUCKET, transfer.bucket, "alice")]
    assert after.findings == []
    assert (await begun(world)).transfer.state is State.RECEIVING


async def test_a_row_that_nobody_would_look_at_again_is_woken(world: World) -> None:
    upload = await begun(world)
    async with world.engine.begin() as connection:
        await connection.execute(update(transfers).values(next_check_at=None))
    world.clock.advance(301)
    after = await run_audit(world.tools, NOW, fix=True)
    assert [fixed.kind for fixed in after.fixed] == [Kind.STUCK_TRANSFER]
    assert after.findings == []
    assert world.put_by_client(upload, CONTENT)
    await world.work(2)
    assert (await world.get(upload.transfer.id)).state is State.QUEUED


async def test_a_row_without_a_story_gets_a_line(world: World) -> None:
    transfer = await ended(world)
    async with world.engine.begin() as connection:
        await connection.execute(delete(transfer_history))
    after = await run_audit(world.tools, NOW, fix=True)
    assert [(fixed.kind, fixed.transfer_id) for fixed in after.fixed] == [(Kind.NO_HISTORY, transfer.id)]
    assert after.findings == []
    assert len(await world.transfers.history(transfer.id)) == 1


@pytest.mark.parametrize("away", ["store", "scheduler", "files"])
async def test_what_does_not_answer_is_told_and_the_rest_is_audited(world: World, away: str) -> None:
    transfer = await ended(world)
    for _, plant in PLANTS:
        await plant(world, transfer)
    world.store.failing = away == "store"
    world.scheduler.unavailable = away == "scheduler"
    world.files.unavailable = away == "files"
    found = await look(world)
    assert len(found.unseen) >= 1
    lost = {
        "store": {Kind.OBJECT, Kind.MULTIPART},
        "scheduler": {Kind.JOB},
        "files": {Kind.JOB_DIRECTORY, Kind.TEMPORARY_FILE},
    }[away]
    assert {finding.kind for finding in found.findings} == {kind for kind, _ in PLANTS} - lost


async def test_what_cannot_be_removed_is_told_and_still_there(world: World) -> None:
    transfer = await ended(world)
    await plant_temporary_file(world, transfer)
    await plant_object(world, transfer)
    world.files.entries["/home/alice"].mode = 0o500
    after = await run_audit(world.tools, NOW, fix=True)
    assert [finding.kind for finding in after.findings] == [Kind.TEMPORARY_FILE]
    assert [fixed.kind for fixed in after.fixed] == [Kind.OBJECT]
    assert "may not write" in after.unseen[0][1]


async def test_a_system_that_is_configured_no_more_is_told(world: World) -> None:
    transfer = await ended(world)
    async with world.engine.begin() as connection:
        await connection.execute(update(transfers).where(transfers.c.id == transfer.id).values(system="gone"))
    assert [place for place, _ in (await look(world)).unseen] == ["gone"]


async def test_targets_of_long_ago_are_not_looked_at(world: World) -> None:
    transfer = await ended(world)
    await plant_temporary_file(world, transfer)
    world.clock.advance(timedelta(days=31).total_seconds())
    assert (await look(world)).findings == []
    assert len((await look(world, Scope(days=32, grace_seconds=0))).findings) == 1


async def test_a_target_directory_of_very_many_files_is_asked_for_our_names_only(tmp_path: Path, database_template: Path) -> None:
    settings = world_settings(alps={"limits": {"max_listed_entries": 3}})
    async with open_world(tmp_path, database_template, settings) as world:
        transfer = await ended(world)
        for number in range(9):
            world.files.add_file(f"/home/alice/{number}", "alice", b"")
        await plant_temporary_file(world, transfer)
        assert [finding.kind for finding in (await look(world)).findings] == [Kind.TEMPORARY_FILE]


async def test_jobs_are_asked_for_once_as_the_user_who_may_see_all(tmp_path: Path, database_template: Path) -> None:
    settings = world_settings(alps={"scheduler": {"ask_as": "watcher"}})
    async with open_world(tmp_path, database_template, settings) as world:
        transfer = await ended(world)
        await begin_upload(world.tools, BOB, "alps", "/home/bob/file", 10)
        await plant_job(world, transfer)
        await world.scheduler.submit("mallory", JobRequest(names.job_name(transfer.id), "/s", "/", "/o", "/e", held=True))
        assert [(finding.kind, finding.user) for finding in (await look(world)).findings] == [(Kind.JOB, "alice")]
        assert [user for verb, user, _ in world.scheduler.calls if verb == "list_open_jobs"] == ["watcher"]


async def test_what_an_interrupted_check_left_is_removed_after_an_hour(world: World) -> None:
    transfer = await ended(world)
    left = "check-" + world.tools.new_id()
    await world.store.write_object(transfer.bucket, names.ticket_key(left), b"check")
    world.files.add_directory(f"{WORK}/{left}", "alice")
    assert (await look(world)).findings == []
    world.clock.advance(3601)
    after = await run_audit(world.tools, NOW, fix=True)
    assert {fixed.kind for fixed in after.fixed} == {Kind.OBJECT, Kind.JOB_DIRECTORY}
    assert world.left_outside() == []


async def test_rows_that_are_over_for_long_are_forgotten_with_their_stories(world: World) -> None:
    old = await ended(world)
    world.clock.advance(timedelta(days=89).total_seconds())
    young = await ended(world)
    living = await begun(world, "/home/alice/living")
    assert await forget_ended(world.tools) == 0
    world.clock.advance(timedelta(days=2).total_seconds())
    assert await forget_ended(world.tools) == 1
    assert [row.id for row in await world.all_transfers()] == [young.id, living.transfer.id]
    assert await world.transfers.history(old.id) == []
    assert await world.transfers.history(young.id) != []


async def test_the_worker_forgets_by_itself(world: World) -> None:
    await ended(world)
    world.clock.advance(timedelta(days=91).total_seconds())
    stop = asyncio.Event()
    running = asyncio.create_task(world.worker().run(stop))
    async with asyncio.timeout(10):
        while await world.all_transfers():
            await asyncio.sleep(0.01)
    stop.set()
    await running


async def test_a_report_as_lines_and_as_a_document(world: World) -> None:
    transfer = await ended(world)
    await plant_job_directory(world, transfer)
    await world.store.write_object(transfer.bucket, "a\x1b[31m", b"")
    world.clock.advance(3 * 86400)
    world.scheduler.unavailable = True
    report = await look(world)
    assert list(as_lines(report)) == [
        f"FOUND   job directory {WORK}/{transfer.id} in alps, transfer {transfer.id} of alice, 3 d old: "
        "its transfer has ended (done) and was cleaned",
        "UNSEEN  alps: alice: its jobs: The scheduler does not answer.",
        "FOREIGN stagecoach-alice: 1 objects or uploads whose keys are not ours, the first 'a\\x1b[31m'",
        "0 fixed, 1 found, 1 could not be looked at.",
    ]
    document = json.loads(json.dumps(as_document(report)))
    assert {name: len(entries) for name, entries in document.items()} == {"findings": 1, "unseen": 1, "foreign": 1, "fixed": 0}
    (finding,) = document["findings"]
    assert finding.pop("age_seconds") > 3 * 86400
    assert finding == {
        "kind": "job_directory",
        "place": "alps",
        "name": f"{WORK}/{transfer.id}",
        "transfer_id": transfer.id,
        "user": "alice",
        "why": "its transfer has ended (done) and was cleaned",
        "fixable": True,
    }


async def test_rows_are_kept_for_ever_when_the_settings_say_so(tmp_path: Path, database_template: Path) -> None:
    settings = world_settings(worker={"keep_ended_days": 0})
    async with open_world(tmp_path, database_template, settings) as world:
        await ended(world)
        world.clock.advance(timedelta(days=9999).total_seconds())
        assert await forget_ended(world.tools) == 0


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_transfers_go_through_an_audit_finds_nothing_until_something_is_planted(world: World, seed: int) -> None:
    dice = random.Random(seed)
    world.files.add_file("/home/alice/source", "alice", CONTENT)
    uploads: list[BegunUpload] = []
    downloads: list[BegunDownload] = []

    async def begin() -> None:
        if dice.random() < 0.6:
            uploads.append(await begun(world, f"/home/alice/file-{len(uploads)}"))
        else:
            downloads.append(await begin_download(world.tools, ALICE, "alps", "/home/alice/source"))

    async def put() -> None:
        if uploads:
            world.put_by_client(dice.choice(uploads), CONTENT)

    async def end() -> None:
        if uploads or downloads:
            one = dice.choice([*uploads, *downloads]).transfer
            verb = dice.choice([cancel_transfer, finish_transfer])
            await verb(world.tools, ALICE, one.id)

    async def cluster() -> None:
        world.let_cluster_work()

    async def misfortune() -> None:
        jobs = world.scheduler.open_jobs()
        if jobs:
            bad = [JobPhase.FAILED, JobPhase.TIMEOUT, JobPhase.CANCELLED, JobPhase.NODE_FAIL]
            world.scheduler.set_phase(dice.choice(jobs).job_id, dice.choice(bad))

    async def work() -> None:
        await world.work(dice.randint(1, 3), seconds=dice.choice([1, 5, 30]))

    steps = [begin, put, put, end, cluster, cluster, misfortune, work, work, work]
    states = set()
    for _ in range(40):
        with suppress(StagecoachError):  # A cancel of what has ended, say: refusals are part of life.
            await dice.choice(steps)()
        before = world.left_outside()
        assert await look(world) == Audit([], [], [])
        assert await run_audit(world.tools, NOW, fix=True) == Audit([], [], [])
        assert world.left_outside() == before
        states |= {row.state for row in await world.all_transfers()}
    assert len(states) >= 4

    for _ in range(60):
        await world.work(seconds=40_000)
        world.let_cluster_work()
    over = [row for row in await world.all_transfers() if row.state.is_end and row.cleaned]
    assert len(over) == len(await world.all_transfers())
    assert world.left_outside() == []
    _, plant = dice.choice(PLANTS)
    await plant(world, dice.choice([row for row in over if row.direction.value == "upload"]))
    assert len((await look(world)).findings) == 1
