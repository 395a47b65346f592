"""A directory up and down as one archive: measured by the job, believed only where job and store agree, cleaned whole."""

from __future__ import annotations

import json

import pytest
from tests.fakes.systems import IN_ARCHIVE
from tests.fakes.world import ALICE, World

from stagecoach.core import names
from stagecoach.core.errors import NotAFile, TargetExists
from stagecoach.core.transfer import Archive, State, Transfer
from stagecoach.flows import cancel_transfer as cancelling
from stagecoach.flows.begin_transfer import BegunUpload, begin_download, begin_upload
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.finish_transfer import finish_transfer
from stagecoach.ports.files import FileKind
from stagecoach.ports.scheduler import JobPhase

STREAM = bytes(range(256)) * 40
TARGET = "/home/alice/two words"
PART = 8 * 1024 * 1024


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "LOOK_SECONDS", 0)


async def begun_upload(world: World) -> BegunUpload:
    return await begin_upload(world.tools, ALICE, "alps", TARGET, len(STREAM), archive=Archive.TAR)


async def moving_upload(world: World) -> Transfer:
    """With a hidden tree half made, some of it closed."""
    begun = await begun_upload(world)
    assert world.put_by_client(begun, STREAM)
    await world.work(2)
    world.nodes.start_pending()
    await world.work()
    hidden = f"/home/alice/{names.temporary_name(begun.transfer.id)}"
    world.files.add_directory(hidden, "alice", 0o700)
    world.files.add_directory(f"{hidden}/closed", "alice", 0o500)
    world.files.add_file(f"{hidden}/closed/f", "alice", b"half", 0o400)
    transfer = await world.the_transfer()
    assert transfer.state is State.MOVING
    return transfer


async def begun_download(world: World, stream: bytes = STREAM) -> Transfer:
    world.files.add_directory(TARGET, "alice")
    world.files.add_file(f"{TARGET}/{IN_ARCHIVE}", "alice", stream)
    return (await begin_download(world.tools, ALICE, "alps", TARGET, archive=Archive.TAR)).transfer


async def let_all_work(world: World, rounds: int = 6) -> Transfer:
    for _ in range(rounds):
        world.let_cluster_work()
        await world.work(seconds=20)
    return await world.the_transfer()


def ticket(world: World, transfer: Transfer) -> dict[str, object]:
    found = world.nodes.ticket(transfer.job_directory or "")
    assert found is not None
    return found


async def told(world: World, transfer: Transfer, name: str, **content: object) -> None:
    """The job's word, as progress or receipt."""
    key = {"progress": names.progress_key, "receipt": names.receipt_key}[name](transfer.id)
    document = {"version": 1, "transfer_id": transfer.id, **content}
    await world.store.write_object(transfer.bucket, key, json.dumps(document).encode())


async def test_a_directory_goes_up(world: World) -> None:
    begun = await begun_upload(world)
    assert (ticket(world, begun.transfer)["archive"], ticket(world, begun.transfer)["size_bytes"]) == ("tar", len(STREAM))
    assert world.put_by_client(begun, STREAM)
    transfer = await let_all_work(world)
    assert (transfer.state, transfer.size_bytes, transfer.bytes_moved) == (State.DONE, len(STREAM), len(STREAM))
    assert world.files.entries[f"{TARGET}/{IN_ARCHIVE}"].content == STREAM
    assert any("directory is at its place" in line.message for line in await world.transfers.history(transfer.id))
    assert world.left_outside() == []


async def test_an_empty_directory_may_be_there(world: World) -> None:
    world.files.add_directory(TARGET, "alice")
    assert world.put_by_client(await begun_upload(world), STREAM)
    assert (await let_all_work(world)).state is State.DONE


async def test_what_came_to_be_there_meanwhile_stays(world: World) -> None:
    begun = await begun_upload(world)
    world.files.add_directory(TARGET, "alice")
    world.files.add_file(f"{TARGET}/precious", "alice", b"x")
    assert world.put_by_client(begun, STREAM)
    assert (await let_all_work(world)).state is State.FAILED
    assert world.files.below(TARGET) == {f"{TARGET}/precious"}
    assert world.left_outside() == []


