"""Digests that the client gives: kept, put into the ticket, and compared with the store's parts before anything is completed."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import replace
from typing import Any

import pytest
from tests.fakes.world import ALICE, World

from stagecoach.core import names
from stagecoach.core.errors import Conflict, DigestRefused, PartsDiffer, PartsMissing
from stagecoach.core.transfer import State
from stagecoach.flows.begin_transfer import BegunUpload, begin_download, begin_upload
from stagecoach.flows.finish_transfer import finish_transfer, list_parts
from stagecoach.ports.object_store import StoredObject

PART = 8 * 1024 * 1024
CONTENT = b"a" * PART + b"b" * PART + b"c" * 5
TARGET = "/home/alice/f"


def pieces(content: bytes = CONTENT) -> list[bytes]:
    return [content[start : start + PART] for start in range(0, len(content), PART)] or [b""]


def md5s(content: bytes = CONTENT) -> list[str]:
    return [hashlib.md5(piece).hexdigest() for piece in pieces(content)]


CRC32S = [f"{zlib.crc32(piece):08x}" for piece in pieces()]
CRC32 = f"{zlib.crc32(CONTENT):08x}"


async def begun(world: World, content: bytes = CONTENT, **said: object) -> BegunUpload:
    return await begin_upload(world.tools, ALICE, "alps", TARGET, len(content), **said)  # type: ignore[arg-type]


def put(world: World, upload: BegunUpload, content: bytes = CONTENT) -> None:
    for url, piece in zip(upload.part_urls, pieces(content), strict=True):
        assert world.store.follow("PUT", url, piece)[0] == 200


async def test_what_is_said_at_the_beginning_is_in_the_ticket(world: World) -> None:
    upload = await begun(world, digests={"crc32": CRC32}, part_digests={"md5": md5s()})
    ticket = world.nodes.ticket(upload.transfer.job_directory or "")
    assert ticket is not None
    assert (ticket["digests"], ticket["part_digests"]) == ({"crc32": CRC32}, {"md5": md5s()})


async def test_what_is_said_at_the_end_is_in_the_ticket_that_the_job_gets(world: World) -> None:
    upload = await begun(world, digests={"sha256": "0" * 64})
    directory = upload.transfer.job_directory or ""
    assert "part_digests" not in (world.nodes.ticket(directory) or {})
    put(world, upload)
    said = {"crc32": CRC32S}
    finished = await finish_transfer(world.tools, ALICE, upload.transfer.id, {"crc32": CRC32}, part_digests=said)
    assert finished.state is State.STAGED
    await world.work()
    ticket = world.nodes.ticket(directory)
    assert ticket is not None
    assert ticket["digests"] == {"sha256": "0" * 64, "crc32": CRC32}
    assert ticket["part_digests"] == {"crc32": CRC32S}
    kept = await world.get(upload.transfer.id)
    assert kept.part_digests == {"crc32": tuple(CRC32S)}
    assert kept.state is State.QUEUED


@pytest.mark.parametrize("content", [CONTENT, b"small", b""])
async def test_parts_with_the_right_md5s_are_completed(world: World, content: bytes) -> None:
    upload = await begun(world, content)
    put(world, upload, content)
    for _ in range(2):
        finished = await finish_transfer(world.tools, ALICE, upload.transfer.id, part_digests={"md5": md5s(content)})
        assert finished.state is State.STAGED


async def test_a_part_that_differs_is_named_and_nothing_is_completed(world: World) -> None:
    upload = await begun(world)
    spoilt = CONTENT[:PART] + b"x" + CONTENT[PART + 1 :]
    put(world, upload, spoilt)
    with pytest.raises(PartsDiffer, match="1 of 3") as differ:
        await finish_transfer(world.tools, ALICE, upload.transfer.id, part_digests={"md5": md5s()})
    assert differ.value.data == {"differing": [2], "differing_count": 1}
    assert (await world.get(upload.transfer.id)).state is State.RECEIVING
    assert await world.store.head_object(upload.transfer.bucket, names.object_key(upload.transfer.id)) is None
    assert world.store.follow("PUT", upload.part_urls[1], pieces()[1])[0] == 200
    finished = await finish_transfer(world.tools, ALICE, upload.transfer.id, part_digests={"md5": md5s()})
    assert finished.state is State.STAGED


async def test_a_part_that_differs_from_what_was_said_at_the_beginning_is_among_the_missing(world: World) -> None:
    upload = await begun(world, part_digests={"md5": md5s()})
    put(world, upload, b"x" + CONTENT[1:])
    assert list((await list_parts(world.tools, ALICE, upload.transfer.id)).missing_urls) == [1]
    with pytest.raises(PartsDiffer):
        await finish_transfer(world.tools, ALICE, upload.transfer.id)
    fresh = (await list_parts(world.tools, ALICE, upload.transfer.id)).missing_urls[1]
    assert world.store.follow("PUT", fresh, pieces()[0])[0] == 200
    assert (await finish_transfer(world.tools, ALICE, upload.transfer.id)).state is State.STAGED


async def test_what_is_missing_is_said_before_what_differs(world: World) -> None:
    upload = await begun(world)
    assert world.store.follow("PUT", upload.part_urls[0], b"x" + CONTENT[1:PART])[0] == 200
    with pytest.raises(PartsMissing) as missing:
        await finish_transfer(world.tools, ALICE, upload.transfer.id, part_digests={"md5": md5s()})
    assert missing.value.data["missing"] == [2, 3]


async def test_etags_that_only_look_like_md5s_prove_nothing_against_a_part(world: World) -> None:
    """A store that encrypts with keys of its own: not even the ticket, which we wrote, has its MD5 as ETag."""
    upload = await begun(world)
    put(world, upload, b"x" + CONTENT[1:])
    ticket_key, head = names.ticket_key(upload.transfer.id), world.store.head_object

    async def sealed(bucket: str, key: str) -> StoredObject | None:
        found = await head(bucket, key)
        return replace(found, etag=f'"{"0" * 32}"') if found is not None and key == ticket_key else found

    world.store.head_object = sealed  # type: ignore[method-assign]
    finished = await finish_transfer(world.tools, ALICE, upload.transfer.id, part_digests={"md5": md5s()})
    assert finished.state is State.STAGED


async def test_other_digests_of_parts_are_the_clusters_to_compare(world: World) -> None:
    upload = await begun(world, part_digests={"sha256": ["0" * 64] * 3})
    put(world, upload)
    assert (await finish_transfer(world.tools, ALICE, upload.transfer.id)).state is State.STAGED


async def test_a_wrong_number_of_parts_is_refused_before_anything_is_made(world: World) -> None:
    with pytest.raises(DigestRefused, match="3 parts"):
        await begun(world, part_digests={"md5": ["0" * 32] * 2})
    assert await world.all_transfers() == []
    assert world.left_outside() == []
    upload = await begun(world)
    put(world, upload)
    with pytest.raises(DigestRefused):
        await finish_transfer(world.tools, ALICE, upload.transfer.id, part_digests={"md5": ["0" * 32] * 4})
    assert (await world.get(upload.transfer.id)).state is State.RECEIVING


async def test_digests_of_parts_that_come_too_late_or_change_are_not_dropped_in_silence(world: World) -> None:
    upload = await begun(world, part_digests={"md5": md5s()})
    with pytest.raises(Conflict, match="not the one"):
        await finish_transfer(world.tools, ALICE, upload.transfer.id, part_digests={"md5": ["0" * 32] * 3})
    put(world, upload)
    assert (await finish_transfer(world.tools, ALICE, upload.transfer.id)).state is State.STAGED
    await world.work()
    for said in ({"digests": {"crc32": CRC32}}, {"part_digests": {"crc32": CRC32S}}):
        with pytest.raises(Conflict, match="too late"):
            await finish_transfer(world.tools, ALICE, upload.transfer.id, **said)  # type: ignore[arg-type]
    again = await finish_transfer(world.tools, ALICE, upload.transfer.id, part_digests={"md5": md5s()})
    assert again.state is State.QUEUED


async def test_a_job_that_waits_itself_has_its_ticket_so_digests_come_with_the_request(world: World) -> None:
    upload = await begin_upload(
        world.tools, ALICE, "bora", TARGET, len(CONTENT), "acc", {"crc32": CRC32}, part_digests={"md5": md5s()}
    )
    put(world, upload)
    for said in ({"digests": {"sha256": "0" * 64}}, {"part_digests": {"crc32": CRC32S}}):
        with pytest.raises(Conflict, match="too late"):
            await finish_transfer(world.tools, ALICE, upload.transfer.id, **said)  # type: ignore[arg-type]
    assert (await world.get(upload.transfer.id)).state is State.RECEIVING
    same = {"digests": {"crc32": CRC32}, "part_digests": {"md5": md5s()}}
    finished = await finish_transfer(world.tools, ALICE, upload.transfer.id, **same)  # type: ignore[arg-type]
    assert finished.state is State.STAGED


async def test_a_finished_download_has_nothing_to_compare(world: World) -> None:
    world.files.add_file(TARGET, "alice", b"x")
    transfer = (await begin_download(world.tools, ALICE, "alps", TARGET)).transfer
    for _ in range(4):
        world.let_cluster_work()
        await world.work()
    done = await finish_transfer(world.tools, ALICE, transfer.id, {"crc32": CRC32}, part_digests={"md5": md5s()})
    assert (done.state, done.digests, done.part_digests) == (State.DONE, {}, {})


async def test_lists_of_transfers_leave_the_long_lists_of_digests_out(world: World) -> None:
    upload = await begun(world, part_digests={"md5": md5s()})
    assert (await world.the_transfer()).part_digests == {}
    (found,) = await world.transfers.find_by_job("alps", upload.transfer.job_id or "")
    assert found.part_digests == {}
    await world.work(3)
    assert (await world.get(upload.transfer.id)).part_digests == {"md5": tuple(md5s())}


async def test_what_is_said_at_the_end_holds_although_a_worker_sees_the_whole_object_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await begun(world)
    put(world, upload)
    complete = world.store.complete_multipart

    async def and_a_worker_looks(*arguments: Any) -> None:
        await complete(*arguments)
        await world.work(2)

    monkeypatch.setattr(world.store, "complete_multipart", and_a_worker_looks)
    finished = await finish_transfer(world.tools, ALICE, upload.transfer.id, {"crc32": CRC32}, part_digests={"md5": md5s()})
    assert finished.state is State.QUEUED
    ticket = world.nodes.ticket(upload.transfer.job_directory or "")
    assert ticket is not None
    assert (ticket["digests"], ticket["part_digests"]) == ({"crc32": CRC32}, {"md5": md5s()})
