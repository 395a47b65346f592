"""Files and trees go from a client to a node and from a node to a client, byte for byte, as plain files of its owner."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from tests.e2e.nodes.node import Node
from tests.e2e.test_directories import require_owner
from tests.e2e.test_round_trip import NAMES
from tests.e2e.testbed import Testbed
from tests.trees import listing, make_tree, require_equal

from stagecoach.client import Client

MIB = 1024 * 1024
SIZES = [0, 1, 50 * MIB, 300 * MIB]


@pytest.mark.parametrize("size", SIZES)
def test_a_file_arrives_at_a_node(bobs: Node, size: int) -> None:
    content = os.urandom(size)
    target = bobs.receive / f"arrived-{size}.bin"
    target.unlink(missing_ok=True)
    transfer = bobs.wait(bobs.put(bobs.begin_upload(f"/{target.name}", size), content))
    assert transfer["state"] == "done", transfer
    assert {"how": "size", "value": str(size)} in transfer["proved"]
    assert target.is_file()
    assert not target.is_symlink()
    assert target.read_bytes() == content
    assert target.stat().st_uid == bobs.owner.uid
    bobs.wait_until_nothing_is_left(transfer)
    target.unlink()


@pytest.mark.parametrize("size", SIZES)
def test_a_file_comes_from_a_node(alices: Node, size: int) -> None:
    content = os.urandom(size)
    source = alices.offer(f"offered-{size}.bin", content)
    assert alices.fetch_staged(alices.begin_download(f"/{source.name}")) == content
    assert source.read_bytes() == content
    source.unlink()


def test_a_new_file_replaces_the_old_one_in_a_folder(bobs: Node) -> None:
    folder = bobs.receive / "run 1"
    folder.mkdir(exist_ok=True)
    os.chown(folder, bobs.owner.uid, bobs.owner.uid)
    for content in (b"the first", os.urandom(MIB)):
        transfer = bobs.wait(bobs.put(bobs.begin_upload("/run 1/data.bin", len(content)), content))
        assert transfer["state"] == "done", transfer
        assert (folder / "data.bin").read_bytes() == content
    assert os.listdir(folder) == ["data.bin"]
    shutil.rmtree(folder)


def test_odd_names_are_carried_exactly(alices: Node) -> None:
    alices.set_parallel(4)
    contents = {name: os.urandom(10_000 + len(name)) for name in NAMES}
    ids = {name: alices.put(alices.begin_upload(f"/{name}", len(content)), content) for name, content in contents.items()}
    for name, transfer_id in ids.items():
        transfer = alices.wait(transfer_id)
        assert transfer["state"] == "done", transfer
        assert name in os.listdir(alices.receive)
        assert (alices.receive / name).read_bytes() == contents[name]
        (alices.receive / name).rename(alices.send / name)
    begun = {name: alices.begin_download(f"/{name}") for name in NAMES}
    for name in NAMES:
        assert alices.fetch_staged(begun[name]) == contents[name]
        (alices.send / name).unlink()
    assert "pwned" not in {path.name for path in alices.send.parent.rglob("*")}


def test_a_tree_goes_to_a_node_and_comes_from_one(testbed: Testbed, alices: Node, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", 300)
    (tmp_path / "tree" / "large").write_bytes(os.urandom(20 * MIB + 77))
    for old in (alices.receive / "tree", alices.send / "tree"):
        shutil.rmtree(old, ignore_errors=True)

    async def there() -> str:
        async with Client(testbed.url, testbed.environment["ALICE_TOKEN"], state_directory=tmp_path / "state") as client:
            return str((await client.upload(alices.system, tmp_path / "tree", "/tree")).state)

    async def back() -> str:
        async with Client(testbed.url, testbed.environment["ALICE_TOKEN"], state_directory=tmp_path / "state") as client:
            return str((await client.download(alices.system, "/tree", tmp_path / "back", archive=True)).state)

    assert asyncio.run(there()) == "done"
    assert len(listing(tmp_path / "tree")) > 300
    require_equal(tmp_path / "tree", alices.receive / "tree")
    require_owner(alices.receive / "tree", alices.owner)
    (alices.receive / "tree").rename(alices.send / "tree")
    assert asyncio.run(back()) == "done"
    require_equal(tmp_path / "tree", tmp_path / "back")
    shutil.rmtree(alices.send / "tree")
