"""The breaker, on a clock of ours."""

from __future__ import annotations

import pytest

from stagecoach.clusters.breaker import Breaker
from stagecoach.core.errors import PermissionRefused, SystemUnavailable


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_failure_is_answered_at_once_until_its_rest_is_over() -> None:
    clock, tried = Clock(), []
    breaker = Breaker(SystemUnavailable, clock, 5)

    def attempt(failure: Exception | None) -> None:
        with breaker.attempt():
            tried.append(clock.now)
            if failure is not None:
                raise failure

    attempt(None)
    with pytest.raises(SystemUnavailable, match="dead"):
        attempt(SystemUnavailable("dead"))
    clock.now = 104.9
    with pytest.raises(SystemUnavailable, match="dead"):
        attempt(None)
    assert tried == [100.0, 100.0]
    clock.now = 105.0
    attempt(None)
    attempt(None)
    assert tried == [100.0, 100.0, 105.0, 105.0]


def test_after_the_rest_one_tries_and_the_others_do_not_wait() -> None:
    clock = Clock()
    breaker = Breaker(SystemUnavailable, clock, 5)
    with pytest.raises(SystemUnavailable), breaker.attempt():
        raise SystemUnavailable("dead")
    clock.now += 6
    with breaker.attempt(), pytest.raises(SystemUnavailable, match="dead"), breaker.attempt():
        pytest.fail("a second one tried")
    with breaker.attempt():
        pass


def test_a_probe_that_is_cancelled_lets_the_next_one_try() -> None:
    clock = Clock()
    breaker = Breaker(SystemUnavailable, clock, 5)
    with pytest.raises(SystemUnavailable), breaker.attempt():
        raise SystemUnavailable("dead")
    clock.now += 6
    with pytest.raises(KeyboardInterrupt), breaker.attempt():
        raise KeyboardInterrupt
    with breaker.attempt():
        pass


def test_another_kind_of_failure_shows_that_it_works() -> None:
    breaker = Breaker(SystemUnavailable, Clock(), 5)
    for _ in range(2):
        with pytest.raises(PermissionRefused), breaker.attempt():
            raise PermissionRefused("not you")
