"""Files and trees from one agent to another, as the two commands of a service have it, and what may go wrong on the way."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.node_service import QueuedCommand
from tests.integration.agent.direct_nodes import DirectNode, ended, free_port, new_key, soon
from tests.trees import make_tree

from stagecoach.wire.agent import ProgressAnswer

MIB = 2**20


class Pair:
    """From a to b."""

    def __init__(self, a: DirectNode, b: DirectNode) -> None:
        self.a, self.b = a, b

    async def begin(
        self, transfer_id: str, source: str, target: str, *, directory: bool, number: int = 1, **more: Any
    ) -> tuple[QueuedCommand, QueuedCommand]:
        """Both commands; the sender's when the receiver's runs."""
        key = new_key()
        receive = self.b.ask_receive(transfer_id, target, key, directory=directory, number=number)
        await soon(lambda: receive.starts or receive.ends)
        assert not receive.ends, receive.ending
        more = {"endpoint": self.b.endpoint, **more}
        send = self.a.ask_send(transfer_id, source, more.pop("endpoint"), key, directory=directory, number=number, **more)
        return receive, send

    async def finish(
        self, transfer_id: str, target: str, receive: QueuedCommand, sent: dict[str, Any], *, directory: bool
    ) -> None:
        """As the service does when the sender has ended well."""
        receive.cancel_asked = True
        await ended(receive, "cancelled")
        place = self.b.ask_place(transfer_id, target, sent, directory=directory)
        assert await ended(place) == {"sizeBytes": sent["sizeBytes"], "files": sent["files"]}


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    a, b = DirectNode(tmp_path / "a", receives=False), DirectNode(tmp_path / "b")
    async with a.running(), b.running():
        yield Pair(a, b)


async def test_agents_say_what_they_can(pair: Pair) -> None:
    assert pair.a.service.polls[-1].receiver is None
    assert set(pair.a.service.polls[-1].kinds) == {
        *("move", "discard", "check_network", "send", "send_to_store", "place", "join_parts")
    }
    assert "receive" in pair.b.service.polls[-1].kinds
    assert pair.b.endpoint["port"] == pair.b.address.port  # type: ignore[union-attr]
    assert not pair.b.service.polls[-1].health


async def test_a_file_arrives_whole_and_replaces_the_old_one_at_once(pair: Pair) -> None:
    content = os.urandom(40 * MIB + 7)
    (pair.a.send / "what [1].bin").write_bytes(content)
    target = pair.b.receive / "run 1" / "data.bin"
    target.parent.mkdir()
    target.write_bytes(b"old")
    target.chmod(0o640)
    receive, send = await pair.begin("t1", "/what [1].bin", "/run 1/data.bin", directory=False)
    result = await ended(send)
    assert (result["sizeBytes"], result["files"], result["verified"], result["comparedFiles"]) == (len(content), 1, True, 1)
    assert result["check"]["reachable"]
    assert result["rates"][-1][1] == len(content)
    assert target.read_bytes() == b"old"
    await pair.finish("t1", "/run 1/data.bin", receive, result, directory=False)
    assert target.read_bytes() == content
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(target.parent) == ["data.bin"]
    assert send.progress[0].bytes_total == len(content)
    assert sum(report.check is not None for report in send.progress) == 1
    assert send.starts


async def test_a_tree_arrives_and_a_second_attempt_sends_what_is_missing(pair: Pair) -> None:
    plain_tree(pair.a.send / "tree", 300)
    (pair.a.send / "tree" / "large").write_bytes(os.urandom(30 * MIB))
    rate = {"rateLimitBytesPerSecond": 6 * MIB}
    receive, send = await pair.begin("t2", "/tree", "/deep/er/tree", directory=True, **rate)
    await soon(lambda: len([path for path in pair.b.receive.rglob("*") if path.is_file()]) > 50)
    send.cancel_asked = True
    receive.cancel_asked = True
    await ended(send, "cancelled")
    await ended(receive, "cancelled")
    [folder] = pair.b.folders
    kept = {path.relative_to(folder): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}
    assert kept
    receive, send = await pair.begin("t2", "/tree", "/deep/er/tree", directory=True, number=2)
    result = await ended(send)
    assert {path.relative_to(folder): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}.items() >= kept.items()
    await pair.finish("t2", "/deep/er/tree", receive, result, directory=True)
    assert pair.b.folders == []
    arrived = {str(path.relative_to(pair.b.receive / "deep/er/tree")): path.read_bytes() for path in files(pair.b.receive)}
    assert arrived == {str(path.relative_to(pair.a.send / "tree")): path.read_bytes() for path in files(pair.a.send)}
    assert any("executed" in notice for notice in result["notices"])


async def test_a_rate_is_changed_while_it_goes_and_what_arrived_is_not_sent_again(pair: Pair) -> None:
    (pair.a.send / "tree").mkdir()
    for number in range(24):
        (pair.a.send / "tree" / str(number)).write_bytes(os.urandom(MIB))
    receive, send = await pair.begin("t16", "/tree", "/tree", directory=True, rateLimitBytesPerSecond=MIB)
    await soon(lambda: len([path for path in files(pair.b.receive) if path.name.isdigit()]) >= 2)
    [folder] = pair.b.folders
    kept = {path: path.stat().st_ino for path in files(folder) if path.name.isdigit()}
    send.bounds = ProgressAnswer(rate_limit_bytes_per_second=64 * MIB)
    began = time.monotonic()
    result = await ended(send)
    assert time.monotonic() - began < 20, "at the first rate it would have taken 22 s and more"
    assert (result["files"], result["verified"]) == (24, True)
    assert {path: path.stat().st_ino for path in files(folder)}.items() >= kept.items()
    done = [report.bytes_done for report in send.progress]
    assert done == sorted(done), "what has arrived counts on"
    await pair.finish("t16", "/tree", receive, result, directory=True)


async def test_names_that_would_not_arrive_as_they_are_are_refused_before_anything_is_sent(pair: Pair) -> None:
    make_tree(pair.a.send / "tree", 100)
    _, send = await pair.begin("t15", "/tree", "/tree", directory=True)
    await ended(send, "direct_unfit")
    [folder] = pair.b.folders
    assert files(folder) == []


def plain_tree(top: Path, count: int) -> None:
    """Without names that the direct road refuses."""
    odd = [
        "with a space",
        "quo'\"te`s",
        "$(touch x)",
        "é-ü-漢字",
        "-leading",
        "*?[glob]{a,b}",
        "back\\slash",
        "a／b",
        "x" * 255,
        "100%2F",
    ]
    for number in range(count):
        directory = top / f"{number % 7} d" / f"{number % 3}"
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / (odd[number % 10] if number % 11 == 0 else f"file {number}")
        path.write_bytes(os.urandom(number * 7))
        path.chmod(0o755 if number % 5 == 0 else 0o644)


def files(top: Path) -> list[Path]:
    return [path for path in top.rglob("*") if path.is_file() and not path.is_symlink()]


async def test_a_new_agent_opens_the_same_key_and_goes_on(tmp_path: Path) -> None:
    a, b = DirectNode(tmp_path / "a", receives=False), DirectNode(tmp_path / "b")
    (a.send / "tree").mkdir()
    for number in range(40):
        (a.send / "tree" / str(number)).write_bytes(os.urandom(MIB))
    pair = Pair(a, b)
    async with a.running():
        async with b.running():
            receive, send = await pair.begin("t3", "/tree", "/tree", directory=True, rateLimitBytesPerSecond=8 * MIB)
            await soon(lambda: len(files(b.receive)) > 5)
        assert not receive.ends
        async with b.running():
            result = await ended(send)
            assert not receive.ends
            await pair.finish("t3", "/tree", receive, result, directory=True)
    assert len(files(b.receive / "tree")) == 40
    assert list((b.state.path / "secrets").iterdir()) == []


async def test_a_sender_that_is_started_again_sends_on(tmp_path: Path) -> None:
    a, b = DirectNode(tmp_path / "a", receives=False), DirectNode(tmp_path / "b")
    (a.send / "tree").mkdir()
    for number in range(40):
        (a.send / "tree" / str(number)).write_bytes(os.urandom(MIB))
    pair = Pair(a, b)
    async with b.running():
        async with a.running():
            receive, send = await pair.begin("t4", "/tree", "/tree", directory=True, rateLimitBytesPerSecond=8 * MIB)
            await soon(lambda: len(files(b.receive)) > 5)
        assert not send.ends
        async with a.running():
            result = await ended(send)
        await pair.finish("t4", "/tree", receive, result, directory=True)
    assert len(files(b.receive / "tree")) == 40


@pytest.mark.parametrize("victim", ["rclone", "receiver"])
async def test_a_killed_rclone_on_either_side_is_no_end(pair: Pair, victim: str) -> None:
    (pair.a.send / "tree").mkdir()
    for number in range(40):
        (pair.a.send / "tree" / str(number)).write_bytes(os.urandom(MIB))
    receive, send = await pair.begin("t5", "/tree", "/tree", directory=True, rateLimitBytesPerSecond=8 * MIB)
    await soon(lambda: len(files(pair.b.receive)) > 5)
    node = pair.a if victim == "rclone" else pair.b
    os.kill(node.processes(victim), signal.SIGKILL)
    await pair.finish("t5", "/tree", receive, await ended(send), directory=True)
    assert len(files(pair.b.receive / "tree")) == 40


async def test_a_road_that_is_not_open_is_said_before_anything_is_sent(pair: Pair) -> None:
    (pair.a.send / "data").write_bytes(os.urandom(MIB))
    for number, change in enumerate(({"port": free_port()}, {"certificateSha256": "0" * 64}, {"host": "no.such.host.invalid"})):
        to = {**pair.b.endpoint, **change}
        _, send = await pair.begin(f"t6{number}", "/data", f"/data{number}", directory=False, endpoint=to)
        result = await ended(send, "receiver_unreachable")
        assert not result["check"]["reachable"]
        assert send.ending.message
    send = pair.a.ask_send("t69", "/data", pair.b.endpoint, new_key(), directory=False)
    assert (await ended(send, "receiver_unreachable"))["check"]["failure"]["code"] == "wrong_key"
    assert files(pair.b.receive) == []


async def test_a_closed_key_is_dead_and_what_arrived_can_be_discarded(pair: Pair) -> None:
    (pair.a.send / "data").write_bytes(os.urandom(40 * MIB))
    receive, send = await pair.begin("t7", "/data", "/data", directory=False, rateLimitBytesPerSecond=4 * MIB)
    await soon(lambda: send.progress and send.progress[-1].bytes_done)
    receive.cancel_asked = True
    await ended(receive, "cancelled")
    await ended(send, "receiver_lost")
    assert len(pair.b.folders) == 1
    await ended(pair.b.ask_discard("t7"))
    assert pair.b.folders == []
    assert list((pair.b.state.path / "arrivals").iterdir()) == []


async def test_what_is_not_what_was_sent_is_not_placed(pair: Pair) -> None:
    (pair.a.send / "data").write_bytes(b"12345")
    receive, send = await pair.begin("t8", "/data", "/data", directory=False)
    result = await ended(send)
    receive.cancel_asked = True
    await ended(receive, "cancelled")
    place = pair.b.ask_place("t8", "/data", {**result, "sizeBytes": 6}, directory=False)
    await ended(place, "size_mismatch")
    assert not (pair.b.receive / "data").exists()
    assert len(pair.b.folders) == 1
    await ended(pair.b.ask_discard("t8", targetPath="/data"))
    assert pair.b.folders == []


@pytest.mark.parametrize("path", ["/missing", "/link", "/dir/../../x", "/dir", "/loop/data"])
async def test_what_cannot_be_sent_is_said(pair: Pair, path: str) -> None:
    (pair.a.send / "dir").mkdir()
    (pair.a.send / "dir" / "data").write_bytes(b"1")
    (pair.a.send / "link").symlink_to("/etc/passwd")
    (pair.a.send / "loop").symlink_to("dir")
    send = pair.a.ask_send("t9", path, pair.b.endpoint, new_key(), directory=False)
    await soon(lambda: send.ends)
    assert send.ending.code in {"source_missing", "path_refused", "permission_denied"}, send.ending
    assert not send.starts


@pytest.mark.parametrize(("path", "directory"), [("/../x", False), ("/out/x", False), ("/full", True), ("/full", False)])
async def test_what_cannot_be_received_is_said(pair: Pair, tmp_path: Path, path: str, directory: bool) -> None:
    (pair.b.receive / "out").symlink_to(tmp_path)
    (pair.b.receive / "full").mkdir()
    (pair.b.receive / "full" / "x").write_bytes(b"x")
    receive = pair.b.ask_receive("t10", path, new_key(), directory=directory)
    await soon(lambda: receive.ends)
    assert receive.ending.code in {"path_refused", "target_missing_directory", "target_exists", "target_is_directory"}
    assert not receive.starts
    assert pair.b.folders == []


async def test_nothing_and_empty_files_are_sent_too(pair: Pair) -> None:
    (pair.a.send / "empty").write_bytes(b"")
    (pair.a.send / "nothing").mkdir()
    for transfer_id, name, directory in (("t11", "empty", False), ("t12", "nothing", True)):
        receive, send = await pair.begin(transfer_id, f"/{name}", f"/{name}", directory=directory)
        await pair.finish(transfer_id, f"/{name}", receive, await ended(send), directory=directory)
    assert (pair.b.receive / "empty").read_bytes() == b""
    assert list((pair.b.receive / "nothing").iterdir()) == []


async def test_a_node_may_send_to_itself(tmp_path: Path) -> None:
    node = DirectNode(tmp_path / "one")
    (node.send / "data").write_bytes(b"bytes")
    async with node.running():
        pair = Pair(node, node)
        receive, send = await pair.begin("t13", "/data", "/data", directory=False)
        await pair.finish("t13", "/data", receive, await ended(send), directory=False)
    assert (node.receive / "data").read_bytes() == b"bytes"


async def test_no_secret_is_in_a_log_an_argument_or_left_on_a_disk(
    pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (pair.a.send / "data").write_bytes(os.urandom(20 * MIB))
    receive, send = await pair.begin("t14", "/data", "/data", directory=False, rateLimitBytesPerSecond=8 * MIB)
    await soon(lambda: send.progress and send.progress[-1].bytes_done)
    assert send.secret is not None
    secret = send.secret["secretAccessKey"].encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert secret not in path.read_bytes()
        except OSError:
            continue
    await pair.finish("t14", "/data", receive, await ended(send), directory=False)
    assert secret.decode() not in caplog.text
    for path in files(tmp_path):
        assert secret not in path.read_bytes(), path


async def test_a_receiver_whose_port_is_taken_is_told_and_comes_when_it_is_free(tmp_path: Path) -> None:
    node = DirectNode(tmp_path / "b")
    assert node.address is not None
    taken = await asyncio.start_server(lambda reader, writer: None, "0.0.0.0", node.address.port)
    async with node.running() as agent:
        assert node.service.polls[-1].receiver is None
        assert "receiver does not run" in node.service.polls[-1].health[0]
        taken.close()
        await taken.wait_closed()
        await soon(lambda: agent.direct.receiver)
