"""A directory up and down through the client: whole, interrupted and resumed, refused, given up."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from tests.trees import make_tree, require_equal
from tests.unit.client.fake_service import ID, FakeService, Patience
from tests.unit.client.test_moving import another_process, journals, stopped
from tests.unit.mover.faulty_store import PART, hidden_files, multipart_etag, part_crc32

from stagecoach.client import Client, TransferFailed
from stagecoach.client.journal import Journal, state_home
from stagecoach.client.sync import Client as SyncClient
from stagecoach.wire.transfers import TransferDetail

LARGE_PARTS = 10


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make_tree(tmp_path / "tree", 60)
    (tmp_path / "tree" / "large").write_bytes(os.urandom(LARGE_PARTS * PART))
    return tmp_path / "tree"


async def staged(client: Client, service: FakeService, tree: Path) -> None:
    """The tree's archive is what a download finds."""
    await client.upload("alps", tree, "/scratch/tree")
    service.store.parts.clear()
    service.store.completed = False
    service.names_directory, service.asked = True, []


async def test_a_directory_arrives_as_a_tar_stream(client: Client, service: FakeService, tree: Path) -> None:
    looks: list[TransferDetail] = []
    done = await client.upload("alps", tree, "/scratch/tree", on_look=looks.append)
    assert (done.state, done.archive) == ("done", "tar")
    assert looks[0].size_bytes == len(service.store.objects["object"])
    with tarfile.open(fileobj=io.BytesIO(service.store.objects["object"])) as archive:
        names = {member.name for member in archive}
    inside = {os.path.relpath(os.path.join(top, name), tree) for top, d, f in os.walk(tree) for name in [*d, *f]}
    assert names == inside | {"."}
    assert journals() == []


async def test_a_directory_comes_back_equal(client: Client, service: FakeService, tree: Path, tmp_path: Path) -> None:
    await staged(client, service, tree)
    done = await client.download("alps", "/scratch/tree", tmp_path / "back", archive=True)
    assert done.state == "done"
    require_equal(tree, tmp_path / "back")
    (tmp_path / "empty").mkdir()
    service.state = "staged"
    await client.download("alps", "/scratch/tree", tmp_path / "empty", archive=True)
    require_equal(tree, tmp_path / "empty")
    assert hidden_files(tmp_path) == []
    assert journals() == []


