"""How a large file is divided, and which lists of parts are believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stagecoach.agent.parts import FOLDER, MOST_LIST_BYTES, PartedFile, PartRule, part_name, read_list, written_list
from stagecoach.mover.stagecoach_mover import Failed

VERSION = "0123456789abcdef"
MIB, GIB, TIB = 2**20, 2**30, 2**40


@pytest.mark.parametrize(
    ("size", "part", "count"),
    [
        (128 * MIB, 16 * MIB, 8),
        (128 * MIB + 1, 16 * MIB, 9),
        (GIB, 16 * MIB, 64),
        (GIB + 1, 17 * MIB, 61),
        (4 * GIB, 64 * MIB, 64),
        (125 * GIB, 64 * MIB, 2000),
        (125 * GIB + 1, 65 * MIB, 1970),
        (2 * TIB, 1049 * MIB, 2000),
        (100 * TIB, 4 * GIB, 25600),
    ],
)
def test_parts_are_few_and_none_is_too_long_for_one_request(size: int, part: int, count: int) -> None:
    file = PartedFile("data", size, PartRule().part_size_bytes(size), 0, VERSION)
    assert (file.part_size_bytes, file.count) == (part, count)
    assert file.start_bytes(1) == 0
    assert file.start_bytes(count) + file.length_bytes(count) == size
    assert 0 < file.length_bytes(count) <= part
    assert file.length_bytes(1) == part


def test_a_list_says_again_what_was_written() -> None:
    files = [
        PartedFile("a/é b.bin", 10, 3, -5, VERSION, 4),
        PartedFile("a/c", 2**45, 2**30, 1_600_000_000_123_456_789, "f" * 24),
    ]
    assert read_list(written_list(files)) == files
    assert [file.is_compared for file in files] == [True, False]
    assert f"{files[0].folder(2)}/{part_name(17)}" == f"2-{VERSION}/000017"


def test_more_large_files_than_a_list_may_have_are_refused_before_anything_is_sent() -> None:
    one = PartedFile("x" * 200, 1, 1, 0, VERSION)
    with pytest.raises(Failed) as failed:
        written_list([one] * (MOST_LIST_BYTES // 200))
    assert failed.value.code == "direct_unfit"


def listed(**more: Any) -> bytes:
    entry = {"path": "data", "sizeBytes": 10, "partSizeBytes": 3, "mtimeNs": 0, "version": VERSION, "comparedParts": 4, **more}
    return json.dumps({"version": 1, "files": [entry]}).encode()


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"version": 1, "files": {}}',
        b'{"version": 1, "files": [1]}',
        b'{"version": 2, "files": [{"path": "data", "sizeBytes": 10, "partSizeBytes": 3, "mtimeNs": 0}]}',
        b"[" * 100_000,
        listed(path="/etc/passwd"),
        listed(path="../data"),
        listed(path="a/../../data"),
        listed(path="a//b"),
        listed(path="./a"),
        listed(path=""),
        listed(path="a\0b"),
        listed(path="\ud800"),
        listed(path=7),
        listed(path=FOLDER),
        listed(path=f"a/{FOLDER}/b"),
        listed(path="x" * 256),
        listed(path="/".join(["x" * 200] * 30)),
        listed(sizeBytes=0),
        listed(sizeBytes=-1),
        listed(sizeBytes=True),
        listed(sizeBytes="10"),
        listed(sizeBytes=2**63),
        listed(partSizeBytes=0),
        listed(sizeBytes=2**40, partSizeBytes=1),
        listed(mtimeNs=None),
        listed(mtimeNs=1.5),
        listed(mtimeNs=2**70),
        listed(version=None),
        listed(version="../../../../etc"),
        listed(version="0123"),
        listed(comparedParts=5),
        listed(comparedParts=-1),
        listed(comparedParts=None),
    ],
)
def test_a_list_that_could_lead_elsewhere_is_refused(written: bytes) -> None:
    with pytest.raises(Failed) as failed:
        read_list(written)
    assert failed.value.code == "size_mismatch"


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a/b"), ("a/b/c", "a")])
def test_two_files_at_one_place_are_refused(paths: tuple[str, str]) -> None:
    with pytest.raises(Failed):
        read_list(written_list([PartedFile(path, 1, 1, 0, VERSION) for path in paths]))