async def test_a_directory_goes_down_and_its_size_is_known_when_it_is_measured(world: World) -> None:
    transfer = await begun_download(world)
    assert (transfer.size_bytes, transfer.archive) == (None, Archive.TAR)
    given = ticket(world, transfer)
    assert (given["size_bytes"], given["part_size_bytes"], given["limit_bytes"]) == (None, PART, 5 * 1024**4)
    assert len(given["upload"]["part_urls"]) == 10_000  # type: ignore[index]
    world.nodes.start_pending()
    await told(world, transfer, "progress", bytes_done=0, size_bytes=None, phase="measuring")
    await world.work()
    transfer = await world.the_transfer()
    assert (transfer.state, transfer.size_bytes) == (State.MOVING, None)
    await told(world, transfer, "progress", bytes_done=512, size_bytes=len(STREAM), phase="moving")
    await world.work()
    transfer = await world.the_transfer()
    assert (transfer.size_bytes, transfer.bytes_moved, transfer.plan.part_count) == (len(STREAM), 512, 1)
    transfer = await let_all_work(world)
    assert (transfer.state, transfer.size_bytes, transfer.bytes_staged) == (State.STAGED, len(STREAM), len(STREAM))
    await finish_transfer(world.tools, ALICE, transfer.id)
    assert (await let_all_work(world)).cleaned
    assert world.left_outside() == []


async def test_the_offer_stays_what_it_was_while_the_job_waits(world: World) -> None:
    transfer = await begun_download(world)
    before = ticket(world, transfer)
    await world.work(2, seconds=3 * 24 * 3600)
    after = ticket(world, await world.the_transfer())
    assert before["upload"]["part_urls"][0] != after["upload"]["part_urls"][0]  # type: ignore[index]
    assert len(after["upload"]["part_urls"]) == 10_000  # type: ignore[index]
    for document in (before, after):
        for key in ("upload", "progress_url", "receipt_url"):
            del document[key]
    assert before == after


@pytest.mark.parametrize("staged", [STREAM[:-1], STREAM + b"x", None])
async def test_job_and_store_must_agree(world: World, staged: bytes | None) -> None:
    transfer = await begun_download(world)
    if staged is not None:
        world.put_object(transfer, staged)
    await told(world, transfer, "receipt", ok=True, size_bytes=len(STREAM), message="Whole.")
    world.scheduler.set_phase(transfer.job_id or "", JobPhase.COMPLETED)
    await world.work(3, seconds=20)
    transfer = await world.the_transfer()
    assert (transfer.state, transfer.code) == (State.FAILED, "object_missing")
    assert world.left_outside() == []


async def test_a_job_that_measured_again_is_believed(world: World) -> None:
    transfer = await begun_download(world)
    world.nodes.start_pending()
    await told(world, transfer, "progress", bytes_done=0, size_bytes=512)
    await world.work()
    assert (await world.the_transfer()).size_bytes == 512
    transfer = await let_all_work(world)
    assert (transfer.state, transfer.size_bytes) == (State.STAGED, len(STREAM))


async def test_a_file_and_a_directory_are_not_taken_for_each_other(world: World) -> None:
    world.files.add_directory(TARGET, "alice")
    with pytest.raises(NotAFile, match="archive"):
        await begin_download(world.tools, ALICE, "alps", TARGET)
    world.files.add_file(f"{TARGET}/x", "alice", b"x")
    with pytest.raises(TargetExists):
        await begun_upload(world)
    assert world.left_outside() == []


async def test_a_cancel_takes_the_hidden_tree(world: World) -> None:
    transfer = await moving_upload(world)
    assert any("/closed/f" in path for path in world.left_outside())
    assert (await cancel_transfer(world.tools, ALICE, transfer.id)).state is State.CANCELLED
    assert world.left_outside() == []
    assert TARGET not in world.files.entries


async def test_a_failure_takes_the_hidden_tree(world: World) -> None:
    transfer = await moving_upload(world)
    await told(world, transfer, "receipt", ok=False, code="archive_unsafe", message="A member would leave.", size_bytes=0)
    world.scheduler.set_phase(transfer.job_id or "", JobPhase.FAILED)
    await world.work(3, seconds=20)
    transfer = await world.the_transfer()
    assert (transfer.state, transfer.code, transfer.cleaned) == (State.FAILED, "archive_unsafe", True)
    assert world.left_outside() == []


async def test_a_lower_limit_offers_fewer_parts(world: World) -> None:
    world.files.add_directory(TARGET, "alice")
    (alps, *_) = world.settings.systems
    limits = alps.limits.model_copy(update={"max_file_size_bytes": 3 * PART + 1})
    object.__setattr__(alps, "limits", limits)
    given = ticket(world, (await begin_download(world.tools, ALICE, "alps", TARGET, archive=Archive.TAR)).transfer)
    assert given["limit_bytes"] == 3 * PART + 1
    assert len(given["upload"]["part_urls"]) == 4  # type: ignore[index]
    assert world.files.entries[TARGET].kind is FileKind.DIRECTORY
