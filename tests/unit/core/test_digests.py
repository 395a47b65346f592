"""What a client says of its file: added up, never replaced, and true of the parts there are."""

from __future__ import annotations

import pytest
from tests.unit.core.transfers import a_transfer

from stagecoach.core.digests import differing_parts, is_md5, with_digests
from stagecoach.core.errors import Conflict, DigestRefused

A, B = "a" * 32, "b" * 32
THREE = {"part_count": 3, "size_bytes": 2500, "part_size_bytes": 1000}


def test_what_is_said_twice_adds_up() -> None:
    first = with_digests(a_transfer(**THREE), {"sha256": "1"}, {"md5": [A, B, A]})
    assert (first.digests, first.part_digests) == ({"sha256": "1"}, {"md5": (A, B, A)})
    second = with_digests(first, {"crc32": "2", "sha256": "1"}, {"crc32": ["1", "2", "3"], "md5": [A, B, A]})
    assert second.digests == {"sha256": "1", "crc32": "2"}
    assert second.part_digests == {"md5": (A, B, A), "crc32": ("1", "2", "3")}
    assert with_digests(second, {}, {}) == second
    assert with_digests(second, {"crc32": "2"}, {"md5": [A, B, A]}) == second


@pytest.mark.parametrize(("digests", "part_digests"), [({"crc32": "9"}, {}), ({}, {"md5": [A, A, A]})])
def test_the_first_word_stays(digests: dict[str, str], part_digests: dict[str, list[str]]) -> None:
    transfer = with_digests(a_transfer(**THREE), {"crc32": "2"}, {"md5": [A, B, A]})
    with pytest.raises(Conflict, match="not the one"):
        with_digests(transfer, digests, part_digests)


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_every_part_has_its_value(count: int) -> None:
    with pytest.raises(DigestRefused, match="3 parts") as refused:
        with_digests(a_transfer(**THREE), {}, {"md5": [A] * count})
    assert refused.value.data == {"part_count": 3, "part_size_bytes": 1000}


def test_the_one_part_of_a_file_is_the_file() -> None:
    assert with_digests(a_transfer(), {"crc32": "1"}, {"crc32": ["1"]}).part_digests == {"crc32": ("1",)}
    with pytest.raises(DigestRefused, match="one part"):
        with_digests(a_transfer(), {"crc32": "1"}, {"crc32": ["2"]})
    with pytest.raises(DigestRefused, match="one part"):
        with_digests(with_digests(a_transfer(), {}, {"sha256": ["2"]}), {"sha256": "1"}, {})
    several = with_digests(a_transfer(**THREE), {"crc32": "1"}, {"crc32": ["2", "2", "2"]})
    assert several.digests == {"crc32": "1"}


def test_parts_that_differ() -> None:
    etags = {1: f'"{A.upper()}"', 2: f'"{B}"', 3: '"not-an-md5"', 4: f'"{B}-2"', 5: "", 7: f'"{B}"', 9: f'"{B}"'}
    assert differing_parts([A] * 8, etags) == [2, 7]
    assert differing_parts([], etags) == []
    assert [is_md5(etag) for etag in (f'"{A}"', A, f"{A}-1", "", "g" * 32, A + "\n")] == [True, True, False, False, False, False]
