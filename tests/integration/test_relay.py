"""From one place to another through the staging area, with the real mover and the bundled store: ``stagecoach up`` alone."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.firecrest_place import Place, stagecoach_up
from tests.trees import make_tree, require_equal

from stagecoach.client import ServiceError, TransferFailed
from stagecoach.client.sync import Client
from stagecoach.wire.transfers import TransferDetail

SIZE = 20 * 1000 * 1000 + 7


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], Path]]:
    with stagecoach_up(tmp_path_factory.mktemp("up")) as started:
        yield started


@pytest.fixture
def place(up: tuple[dict[str, str], Path]) -> Place:
    said, root = up
    top = root / secrets.token_hex(6)
    top.mkdir()
    return Place(said["url"], said["token"], said["system"], top)


@pytest.fixture
def client(place: Place) -> Iterator[Client]:
    with Client(place.url, place.token) as opened:
        yield opened


@pytest.mark.parametrize("size_bytes", [0, 1, SIZE])
def test_a_file_arrives_byte_by_byte(place: Place, client: Client, size_bytes: int) -> None:
    content = os.urandom(size_bytes)
    source, target = place.top / "source.bin", place.top / "two words.bin"
    source.write_bytes(content)
    target.write_bytes(b"old")
    looks: list[TransferDetail] = []
    done = client.send(f"{place.system}:{source}", f"{place.system}:{target}", on_look=looks.append)
    assert (done.state, done.size_bytes, done.bytes_staged, done.bytes_moved) == ("done", size_bytes, size_bytes, size_bytes)
    assert target.read_bytes() == content == source.read_bytes()
    assert {"size"} < {proof.how for proof in done.proved}
    assert [leg.leg for leg in done.legs] == ["source", "destination"]
    assert {proof.how for proof in done.legs[0].proved} & {"part_md5", "multipart_etag", "md5"}
    assert not list(place.top.glob(".stagecoach*"))
    assert place.last_transfer()["id"] == done.id


def test_a_directory_arrives_whole(place: Place, client: Client) -> None:
    tree = place.top / "tree"
    make_tree(tree, 60)
    done = client.send(f"{place.system}:{tree}", f"{place.system}:{place.top}/new", archive=True)
    assert done.state == "done"
    require_equal(tree, place.top / "new")
    with pytest.raises(ServiceError) as refused:
        client.send(f"{place.system}:{tree}", f"{place.system}:{place.top}/new", archive=True)
    assert refused.value.code == "target_exists"


def test_a_cancel_leaves_the_old_target(place: Place, client: Client) -> None:
    source, target = place.top / "source.bin", place.top / "target.bin"
    source.write_bytes(os.urandom(SIZE))
    target.write_bytes(b"old")
    ended: list[str] = []

    def cancel(transfer_id: str) -> None:
        ended.append(place.ask("DELETE", f"/transfers/{transfer_id}")["state"])

    with pytest.raises(TransferFailed):
        client.send(f"{place.system}:{source}", f"{place.system}:{target}", on_begun=cancel)
    assert ended[0] in {"cancelled", "cancelling"}
    assert target.read_bytes() == b"old"
    assert not list(place.top.glob(".stagecoach*"))
    legs = place.ask("GET", f"/transfers/{place.last_transfer()['id']}")["legs"]
    assert [leg["state"] for leg in legs] == ["cancelled", "cancelled"]
