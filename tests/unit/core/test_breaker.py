"""The breaker, on a clock of ours."""

from __future__ import annotations

import pytest

from stagecoach.core.breaker import Breaker
from stagecoach.core.errors import PermissionRefused, SubmissionUncertain, SystemUnavailable


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


def test_the_refusal_says_when_it_is_tried_again_and_is_of_the_plain_kind() -> None:
    clock = Clock()
    breaker = Breaker(SystemUnavailable, clock, 5)
    with pytest.raises(SubmissionUncertain), breaker.attempt():
        raise SubmissionUncertain("The answer was lost.")
    clock.now += 2.5
    with pytest.raises(SystemUnavailable, match=r"was lost\. It is tried again within 3 s\.") as refusal:
        breaker.require()
    assert type(refusal.value) is SystemUnavailable
    assert refusal.value.data == {"retry_after_seconds": 3}
    clock.now += 2.5
    breaker.require()


def fail(breaker: Breaker, caller: str) -> None:
    with pytest.raises(SystemUnavailable), breaker.attempt(caller):
        raise SystemUnavailable(f"dead to {caller}")


def test_one_callers_trouble_closes_the_way_for_that_caller_alone() -> None:
    breaker = Breaker(SystemUnavailable, Clock(), 5, callers_needed=2)
    fail(breaker, "alice")
    with pytest.raises(SystemUnavailable):
        breaker.require("alice")
    for _ in range(3):
        with breaker.attempt("bob"):
            pass
    with pytest.raises(SystemUnavailable):
        breaker.require("alice")


def test_two_callers_in_a_row_close_it_for_everybody_and_one_success_opens_it() -> None:
    clock = Clock()
    breaker = Breaker(SystemUnavailable, clock, 5, callers_needed=2)
    fail(breaker, "alice")
    fail(breaker, "bob")
    with pytest.raises(SystemUnavailable, match="dead to bob"):
        breaker.require("carol")
    clock.now += 6
    with breaker.attempt("carol"), pytest.raises(SystemUnavailable):
        breaker.require("dave")
    for caller in ("alice", "bob", "carol", "dave"):
        breaker.require(caller)


def test_between_two_callers_failures_a_success_counts() -> None:
    breaker = Breaker(SystemUnavailable, Clock(), 5, callers_needed=2)
    fail(breaker, "alice")
    with breaker.attempt("carol"):
        pass
    fail(breaker, "bob")
    breaker.require("carol")


def test_who_knows_nothing_of_it_changes_nothing() -> None:
    clock = Clock()
    breaker = Breaker(SystemUnavailable, clock, 5)
    with pytest.raises(SystemUnavailable), breaker.gate():
        raise SystemUnavailable("the road there is closed")
    with breaker.gate():
        breaker.broke(SystemUnavailable("dead"))
    clock.now += 5
    with breaker.gate():
        pass
    with breaker.gate():
        breaker.worked()
    with breaker.gate():
        pass
