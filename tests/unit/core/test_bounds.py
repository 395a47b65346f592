"""What is refused says the limit, what is used of it, what to do, and when to ask again where time helps."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.core.transfers import NOW

from stagecoach.core.bounds import Bounds, Usage, require_within
from stagecoach.core.errors import (
    QuotaReached,
    SizeRefused,
    StagecoachError,
    StagingFull,
    TooManyRequests,
    TooManyTransfers,
)

BOUNDS = Bounds(10, 100, 30, max_staged_bytes_per_user=1000, max_staged_bytes=5000)
EMPTY = Usage(0, 0, None, 0, 0)


def refusal(usage: Usage, size_bytes: int | None = 1, bounds: Bounds = BOUNDS) -> StagecoachError:
    with pytest.raises(StagecoachError) as caught:
        require_within(bounds, usage, "alps", size_bytes, NOW)
    return caught.value


def test_up_to_each_bound_all_is_well() -> None:
    edge = Usage(9, 99, NOW - timedelta(seconds=60), 900, 4900)
    require_within(BOUNDS, edge, "alps", 100, NOW)
    require_within(BOUNDS, replace(edge, staged_of_user_bytes=999), "alps", None, NOW)
    require_within(BOUNDS, replace(edge, staged_of_user_bytes=1000), "alps", 0, NOW)
    unbounded = replace(BOUNDS, max_staged_bytes_per_user=None, max_staged_bytes=None)
    require_within(unbounded, replace(edge, staged_of_user_bytes=10**18, staged_bytes=10**18), "alps", 10**13, NOW)


def test_too_many_in_a_minute() -> None:
    error = refusal(replace(EMPTY, full_minute_since=NOW - timedelta(seconds=48.5)))
    assert type(error) is TooManyRequests
    assert error.data == {"limit_per_minute": 30, "retry_after_seconds": 12}
    assert error.message == "You began 30 transfers in the last minute, which is this system's limit; begin the next in 12 s."


def test_too_many_under_way() -> None:
    own = refusal(replace(EMPTY, open_of_user=10))
    assert (type(own), own.data) == (TooManyTransfers, {"limit": 10, "used": 10, "retry_after_seconds": 60})
    assert "finish or cancel some" in own.message
    all_users = refusal(replace(EMPTY, open_of_system=101))
    assert (type(all_users), all_users.data["used"]) == (TooManyTransfers, 101)
    assert "of all users" in all_users.message


def test_the_users_quota() -> None:
    error = refusal(replace(EMPTY, staged_of_user_bytes=901), 100)
    assert type(error) is QuotaReached
    assert error.data == {"limit_bytes": 1000, "used_bytes": 901, "requested_bytes": 100}
    assert "901 of the 1000 bytes" in error.message
    assert "cancel some" in error.message
    assert type(refusal(replace(EMPTY, staged_of_user_bytes=1000), None)) is QuotaReached


def test_the_whole_staging_area() -> None:
    error = refusal(replace(EMPTY, staged_bytes=4950), 51)
    assert type(error) is StagingFull
    assert (error.data["retry_after_seconds"], error.data["used_bytes"]) == (60, 4950)
    assert "room for 50 more bytes" in error.message


def test_what_never_fits_is_said_to_be_too_large_rather_than_too_early() -> None:
    error = refusal(replace(EMPTY, staged_of_user_bytes=1000), 1001)
    assert (type(error), error.data) == (SizeRefused, {"limit_bytes": 1000})
    less_in_all = replace(BOUNDS, max_staged_bytes=500)
    assert refusal(EMPTY, 501, less_in_all).data == {"limit_bytes": 500}
