"""Digests of parts outlive the agent, and are good for the very file that was read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from stagecoach.agent.part_digests import FileDigests, KeptDigests, identity_of

MD5 = hashlib.md5(b"part").hexdigest()
OTHER = hashlib.md5(b"other").hexdigest()
IDENTITY = [1, 2, 3, 4]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(tmp_path: Path, clock: Clock) -> KeptDigests:
    return KeptDigests(tmp_path / "sent-parts", clock)


def of(
    kept: KeptDigests, transfer: str = "t1", path: str = "data", identity: list[int] | None = None, size: int = 64
) -> FileDigests:
    return kept.of(transfer, path, identity or IDENTITY, size)


def test_they_are_there_again_at_once_or_within_a_second(kept: KeptDigests, clock: Clock) -> None:
    digests = of(kept)
    digests.add(1, MD5)
    assert digests.of(1) == MD5
    assert of(kept).of(1) is None
    clock.now += 1.0
    digests.add(7, OTHER)
    assert (of(kept).of(1), of(kept).of(7), of(kept).of(2)) == (MD5, OTHER, None)
    digests.add(7, MD5)
    digests.save()
    assert of(kept).of(7) == MD5


@pytest.mark.parametrize("number", range(4))
def test_of_a_file_that_is_another_one_none_is_known(kept: KeptDigests, number: int) -> None:
    digests = of(kept)
    digests.add(1, MD5)
    digests.save()
    other = list(IDENTITY)
    other[number] += 1
    assert of(kept, identity=other).of(1) is None
    assert of(kept, size=65).of(1) is None
    assert of(kept, path="data2").of(1) is None
    assert of(kept, transfer="t2").of(1) is None


def test_a_file_that_was_written_to_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"12345")
    before = path.stat()
    path.write_bytes(b"54321")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = path.stat()
    assert (now.st_ino, now.st_size, now.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    assert identity_of(now) != identity_of(before)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "[]",
        '{"identity": [1, 2, 3, 4], "part_size_bytes": 64, "md5": [1]}',
        '{"identity": [1, 2, 3, 4], "part_size_bytes": 64, "md5": {"1": "x", "-1": "' + MD5 + '", "a": 1}}',
    ],
)
def test_what_was_spoiled_is_not_believed(kept: KeptDigests, tmp_path: Path, written: str) -> None:
    digests = of(kept)
    digests.add(1, MD5)
    digests.save()
    [document] = (tmp_path / "sent-parts").iterdir()
    document.write_text(written)
    assert of(kept).of(1) is None


def test_what_is_over_or_old_is_forgotten(kept: KeptDigests, tmp_path: Path) -> None:
    kept.forget("t1")
    kept.forget_older_than(10.0, 0.0)
    for transfer in ("t1", "t2", "t3"):
        digests = of(kept, transfer)
        digests.add(1, MD5)
        digests.save()
    kept.forget("t1")
    assert (of(kept, "t1").of(1), of(kept, "t2").of(1)) == (None, MD5)
    old, young = sorted((tmp_path / "sent-parts").iterdir())
    os.utime(old, (1000.0, 1000.0))
    os.utime(young, (2000.0, 2000.0))
    kept.forget_older_than(600.0, 2000.0)
    assert list((tmp_path / "sent-parts").iterdir()) == [young]
