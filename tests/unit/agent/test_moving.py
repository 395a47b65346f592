"""The mover as a child: known before it begins, ended when asked, and its last word told rightly."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.agent.conftest import soon
from tests.unit.mover.faulty_store import PART, FaultyStore, some_bytes

from stagecoach.agent import launch, moving
from stagecoach.agent.journal import Entry, ProcessMark
from stagecoach.agent.moving import KEEP_UNFINISHED_SECONDS, Mover
from stagecoach.agent.processes import end_orphan, is_alive, mark_of


class Node:
    def __init__(self, folder: Path) -> None:
        for name in ("moves", "send", "receive"):
            (folder / name).mkdir()
        self.folder = folder
        self.mover = Mover(folder / "moves", {"fetch": str(folder / "receive"), "put": str(folder / "send")})
        self.marks: list[ProcessMark | None] = []
        self.stop = asyncio.Event()

    def given(self, store: FaultyStore, data: bytes, direction: str = "fetch") -> Entry:
        store.keep("object", data)
        ticket = store.fetch_ticket(b"/run/data", len(data), place="receive")
        store.objects["ticket"] = json.dumps(ticket).encode()
        entry = Entry("c1", "move", 1, 1, 0.0, transfer_id="t1", spec={"direction": direction})
        self.mover.keep_ticket_url(entry, store.url("ticket"))
        return entry


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.fixture
def store() -> Iterator[FaultyStore]:
    with FaultyStore().serving() as store:
        yield store


async def test_a_fetch_by_a_child_that_is_known_before_it_begins(node: Node, store: FaultyStore) -> None:
    entry = node.given(store, some_bytes(3 * PART))

    def on_start(mark: ProcessMark | None) -> None:
        assert mark is not None
        assert is_alive(mark)
        assert not store.requests
        node.marks.append(mark)

    ending = await node.mover.run(entry, on_start, node.stop)
    assert (ending.exit_code, ending.code) == (0, None)
    assert (node.folder / "receive" / "run" / "data").read_bytes() == some_bytes(3 * PART)
    assert len(node.marks) == 1
    node.mover.forget("t1")
    assert list((node.folder / "moves").iterdir()) == []


async def test_a_journal_that_cannot_be_written_lets_nothing_begin(node: Node, store: FaultyStore) -> None:
    entry = node.given(store, b"data")

    def on_start(mark: ProcessMark | None) -> None:
        node.marks.append(mark)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        await node.mover.run(entry, on_start, node.stop)
    assert node.marks[0] is not None
    assert not is_alive(node.marks[0])
    assert not store.requests


async def test_a_failure_is_told_in_the_movers_words_and_not_in_an_earlier_runs(node: Node, store: FaultyStore) -> None:
    entry = node.given(store, b"data")
    (node.folder / "receive" / "run").write_text("no directory")
    ending = await node.mover.run(entry, node.marks.append, node.stop)
    assert (ending.exit_code, ending.code) == (1, "target_missing_directory")
    assert "no directory" in ending.message
    (node.folder / "receive" / "run").unlink()
    ending = await node.mover.run(entry, node.marks.append, node.stop)
    assert ending.code is None


async def test_a_stopped_mover_leaves_what_another_goes_on_with_or_discards(node: Node, store: FaultyStore) -> None:
    entry = node.given(store, some_bytes(6 * PART))
    store.fail("GET", "hold", 6)
    running = asyncio.create_task(node.mover.run(entry, node.marks.append, node.stop))
    await soon(store.waiting.is_set)
    node.stop.set()
    ending = await running
    assert (ending.exit_code, ending.code) == (75, "interrupted")
    hidden = node.folder / "receive" / "run" / ".stagecoach-t1.part"
    assert hidden.exists()
    await node.mover.discard("t1")
    assert not hidden.exists()
    assert list((node.folder / "moves").iterdir()) == []
    await node.mover.discard("t1")


async def test_a_mover_that_is_killed_leaves_no_word_but_its_signal(node: Node, store: FaultyStore) -> None:
    entry = node.given(store, some_bytes(3 * PART))
    store.fail("GET", "hold", 2)
    running = asyncio.create_task(node.mover.run(entry, node.marks.append, node.stop))
    await soon(store.waiting.is_set)
    assert node.marks[0] is not None
    os.killpg(node.marks[0].pid, signal.SIGKILL)
    ending = await running
    assert (ending.exit_code, ending.code) == (137, "interrupted")
    assert "SIGKILL" in ending.message


async def test_an_orphan_is_ended_and_nobody_else(node: Node, store: FaultyStore) -> None:
    entry = node.given(store, some_bytes(3 * PART))
    store.fail("GET", "hold", 2)
    running = asyncio.create_task(node.mover.run(entry, node.marks.append, node.stop))
    await soon(store.waiting.is_set)
    mark = node.marks[0]
    assert mark is not None
    assert await end_orphan(ProcessMark(mark.pid, "of another time"), asyncio.sleep)
    assert is_alive(mark)
    assert await end_orphan(mark, asyncio.sleep)
    assert not is_alive(mark)
    await running


async def test_a_direction_of_the_future_is_refused(node: Node, store: FaultyStore) -> None:
    ending = await node.mover.run(node.given(store, b"data", "sideways"), node.marks.append, node.stop)
    assert ending.code == "command_unsupported"
    assert not node.marks


def test_without_the_word_nothing_is_begun(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"open({str(tmp_path / 'begun')!r}, 'w')")
    command = [sys.executable, "-I", "-S", launch.__file__, str(program)]
    assert subprocess.run(command, input=b"", timeout=30).returncode == 1
    assert not (tmp_path / "begun").exists()
    assert subprocess.run(command, input=launch.GO, timeout=30).returncode == 0
    assert (tmp_path / "begun").exists()


def test_a_process_is_told_from_a_later_one_of_its_number() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = mark_of(process.pid)
    assert mark is not None
    assert is_alive(mark)
    assert not is_alive(ProcessMark(mark.pid, mark.started + "0"))
    process.communicate(b"\n")
    assert not is_alive(mark)


def test_the_mover_gets_none_of_the_agents_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGECOACH_ENROLMENT_TOKEN", "secret")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    environment = moving.mover_environment()
    assert "STAGECOACH_ENROLMENT_TOKEN" not in environment
    assert environment["https_proxy"] == "http://proxy:3128"


def test_only_what_nobody_has_touched_for_long_is_old(node: Node) -> None:
    directory = node.folder / "moves" / "t1"
    directory.mkdir()
    (directory / "journal.json").write_text("{}")
    now = (directory / "journal.json").stat().st_mtime
    assert node.mover.old_transfers(now + KEEP_UNFINISHED_SECONDS - 60) == []
    assert node.mover.old_transfers(now + KEEP_UNFINISHED_SECONDS + 60) == ["t1"]
