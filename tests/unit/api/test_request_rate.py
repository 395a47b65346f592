"""How often one may ask in a minute, and what those hear who ask more often."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI
from tests.unit.api.answers import problem
from tests.unit.api.conftest import Issuer, with_token

from stagecoach.api import request_rate
from stagecoach.api.request_rate import RequestRate
from stagecoach.core.errors import TooManyRequests


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refused(ask: Callable[[], None]) -> int:
    """Seconds until it may be asked again."""
    with pytest.raises(TooManyRequests) as caught:
        ask()
    seconds = caught.value.data["retry_after_seconds"]
    assert isinstance(seconds, int)
    assert f"ask again in {seconds} s" in caught.value.message
    return seconds


def test_the_window_moves(clock: Clock) -> None:
    rate = RequestRate(3, clock)
    for _ in range(3):
        rate.count_user("alice")
        clock.now += 10
    assert refused(lambda: rate.count_user("alice")) == 30
    clock.now += 29.5
    assert refused(lambda: rate.count_user("alice")) == 1
    clock.now += 0.5
    rate.count_user("alice")
    assert refused(lambda: rate.count_user("alice")) == 10


def test_users_and_addresses_are_counted_apart(clock: Clock) -> None:
    rate = RequestRate(1, clock)
    rate.count_user("alice")
    rate.count_user("192.0.2.1")
    rate.count_stranger("192.0.2.1")
    rate.count_stranger("::ffff:192.0.2.2")
    rate.count_stranger("2001:db8:0:1::1")
    rate.count_stranger(None)
    assert refused(lambda: rate.count_stranger("192.0.2.2"))
    assert refused(lambda: rate.count_stranger("2001:db8:0:1:ffff::7"))
    rate.count_stranger("2001:db8:0:2::1")


def test_zero_is_no_limit(clock: Clock) -> None:
    rate = RequestRate(0, clock)
    for _ in range(5000):
        rate.count_user("alice")


def test_the_quiet_are_forgotten_and_the_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_rate, "MAX_WINDOWS", 100)
    rate = RequestRate(2, clock)
    for number in range(1000):
        rate.count_stranger(f"192.0.{number // 250}.{number % 250}")
    assert len(rate._windows.times) == 100
    clock.now += 61
    rate.count_user("alice")
    assert list(rate._windows.times) == ["requests/user/alice/2/1/minute"]


@pytest.fixture
def limited(application: FastAPI, clock: Clock) -> FastAPI:
    """Three requests a minute."""
    rate: RequestRate = application.state.rate
    rate._max_per_minute, rate._windows.clock = 3, clock
    return application


async def test_a_user_who_asks_too_often_is_told_when_to_ask_again(limited: FastAPI, issuer: Issuer, clock: Clock) -> None:
    async with with_token(limited, issuer.token()) as alice, with_token(limited, issuer.token(preferred_username="bob")) as bob:
        for _ in range(3):
            assert (await alice.get("/transfers")).status_code == 200
        clock.now += 20
        answer = await alice.get("/transfers")
        told = problem(answer, 429, "too_many_requests")
        assert answer.headers["Retry-After"] == "40"
        assert told["data"] == {"limit_per_minute": 3, "retry_after_seconds": 40}
        assert told["user"] == "alice"
        assert (await bob.get("/transfers")).status_code == 200
        clock.now += 40
        assert (await alice.get("/transfers")).status_code == 200


async def test_bad_tokens_and_none_are_counted_by_address_and_never_stand_in_the_way_of_good_ones(
    limited: FastAPI, anonymous: httpx.AsyncClient, issuer: Issuer
) -> None:
    async with with_token(limited, "no.token.at-all") as forger, with_token(limited, issuer.token()) as alice:
        problem(await forger.get("/transfers"), 401)
        problem(await anonymous.get("/transfers"), 401)
        assert (await anonymous.get("/openapi.json")).status_code == 200
        for client in (forger, anonymous):
            answer = await client.get("/transfers")
            problem(answer, 429, "too_many_requests")
            assert int(answer.headers["Retry-After"]) == 60
        for client in (forger, anonymous):
            problem(await client.get("/openapi.json"), 429)
        assert (await alice.get("/transfers")).status_code == 200
        assert (await anonymous.get("/healthz")).status_code == 200
