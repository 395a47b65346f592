"""Looks are close together while something happens, far apart while nothing does, and never at the same beat after errors."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from datetime import timedelta

import pytest
from tests.unit.core.transfers import NOW, a_transfer

from stagecoach.core.polling import MAX_ERROR_WAIT_SECONDS, QUESTIONS_AN_ASK, next_ask_at, next_look_seconds, retry_seconds
from stagecoach.core.transfer import State


@pytest.mark.parametrize(
    ("quiet", "seconds"), [(-5, 0.5), (0, 0.5), (4, 0.5), (5, 0.5), (10, 1.0), (100, 10.0), (300, 30.0), (301, 30.0), (1e6, 30.0)]
)
def test_the_next_look_comes_after_a_tenth_of_the_quiet_time(quiet: float, seconds: float) -> None:
    transfer = a_transfer(changed_at=NOW - timedelta(seconds=quiet))
    assert next_look_seconds(transfer, NOW, 0.5, 30.0) == pytest.approx(seconds)


@pytest.mark.parametrize(("state", "seconds"), [(State.RECEIVING, 300.0), (State.QUEUED, 30.0), (State.MOVING, 30.0)])
def test_a_job_is_asked_about_every_half_minute_however_quiet_it_is(state: State, seconds: float) -> None:
    transfer = a_transfer(state=state, changed_at=NOW - timedelta(days=1))
    assert next_look_seconds(transfer, NOW, 0.5, 300.0) == seconds


def asks(per_minute: int, *, questions: Callable[[], int], seconds: float, duration: float = 0.0) -> list[float]:
    """When each question is put where something is always due. Each ask reserves the most, and gives back what it saved."""
    now, put = 0.0, list[float]()
    while now < seconds:
        used = questions()
        put += [now + duration] * used
        now = max(next_ask_at(put, now + duration, per_minute), now + duration)
    return put


@pytest.mark.parametrize("per_minute", [3, 4, 5, 12, 30, 120])
@pytest.mark.parametrize("duration", [0.0, 0.2, 7.0])
def test_no_minute_ever_sees_more_questions_than_it_may(per_minute: int, duration: float) -> None:
    dice = random.Random(per_minute)
    put = asks(per_minute, questions=lambda: dice.randint(1, QUESTIONS_AN_ASK), seconds=600, duration=duration)
    for first in put:
        assert sum(first <= moment < first + 60 for moment in put) <= per_minute
    assert len(put) >= 8 * min(per_minute - 2, 6)


def test_a_quiet_system_is_asked_every_half_second_at_first_and_a_busy_one_every_few_seconds() -> None:
    put = asks(12, questions=lambda: 1, seconds=600)
    assert put[:5] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert put[5] < 3
    gaps = [later - earlier for earlier, later in itertools.pairwise(put)]
    assert max(gaps) < 16
    assert 5 < sum(gaps) / len(gaps) < 10


def test_after_a_quiet_minute_all_is_as_in_the_beginning() -> None:
    busy = asks(12, questions=lambda: 1, seconds=300)
    assert next_ask_at(busy, busy[-1] + 60.0, 12) == busy[-1] + 60.5


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
