"""Large files go from agent to agent in parts: what has arrived is never sent again, and never a wrong file arrives."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.node_service import QueuedCommand
from tests.integration.agent.direct_nodes import DirectNode, ended, new_key, soon
from tests.integration.agent.test_direct_road import Pair, files

from stagecoach.agent.parts import FOLDER, PartRule

MIB = 2**20
PART = MIB
RULE = PartRule(least_file_bytes=8 * MIB, least_part_bytes=PART)
SIZE = 40 * MIB + 7
UNDER_WAY = 8 * PART
ENOUGH = 14 * PART
IN_PARTS: dict[str, Any] = {"inParts": True}
SLOWLY: dict[str, Any] = {**IN_PARTS, "rateLimitBytesPerSecond": 10 * MIB}


class Nodes:
    def __init__(self, folder: Path) -> None:
        self.a = DirectNode(folder / "a", receives=False, rule=RULE)
        self.b = DirectNode(folder / "b", rule=RULE)
        self.pair = Pair(self.a, self.b)

    def offer(self, name: str = "data", size: int = SIZE) -> bytes:
        content = os.urandom(size)
        path = self.a.send / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return content

    def parts(self) -> list[Path]:
        """Those that have arrived and are not joined yet."""
        return [path for path in files(self.b.receive) if path.name.isdecimal() and path.parent.parent.name == FOLDER]

    def arrived_bytes(self) -> int:
        """Of parts, and of what was joined of them; the one that is being joined may count twice."""
        joined = [path for path in files(self.b.receive) if path.name.startswith("joined-")]
        return sum(path.stat().st_size for path in [*self.parts(), *joined])

    def sent_bytes(self) -> int:
        """By the rclone of a that runs now, to whomever."""
        told = Path(f"/proc/{self.a.processes('rclone')}/io").read_text()
        return int(dict(line.split(": ") for line in told.splitlines())["wchar"])


async def stopped(receive: QueuedCommand, send: QueuedCommand) -> None:
    send.cancel_asked = receive.cancel_asked = True
    await ended(send, "cancelled")
    await ended(receive, "cancelled")


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


@pytest.fixture
async def running(nodes: Nodes) -> AsyncIterator[Nodes]:
    async with nodes.a.running(), nodes.b.running():
        yield nodes


async def test_a_file_arrives_whole_with_its_time_and_nothing_beside_it(running: Nodes) -> None:
    content = running.offer()
    os.utime(running.a.send / "data", ns=(1, 1_600_000_000_123_456_789))
    receive, send = await running.pair.begin("t1", "/data", "/run/other", directory=False, **IN_PARTS)
    result = await ended(send)
    assert (result["sizeBytes"], result["files"], result["verified"], result["comparedFiles"]) == (SIZE, 1, True, 1)
    await running.pair.finish("t1", "/run/other", receive, result, directory=False)
    target = running.b.receive / "run" / "other"
    assert target.read_bytes() == content
    assert target.stat().st_mtime_ns == 1_600_000_000_123_456_789
    assert os.listdir(target.parent) == ["other"]
    assert list((running.a.state.path / "sent-parts").iterdir()) == []


async def test_who_cannot_join_gets_one_object(running: Nodes) -> None:
    content = running.offer()
    receive, send = await running.pair.begin("t2", "/data", "/data", directory=False)
    result = await ended(send)
    assert running.parts() == []
    await running.pair.finish("t2", "/data", receive, result, directory=False)
    assert (running.b.receive / "data").read_bytes() == content


async def test_in_a_directory_too(running: Nodes) -> None:
    contents = {name: running.offer(f"tree/{name}", size) for name, size in SIZES.items()}
    receive, send = await running.pair.begin("t3", "/tree", "/tree", directory=True, **IN_PARTS)
    result = await ended(send)
    total = sum(SIZES.values())
    assert (result["sizeBytes"], result["files"], result["verified"], result["comparedFiles"]) == (total, 6, True, 6)
    assert result["rates"][-1][1] == total
    assert {report.bytes_total for report in send.progress} <= {0, total}, "what may arrive is told by it"
    done = [report.bytes_done for report in send.progress]
    assert done == sorted(done)
    await running.pair.finish("t3", "/tree", receive, result, directory=True)
    top = running.b.receive / "tree"
    assert {str(path.relative_to(top)): path.read_bytes() for path in files(top)} == contents
    assert not (top / FOLDER).exists()


async def test_of_a_large_file_that_became_a_small_one_no_part_is_left(running: Nodes) -> None:
    running.offer("tree/data")
    receive, send = await running.pair.begin("t5", "/tree", "/tree", directory=True, **SLOWLY)
    await soon(lambda: running.arrived_bytes() > ENOUGH)
    await stopped(receive, send)
    content = running.offer("tree/data", 5)
    receive, send = await running.pair.begin("t5", "/tree", "/tree", directory=True, number=2, **IN_PARTS)
    result = await ended(send)
    await running.pair.finish("t5", "/tree", receive, result, directory=True)
    assert {str(path.relative_to(running.b.receive / "tree")) for path in files(running.b.receive / "tree")} == {"data"}
    assert (running.b.receive / "tree" / "data").read_bytes() == content


SIZES = {
    "small": 5,
    "deep/er/large [1] é": 9 * MIB,
    "deep/exactly": 8 * MIB,
    "deep/below": 8 * MIB - 1,
    "empty": 0,
    "z": 12 * MIB,
}


async def test_after_a_stop_only_what_is_missing_is_sent(running: Nodes) -> None:
    content = running.offer()
    receive, send = await running.pair.begin("t4", "/data", "/data", directory=False, **SLOWLY)
    await soon(lambda: running.arrived_bytes() > ENOUGH)
    await stopped(receive, send)
    kept, before = running.arrived_bytes(), running.sent_bytes()
    assert before > kept > ENOUGH
    receive, send = await running.pair.begin("t4", "/data", "/data", directory=False, number=2, **IN_PARTS)
    result = await ended(send)
    assert running.sent_bytes() - before < (SIZE - kept) * 1.05 + PART
    await running.pair.finish("t4", "/data", receive, result, directory=False)
    assert (running.b.receive / "data").read_bytes() == content


@pytest.mark.parametrize("forgets", [False, True])
async def test_a_sender_that_is_started_again_sends_only_what_is_missing(nodes: Nodes, forgets: bool) -> None:
    content = nodes.offer()
    async with nodes.b.running():
        async with nodes.a.running():
            receive, send = await nodes.pair.begin("t5", "/data", "/data", directory=False, **SLOWLY)
            await soon(lambda: nodes.arrived_bytes() > ENOUGH)
        kept = nodes.arrived_bytes()
        digests = list((nodes.a.state.path / "sent-parts").iterdir())
        assert len(digests) == 1
        if forgets:
            digests[0].unlink()
        async with nodes.a.running():
            result = await ended(send)
            assert nodes.sent_bytes() < (SIZE - kept) * 1.05 + PART
        await nodes.pair.finish("t5", "/data", receive, result, directory=False)
    assert (nodes.b.receive / "data").read_bytes() == content


@pytest.mark.parametrize("victim", ["rclone", "receiver"])
async def test_a_killed_rclone_on_either_side_costs_what_was_under_way(running: Nodes, victim: str) -> None:
    content = running.offer()
    receive, send = await running.pair.begin("t6", "/data", "/data", directory=False, **SLOWLY)
    await soon(lambda: running.arrived_bytes() > ENOUGH)
    kept = running.arrived_bytes()
    os.kill((running.a if victim == "rclone" else running.b).processes(victim), signal.SIGKILL)
    result = await ended(send)
    again = SIZE - kept if victim == "rclone" else SIZE + UNDER_WAY
    assert running.sent_bytes() < again * 1.05 + PART
    await running.pair.finish("t6", "/data", receive, result, directory=False)
    assert (running.b.receive / "data").read_bytes() == content


async def test_a_receiving_agent_that_is_started_again_costs_what_was_under_way(nodes: Nodes) -> None:
    content = nodes.offer()
    async with nodes.a.running():
        async with nodes.b.running():
            receive, send = await nodes.pair.begin("t7", "/data", "/data", directory=False, **SLOWLY)
            await soon(lambda: nodes.arrived_bytes() > ENOUGH)
        async with nodes.b.running():
            result = await ended(send)
            assert nodes.sent_bytes() < (SIZE + UNDER_WAY) * 1.05 + PART
            await nodes.pair.finish("t7", "/data", receive, result, directory=False)
    assert (nodes.b.receive / "data").read_bytes() == content


@pytest.mark.parametrize("same_second", [False, True])
async def test_a_source_that_changed_between_two_tries_never_gives_a_mixed_file(running: Nodes, same_second: bool) -> None:
    running.offer()
    before = (running.a.send / "data").stat()
    receive, send = await running.pair.begin("t8", "/data", "/data", directory=False, **SLOWLY)
    await soon(lambda: running.arrived_bytes() > ENOUGH)
    await stopped(receive, send)
    content = running.offer()
    if same_second:  # as rclone sees it nothing has changed: neither the size nor the time
        os.utime(running.a.send / "data", ns=(before.st_atime_ns, before.st_mtime_ns))
    receive, send = await running.pair.begin("t8", "/data", "/data", directory=False, number=2, **IN_PARTS)
    await running.pair.finish("t8", "/data", receive, await ended(send), directory=False)
    assert (running.b.receive / "data").read_bytes() == content


async def test_a_source_that_changes_meanwhile_is_said(running: Nodes) -> None:
    running.offer()
    _, send = await running.pair.begin("t9", "/data", "/data", directory=False, **SLOWLY)
    await soon(lambda: running.arrived_bytes() > 3 * PART)
    with (running.a.send / "data").open("r+b") as file:
        file.write(b"changed")
    await ended(send, "source_changed")


async def test_a_part_that_is_spoiled_at_the_receiver_is_sent_again(running: Nodes) -> None:
    content = running.offer()
    receive, send = await running.pair.begin("t10", "/data", "/data", directory=False, **SLOWLY)
    await soon(lambda: running.arrived_bytes() > ENOUGH)
    await stopped(receive, send)
    spoiled, shortened, *_ = running.parts()
    with spoiled.open("r+b") as file:
        file.write(b"another")
    os.truncate(shortened, 10)
    kept, before = running.arrived_bytes(), running.sent_bytes()
    receive, send = await running.pair.begin("t10", "/data", "/data", directory=False, number=2, **IN_PARTS)
    result = await ended(send)
    assert running.sent_bytes() - before < (SIZE - kept) * 1.05 + 3 * PART
    await running.pair.finish("t10", "/data", receive, result, directory=False)
    assert (running.b.receive / "data").read_bytes() == content


async def test_a_rate_holds_for_all_parts_together(running: Nodes) -> None:
    running.offer(size=24 * MIB)
    clock = asyncio.get_running_loop()
    _, send = await running.pair.begin("t11", "/data", "/data", directory=False, **IN_PARTS, rateLimitBytesPerSecond=6 * MIB)
    begun = clock.time()
    await ended(send)
    assert 3.5 < clock.time() - begun < 12


async def test_what_has_come_is_joined_before_all_has(running: Nodes) -> None:
    content = running.offer()
    # Far more slowly than the receiver is told what has been compared.
    slowly = {**IN_PARTS, "rateLimitBytesPerSecond": 4 * MIB}
    receive, send = await running.pair.begin("t15", "/data", "/data", directory=False, **slowly)
    await soon(lambda: any(path.name.startswith("joined-") for path in files(running.b.receive)))
    assert not send.ends
    await running.pair.finish("t15", "/data", receive, await ended(send), directory=False)
    assert (running.b.receive / "data").read_bytes() == content


async def test_discarded_parts_are_gone(running: Nodes) -> None:
    running.offer()
    receive, send = await running.pair.begin("t12", "/data", "/data", directory=False, **SLOWLY)
    await soon(lambda: running.arrived_bytes() > 3 * PART)
    await stopped(receive, send)
    await ended(running.b.ask_discard("t12"))
    assert running.b.folders == []


async def test_a_closed_key_ends_it(running: Nodes) -> None:
    running.offer()
    receive, send = await running.pair.begin("t13", "/data", "/data", directory=False, **SLOWLY)
    await soon(lambda: running.arrived_bytes() > 3 * PART)
    receive.cancel_asked = True
    await ended(receive, "cancelled")
    await ended(send, "receiver_lost")


async def test_no_secret_is_in_a_log_or_left_on_a_disk(running: Nodes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    running.offer()
    key = new_key()
    receive = running.b.ask_receive("t14", "/data", key, directory=False)
    await soon(lambda: receive.starts)
    send = running.a.ask_send("t14", "/data", running.b.endpoint, key, directory=False, **IN_PARTS)
    await running.pair.finish("t14", "/data", receive, await ended(send), directory=False)
    assert key["secretAccessKey"] not in caplog.text
    for path in files(tmp_path):
        assert key["secretAccessKey"].encode() not in path.read_bytes(), path
