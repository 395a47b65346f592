"""Looks are close together while something happens, far apart while nothing does, and never at the same beat after errors."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.core.transfers import NOW, a_transfer

from stagecoach.core.polling import MAX_ERROR_WAIT_SECONDS, next_look_seconds, retry_seconds


@pytest.mark.parametrize(
    ("quiet", "seconds"), [(-5, 0.5), (0, 0.5), (4, 0.5), (5, 0.5), (10, 1.0), (100, 10.0), (300, 30.0), (301, 30.0), (1e6, 30.0)]
)
def test_the_next_look_comes_after_a_tenth_of_the_quiet_time(quiet: float, seconds: float) -> None:
    transfer = a_transfer(changed_at=NOW - timedelta(seconds=quiet))
    assert next_look_seconds(transfer, NOW, 0.5, 30.0) == pytest.approx(seconds)


def test_a_retry_waits_longer_each_time_up_to_a_limit() -> None:
    waits = [retry_seconds(looks, 0.5, 0.5) for looks in range(1, 40)]
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(0.75)
    assert waits[-1] == pytest.approx(MAX_ERROR_WAIT_SECONDS * 0.75)


@pytest.mark.parametrize("looks", [0, 1, 5, 20, 1000, 10**9])
def test_jitter_spreads_a_retry_over_half_its_time(looks: int) -> None:
    shortest, longest = retry_seconds(looks, 0.5, 0.0), retry_seconds(looks, 0.5, 0.999999)
    assert 0 < shortest <= longest <= MAX_ERROR_WAIT_SECONDS
    assert longest == pytest.approx(2 * shortest, rel=1e-3)