async def test_a_link_to_a_directory_sends_the_directory(
    client: Client, service: FakeService, tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("tree")
    await client.upload("alps", tmp_path / "link", "/scratch/tree")
    through_link = service.store.objects["object"]
    service.state = "receiving"
    service.store.parts.clear()
    service.store.completed = False
    await client.upload("alps", tree, "/scratch/tree")
    assert service.store.objects["object"] == through_link


@pytest.mark.parametrize("lost", ["nothing", "the mover's journal", "everything"])
async def test_an_interrupted_directory_is_resumed_by_another_process(
    client: Client, service: FakeService, patience: Patience, tree: Path, lost: str
) -> None:
    await stopped(client.upload("alps", tree, "/scratch/tree"), service, "PUT")
    stored = set(service.store.parts)
    assert 1 <= len(stored) < LARGE_PARTS
    if lost == "the mover's journal":
        (state_home() / ID / "journal.json").unlink()
    if lost == "everything":
        Journal(state_home(), ID).remove()
    before = {number: service.store.count("PUT", part=number) for number in stored}
    done = await another_process(service, patience).resume(ID, tree if lost == "everything" else None)
    assert done.client_leg is not None
    assert done.client_leg.bytes_resumed == sum(len(service.store.parts[number]) for number in stored)
    assert {number: service.store.count("PUT", part=number) for number in stored} == before
    with tarfile.open(fileobj=io.BytesIO(service.store.objects["object"])) as archive:
        assert len(archive.getmembers()) > 60
    assert journals() == []


@pytest.mark.parametrize("loses_journal", [False, True])
async def test_a_directory_that_changed_since_is_refused(
    client: Client, service: FakeService, patience: Patience, tree: Path, loses_journal: bool
) -> None:
    await stopped(client.upload("alps", tree, "/scratch/tree"), service, "PUT")
    if loses_journal:
        (state_home() / ID / "journal.json").unlink()
    os.utime(tree / "large", (1, 1))
    with pytest.raises(TransferFailed) as caught:
        await another_process(service, patience).resume(ID)
    assert caught.value.code == "source_changed"
    assert f"transfers cancel {ID}" in (caught.value.next_step or "")
    assert "object" not in service.store.objects
    shutil.rmtree(tree)
    with pytest.raises(TransferFailed) as caught:
        await another_process(service, patience).resume(ID)
    assert caught.value.code == "source_missing"
    assert f"transfers cancel {ID}" in (caught.value.next_step or "")


async def test_another_directory_is_not_taken_for_it(
    client: Client, service: FakeService, patience: Patience, tmp_path: Path
) -> None:
    tree, content = tmp_path / "tree", bytes(LARGE_PARTS * PART)
    tree.mkdir()
    (tree / "large").write_bytes(content)
    await stopped(client.upload("alps", tree, "/scratch/tree"), service, "PUT")
    Journal(state_home(), ID).remove()
    status = (tree / "large").stat()
    (tree / "large").write_bytes(b"x" * len(content))
    os.utime(tree / "large", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(TransferFailed, match="not of this directory") as caught:
        await another_process(service, patience).resume(ID, tree)
    assert caught.value.code == "source_changed"
    service.archive = None
    with pytest.raises(TransferFailed, match="begun with a file"):
        await another_process(service, patience).resume(ID, tree)


async def test_a_completion_whose_answer_was_lost(client: Client, service: FakeService, tree: Path) -> None:
    service.takes_digests = False
    service.store.fail("POST", "lost_answer")
    assert (await client.upload("alps", tree, "/scratch/tree")).state == "done"
    assert service.finished_with == {"etag": multipart_etag(service.store.objects["object"], PART)}


async def test_the_service_completes_and_knows_the_digests_before(client: Client, service: FakeService, tree: Path) -> None:
    assert (await client.upload("alps", tree, "/scratch/tree")).state == "done"
    digests = {"algorithm": "crc32", "values": part_crc32(service.store.objects["object"], PART)}
    assert service.finished_with == {"etag": None, "partDigests": digests}
    assert service.store.count("POST") == 0


async def test_an_interrupted_download_is_resumed_or_given_up(
    client: Client, service: FakeService, patience: Patience, tree: Path, tmp_path: Path
) -> None:
    await staged(client, service, tree)
    target = tmp_path / "back"
    await stopped(client.download("alps", "/scratch/tree", target, archive=True), service, "GET")
    assert not target.exists()
    assert hidden_files(tmp_path)
    assert (await another_process(service, patience).resume(ID)).state == "done"
    require_equal(tree, target)
    assert hidden_files(tmp_path) == []
    service.state = "staged"
    await stopped(client.download("alps", "/scratch/tree", tmp_path / "again", archive=True), service, "GET")
    (hidden,) = [tmp_path / name for name in hidden_files(tmp_path)]
    (hidden / "closed" / "inner").mkdir(parents=True)
    (hidden / "closed").chmod(0o500)
    await client.cancel(ID)
    assert hidden_files(tmp_path) == []
    assert journals() == []


async def test_what_stands_in_the_way_is_refused_before_anything_is_begun(
    client: Client, service: FakeService, tmp_path: Path
) -> None:
    (tmp_path / "full" / "x").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("full", "file", "link"):
        with pytest.raises(TransferFailed) as caught:
            await client.download("alps", "/scratch/tree", tmp_path / name, archive=True)
        assert caught.value.code == "target_exists"
    with pytest.raises(TransferFailed, match="no directory"):
        await client.download("alps", "/scratch/tree", tmp_path / "no" / "where", archive=True)
    os.mkfifo(tmp_path / "full" / "fifo")
    with pytest.raises(TransferFailed) as caught:
        await client.upload("alps", tmp_path / "full", "/scratch/tree")
    assert caught.value.code == "source_special_file"
    assert "fifo" in caught.value.message
    assert service.asked == []


def test_the_synchronous_skin_does_the_same(service: FakeService, tree: Path, tmp_path: Path) -> None:
    from tests.unit.client.fake_service import TOKEN, URL

    with SyncClient(URL, TOKEN, transport=service.transport()) as client:
        assert client.upload("alps", tree, "/scratch/tree").state == "done"
        service.names_directory = True
        assert client.download("alps", "/scratch/tree", tmp_path / "back", archive=True).state == "done"
    require_equal(tree, tmp_path / "back")
