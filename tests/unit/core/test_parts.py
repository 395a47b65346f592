"""Any size from nothing to 5 TiB is cut into parts that S3 accepts, and adds up again."""

from __future__ import annotations

import random

import pytest

from stagecoach.core.errors import SizeRefused
from stagecoach.core.parts import (
    GIBIBYTE,
    LARGE_PART_SIZE_BYTES,
    MAX_OBJECT_SIZE_BYTES,
    MAX_PART_COUNT,
    MAX_PART_SIZE_BYTES,
    MEBIBYTE,
    MIN_PART_SIZE_BYTES,
    PartPlan,
    fit_parts,
    offer_parts,
    plan_parts,
)

PART = 8 * MEBIBYTE


def require_whole(plan: PartPlan, size_bytes: int, max_part_size_bytes: int) -> None:
    """S3 would accept every part, and they add up."""
    sizes = [plan.size_of(1), plan.size_of(plan.part_count)]
    assert 1 <= plan.part_count <= MAX_PART_COUNT
    assert MIN_PART_SIZE_BYTES <= plan.part_size_bytes <= max_part_size_bytes <= MAX_PART_SIZE_BYTES
    assert (plan.part_count - 1) * plan.part_size_bytes + sizes[-1] == size_bytes
    assert all(0 <= size <= plan.part_size_bytes for size in sizes)
    assert sizes[-1] > 0 or size_bytes == 0
    assert sizes[0] == plan.part_size_bytes or plan.part_count == 1


@pytest.mark.parametrize(
    ("size", "count", "last"),
    [
        (0, 1, 0),
        (1, 1, 1),
        (PART - 1, 1, PART - 1),
        (PART, 1, PART),
        (PART + 1, 2, 1),
        (2 * PART, 2, PART),
        (64 * PART - 1, 64, PART - 1),
        (64 * PART, 64, PART),
    ],
)
def test_sizes_around_a_part(size: int, count: int, last: int) -> None:
    plan = plan_parts(size, GIBIBYTE)
    assert (plan.part_size_bytes, plan.part_count, plan.size_of(count)) == (PART, count, last)
    assert list(plan.numbers()) == list(range(1, count + 1))
    require_whole(plan, size, GIBIBYTE)


@pytest.mark.parametrize(
    ("size", "part_mebibytes", "count"),
    [
        (64 * PART + 1, 9, 57),
        (GIBIBYTE, 16, 64),
        (2 * GIBIBYTE, 32, 64),
        (2 * GIBIBYTE + 1, 32, 65),
        (MAX_PART_COUNT * LARGE_PART_SIZE_BYTES, 32, MAX_PART_COUNT),
        (MAX_PART_COUNT * LARGE_PART_SIZE_BYTES + 1, 33, 9_697),
    ],
)
def test_parts_grow_with_the_file(size: int, part_mebibytes: int, count: int) -> None:
    plan = plan_parts(size, GIBIBYTE)
    assert (plan.part_size_bytes, plan.part_count) == (part_mebibytes * MEBIBYTE, count)
    require_whole(plan, size, GIBIBYTE)


def test_what_an_admin_says_comes_first() -> None:
    assert plan_parts(2 * GIBIBYTE, 16 * MEBIBYTE).part_size_bytes == 16 * MEBIBYTE
    assert plan_parts(2 * GIBIBYTE, GIBIBYTE, 100 * MEBIBYTE).part_size_bytes == 100 * MEBIBYTE


def test_five_tebibytes_are_cut() -> None:
    plan = plan_parts(MAX_OBJECT_SIZE_BYTES, GIBIBYTE)
    assert MAX_OBJECT_SIZE_BYTES == 5 * 1024**4
    require_whole(plan, MAX_OBJECT_SIZE_BYTES, GIBIBYTE)
    assert plan.part_count > 9_900


@pytest.mark.parametrize("size", [-1, MAX_OBJECT_SIZE_BYTES + 1, 10**30])
def test_impossible_sizes_are_refused_with_the_limit(size: int) -> None:
    with pytest.raises(SizeRefused) as refused:
        plan_parts(size, MAX_PART_SIZE_BYTES)
    assert str(MAX_OBJECT_SIZE_BYTES) in refused.value.message or size < 0


def test_a_small_largest_part_lowers_the_limit_and_the_message_names_it() -> None:
    limit = MIN_PART_SIZE_BYTES * MAX_PART_COUNT
    require_whole(plan_parts(limit, MIN_PART_SIZE_BYTES), limit, MIN_PART_SIZE_BYTES)
    with pytest.raises(SizeRefused) as refused:
        plan_parts(limit + 1, MIN_PART_SIZE_BYTES)
    assert str(limit) in refused.value.message
    assert refused.value.data == {"limit_bytes": limit}


def test_an_offer_holds_every_size_up_to_its_limit() -> None:
    dice = random.Random(8)
    for _ in range(5_000):
        largest = dice.randint(MIN_PART_SIZE_BYTES, MAX_PART_SIZE_BYTES)
        smallest = dice.randint(MIN_PART_SIZE_BYTES, MAX_PART_SIZE_BYTES)
        limit = dice.choice([None, 1, int(2 ** dice.uniform(0, 43))])
        offer = offer_parts(limit, largest, smallest)
        assert 1 <= offer.part_count <= MAX_PART_COUNT
        assert offer.limit_bytes <= min(limit or MAX_OBJECT_SIZE_BYTES, MAX_OBJECT_SIZE_BYTES)
        for size in (offer.limit_bytes, dice.randint(0, offer.limit_bytes), 10_240):
            plan = fit_parts(min(size, offer.limit_bytes), offer.part_size_bytes, offer.part_count)
            assert plan.part_count <= offer.part_count
            assert plan.part_size_bytes % offer.part_size_bytes == 0
            require_whole(plan, min(size, offer.limit_bytes), largest)


def test_an_offer_is_small_where_only_little_is_allowed() -> None:
    offer = offer_parts(3 * PART + 1, GIBIBYTE, PART)
    assert (offer.limit_bytes, offer.part_size_bytes, offer.part_count) == (3 * PART + 1, PART, 4)
    assert offer_parts(None, GIBIBYTE, PART).part_count == MAX_PART_COUNT
    assert fit_parts(MAX_PART_COUNT * PART + 1, PART, MAX_PART_COUNT).part_size_bytes == 2 * PART


@pytest.mark.parametrize("number", [0, -1, 3])
def test_a_part_that_is_not_there_has_no_size(number: int) -> None:
    with pytest.raises(ValueError):
        plan_parts(PART + 1, GIBIBYTE).size_of(number)


def test_any_size_is_cut_into_at_most_ten_thousand_parts_that_add_up() -> None:
    dice = random.Random(7)
    for _ in range(20_000):
        largest = dice.randint(MIN_PART_SIZE_BYTES, MAX_PART_SIZE_BYTES)
        smallest = dice.randint(MIN_PART_SIZE_BYTES, MAX_PART_SIZE_BYTES)
        limit = min(MAX_OBJECT_SIZE_BYTES, largest * MAX_PART_COUNT)
        size = min(limit, int(2 ** dice.uniform(0, 43)) + dice.randint(-1, 1))
        require_whole(plan_parts(max(0, size), largest, smallest), max(0, size), largest)


def test_all_parts_add_up_one_by_one() -> None:
    plan = plan_parts(123_456_789_012, 16 * MEBIBYTE)
    assert sum(plan.size_of(number) for number in plan.numbers()) == 123_456_789_012
