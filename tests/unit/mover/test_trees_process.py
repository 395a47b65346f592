"""Directories moved by the mover as it runs on a cluster: a process of its own, under every Python at hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.mover.faulty_store import FaultyStore, hidden_files, md5, write_ticket
from tests.unit.mover.test_process import MOVER, finished, mover, pythons
from tests.unit.mover.trees import fetch_ticket, make_tree, put_ticket, snapshot

from stagecoach.mover.stagecoach_mover import SourceTree

MEBIBYTE = 1024 * 1024


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    subprocess.run(["rm", "-rf", tmp_path], check=True)  # what cleans up otherwise fails at trees so deep


@pytest.fixture
def rgw() -> Iterator[FaultyStore]:
    with FaultyStore(part_size=20_000).serving() as serving:
        yield serving


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make_tree(tmp_path / "source", 120)
    return tmp_path / "source"


def stream_of(root: Path) -> bytes:
    tree = SourceTree(os.fsencode(root), None)
    data = tree.read(0, tree.size_bytes)
    tree.close()
    return data


@pytest.mark.parametrize("python", pythons())
def test_a_round_trip_holds_and_the_stream_is_the_same_under_every_python(
    rgw: FaultyStore, tree: Path, tmp_path: Path, python: str
) -> None:
    rgw.fail("PUT", "status", 3, status=503)
    rgw.fail("GET", "reset_inside", 4)
    put = write_ticket(tmp_path / "put.json", put_ticket(rgw, tree, 500))
    out = finished(mover("put", "--ticket", put, "--state-directory", tmp_path / "a", python=python, LC_ALL="C"), 0)
    assert out.splitlines()[-1] == "File was successfully moved: multipart file upload successfully completed"
    assert md5(rgw.objects["object"]) == md5(stream_of(tree))
    fetch = write_ticket(tmp_path / "fetch.json", fetch_ticket(rgw, tmp_path / "target"))
    out = finished(mover("fetch", "--ticket", fetch, "--state-directory", tmp_path / "b", python=python, LC_ALL="C"), 0)
    assert out.splitlines()[-1] == "File was successfully moved"
    assert snapshot(tmp_path / "target") == snapshot(tree)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("python", pythons())
def test_a_fetch_that_is_ended_in_the_middle_is_completed_by_the_next(
    rgw: FaultyStore, tree: Path, tmp_path: Path, python: str, number: signal.Signals
) -> None:
    rgw.keep("object", stream_of(tree))
    rgw.fail("GET", "hold", 8)
    ticket = write_ticket(tmp_path / "ticket", fetch_ticket(rgw, tmp_path / "target"))
    arguments = ("fetch", "--ticket", ticket, "--state-directory", tmp_path / "state", "--concurrency", 1)
    process = mover(*arguments, python=python, STAGECOACH_STALL_SECONDS="60")
    assert rgw.waiting.wait(10)
    process.send_signal(number)
    if number == signal.SIGTERM:
        finished(process, 75)
        receipt = json.loads((tmp_path / "state" / "receipt.json").read_text())
        assert (receipt["ok"], receipt["code"]) == (False, "interrupted")
        assert json.loads(rgw.objects["receipt"]) == receipt
    process.communicate(timeout=20)
    assert hidden_files(tmp_path) == [".stagecoach-t1.part"]
    assert not (tmp_path / "target").exists()
    rgw.requests.clear()
    finished(mover(*arguments, python=python), 0)
    assert snapshot(tmp_path / "target") == snapshot(tree)
    assert hidden_files(tmp_path) == []
    if number == signal.SIGTERM:
        assert json.loads((tmp_path / "state" / "receipt.json").read_text())["bytes_resumed"] >= 5 * rgw.part_size
        assert rgw.count("GET", part=1) == 0


def test_a_put_that_is_ended_in_the_middle_is_completed_by_the_next(rgw: FaultyStore, tree: Path, tmp_path: Path) -> None:
    rgw.fail("PUT", "hold", 4)
    ticket = write_ticket(tmp_path / "ticket", put_ticket(rgw, tree, 500))
    arguments = ("put", "--ticket", ticket, "--state-directory", tmp_path / "state", "--concurrency", 1)
    process = mover(*arguments, STAGECOACH_STALL_SECONDS="60")
    assert rgw.waiting.wait(10)
    process.send_signal(signal.SIGTERM)
    finished(process, 75)
    assert rgw.completed == 0
    finished(mover(*arguments), 0)
    assert [rgw.count("PUT", part=part) for part in (1, 2, 3, 5)] == [1, 1, 1, 1]
    assert rgw.objects["object"] == stream_of(tree)


def peak_bytes(code: str, *arguments: Any) -> int:
    tell = "\nprint(next(row.split()[1] for row in open('/proc/self/status') if row.startswith('VmHWM')))"
    out = subprocess.check_output([sys.executable, "-c", code + tell, *map(str, arguments)], text=True, timeout=120)
    return int(out.split()[-1]) * 1024


RUN = f"import runpy, sys\ntry: runpy.run_path({MOVER!r}, run_name='__main__')\nexcept SystemExit as end: assert not end.code"


def test_memory_stays_bounded_with_a_large_file(tmp_path: Path) -> None:
    source, size = tmp_path / "source", 200 * MEBIBYTE
    source.mkdir()
    with (source / "large").open("wb") as file:
        file.truncate(size)
    with FaultyStore(part_size=32 * MEBIBYTE).serving() as store:
        ticket = write_ticket(tmp_path / "put", put_ticket(store, source, 10))
        assert peak_bytes(RUN, "put", "--ticket", ticket, "--concurrency", 4) < 64 * MEBIBYTE
        ticket = write_ticket(tmp_path / "fetch", fetch_ticket(store, tmp_path / "target"))
        assert peak_bytes(RUN, "fetch", "--ticket", ticket, "--concurrency", 4) < 150 * MEBIBYTE
    assert (tmp_path / "target" / "large").stat().st_size == size


MANY_MEMBERS = """
import sys
sys.path.insert(0, sys.argv[1])
import stagecoach_mover as mover

def many(root, breathe, left_out):
    yield b"./", mover.Entry(b"5", 0o755, 0, 1, 1, 1, 0, b".", b"")
    for number in range(1, 200_000):
        name = b"a link with a name of some length %d" % number
        yield name, mover.Entry(b"2", 0o777, 0, 1, 1, number, 0, name, b"target")

mover.walk_tree = many
tree = mover.SourceTree(b"/", sys.argv[2])
assert tree.entry_count == 200_000
for offset in range(0, tree.size_bytes, tree.size_bytes // 20):
    assert len(tree.read(offset, 1024 * 1024)) > 1024
tree.check(tree.identity)
"""


def test_memory_stays_bounded_with_many_members(tmp_path: Path) -> None:
    assert peak_bytes(MANY_MEMBERS, Path(MOVER).parent, tmp_path) < 64 * MEBIBYTE
