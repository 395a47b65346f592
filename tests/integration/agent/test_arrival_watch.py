"""A sender that sends more than he may, and a disk that gets full: the folder is closed while he is at it."""

from __future__ import annotations

import asyncio
import http.client
import os
import ssl
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.integration.agent.direct_nodes import HOST, DirectNode, ended, new_key, soon

from stagecoach.agent import arrival_watch
from stagecoach.agent.receiver_folders import has_open_files
from stagecoach.agent.s3_request_signing import signed_headers
from stagecoach.wire.agent import ProgressAnswer

MIB = 2**20


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slack is for disks of terabytes."""
    monkeypatch.setattr(arrival_watch, "_SLACK_BYTES", MIB)


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[DirectNode]:
    node = DirectNode(tmp_path / "b")
    async with node.running():
        yield node


def put_slowly(node: DirectNode, key: dict[str, str], size_bytes: int, *, bytes_per_second: float) -> int | None:
    """One object, as no honest agent sends it: in one piece. The answer's status; None where it was broken off."""
    host = f"{HOST}:{node.endpoint['port']}"
    headers = signed_headers(
        "PUT",
        host,
        "/data/huge",
        access_key_id=key["accessKeyId"],
        secret_access_key=key["secretAccessKey"],
        now=datetime.now(UTC),
    )
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    client = http.client.HTTPSConnection(HOST, node.endpoint["port"], timeout=10, context=trust)
    piece = os.urandom(MIB // 4)
    try:
        client.putrequest("PUT", "/data/huge", skip_host=True)
        for name, value in {**headers, "Content-Length": str(size_bytes)}.items():
            client.putheader(name, value)
        client.endheaders()
        for _ in range(size_bytes // len(piece)):
            client.send(piece)
            time.sleep(len(piece) / bytes_per_second)
        return client.getresponse().status
    except OSError:
        return None
    finally:
        client.close()


def bytes_below(top: Path) -> int:
    return sum(path.stat().st_size for path in top.rglob("*") if path.is_file())


async def test_more_than_may_come_closes_the_key_while_it_comes(receiver: DirectNode) -> None:
    key = new_key()
    receive = receiver.ask_receive("w1", "/data", key, directory=True, max_bytes=2 * MIB)
    receive.bounds = ProgressAnswer(max_bytes=2 * MIB)
    await soon(lambda: receive.starts)
    async with asyncio.timeout(60):
        # Its beginning is removed once; it is held to it when it makes another.
        while not receive.ends:
            assert await asyncio.to_thread(put_slowly, receiver, key, 256 * MIB, bytes_per_second=4 * MIB) is None
    await ended(receive, "size_mismatch")
    assert "2097152 bytes" in receive.ending.message
    # Nothing of it is left to take room, and the key opens nothing any more.
    assert bytes_below(receiver.receive) == 0
    assert await asyncio.to_thread(put_slowly, receiver, key, MIB, bytes_per_second=100 * MIB) != 200
    assert bytes_below(receiver.receive) == 0


async def test_a_bound_that_is_told_later_holds_too_and_others_go_on(tmp_path: Path, receiver: DirectNode) -> None:
    sender = DirectNode(tmp_path / "a", receives=False)
    (sender.send / "large").write_bytes(os.urandom(24 * MIB))
    (sender.send / "honest").mkdir()
    for number in range(24):
        (sender.send / "honest" / str(number)).write_bytes(os.urandom(MIB))
    sender.service.parallel = 2
    async with sender.running():
        keys = {name: new_key() for name in ("w2", "w3")}
        lies = receiver.ask_receive("w2", "/large", keys["w2"], directory=False, max_bytes=None)
        honest = receiver.ask_receive("w3", "/honest", keys["w3"], directory=True, max_bytes=24 * MIB)
        lies.bounds = ProgressAnswer(max_bytes=4 * MIB)
        await soon(lambda: lies.starts and honest.starts)
        slowly, rate = ({"rateLimitBytesPerSecond": speed * MIB} for speed in (1, 4))
        sender.ask_send("w2", "/large", receiver.endpoint, keys["w2"], directory=False, **slowly)
        sent = sender.ask_send("w3", "/honest", receiver.endpoint, keys["w3"], directory=True, **rate)
        await ended(lies, "size_mismatch")
        assert lies.progress
        assert max(report.bytes_done for report in lies.progress) < 24 * MIB
        result = await ended(sent, seconds=120)
        assert (result["verified"], result["files"]) == (True, 24)
        assert not honest.ends


async def test_a_disk_with_hardly_any_room_is_not_filled(tmp_path: Path) -> None:
    space = os.statvfs(tmp_path)
    node = DirectNode(tmp_path / "b", least_free_bytes=space.f_bavail * space.f_frsize + 2**40)
    async with node.running():
        receive = node.ask_receive("w4", "/data", new_key(), directory=False)
        await ended(receive, "receiver_full")
        assert "stay free" in receive.ending.message
        assert not receive.starts
        await soon(lambda: any("was full" in words for poll in node.service.polls for words in poll.health))


async def test_whoever_is_in_when_his_key_is_closed_does_not_go_on_where_nobody_measures(receiver: DirectNode) -> None:
    keys = {name: new_key() for name in ("w5", "w6")}
    mine = receiver.ask_receive("w5", "/mine", keys["w5"], directory=True)
    others = receiver.ask_receive("w6", "/others", keys["w6"], directory=True)
    await soon(lambda: mine.starts and others.starts)
    putting = asyncio.create_task(asyncio.to_thread(put_slowly, receiver, keys["w5"], 256 * MIB, bytes_per_second=4 * MIB))
    await soon(lambda: bytes_below(receiver.receive) > MIB)
    mine.cancel_asked = True
    await soon(lambda: mine.ends)
    pid = receiver.agent.direct.receiving.pid
    assert pid is not None
    assert not has_open_files(pid, receiver.receive)
    async with asyncio.timeout(20):
        assert await putting is None, "it was broken off"
    assert not others.ends
