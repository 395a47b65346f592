"""PostgreSQL is full, locked, killed or restarted under two replicas of the API and two workers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import psycopg
import pytest
from tests.e2e.chaos.batches import Batch, own_folder
from tests.e2e.chaos.gates import Gates
from tests.e2e.chaos.leftovers import Leftovers
from tests.e2e.chaos.replicas import Replicas, own_replicas
from tests.e2e.chaos.trips import Trip
from tests.e2e.chaos.victims import Victims
from tests.e2e.testbed import Testbed, wait_until

ASKERS = 6


@pytest.fixture(scope="module")
def replicas(testbed: Testbed, own_root: Path) -> Iterator[Replicas]:
    """Each process has two connections only."""
    settings = {"database": {"pool_size": 2}, "worker": {"run_in_api": False, "preparing_seconds": 30}}
    with own_replicas(testbed, own_root / "pool", "chaos-pool", apis=2, workers=2, **settings) as made:
        yield made


@pytest.fixture
def postgresql_comes_back(testbed: Testbed, replicas: Replicas) -> Iterator[None]:
    yield
    Victims(testbed, replicas).component("postgresql-up")
    replicas.start()


def ask(testbed: Testbed, replicas: Replicas, number: int = 0) -> tuple[httpx.Response, float]:
    started = time.monotonic()
    answer = testbed.alice.http.get(f"{replicas.apis[number % 2].url}/transfers", timeout=60)
    return answer, time.monotonic() - started


def lock_all_transfers(replicas: Replicas) -> psycopg.Connection[tuple[object, ...]]:
    """Until the connection is rolled back, every question about transfers waits."""
    connection = psycopg.connect(replicas.settings["database"]["url"].replace("+psycopg", ""))
    connection.execute("LOCK TABLE transfers IN ACCESS EXCLUSIVE MODE")
    return connection


def test_requests_beyond_the_pool_wait_their_turn(testbed: Testbed, replicas: Replicas) -> None:
    with ThreadPoolExecutor(2 * ASKERS) as threads, lock_all_transfers(replicas) as lock:
        answers = [threads.submit(ask, testbed, replicas, number) for number in range(2 * ASKERS)]
        wait_until(lambda: waiting_sessions(testbed) >= 4, 10, "all connections of both replicas wait for the lock")
        assert not any(answer.done() for answer in answers)
        lock.rollback()
        assert {answer.result()[0].status_code for answer in answers} == {200}


def test_requests_that_waited_too_long_are_told_to_come_again(testbed: Testbed, replicas: Replicas) -> None:
    with ThreadPoolExecutor(2 * ASKERS) as threads, lock_all_transfers(replicas) as lock:
        answers = [each.result() for each in [threads.submit(ask, testbed, replicas, number) for number in range(2 * ASKERS)]]
        lock.rollback()
    for answer, seconds in answers:
        assert answer.status_code == 503, answer.text
        assert answer.json()["code"] == "database_unavailable"
        assert int(answer.headers["Retry-After"]) > 0
        assert seconds < 40
    wait_until(lambda: ask(testbed, replicas)[0].status_code == 200, 30, "requests are served again")
    assert ask(testbed, replicas, 1)[0].status_code == 200


@pytest.mark.usefixtures("postgresql_comes_back")
def test_restarts_of_the_database_are_ridden_out(testbed: Testbed, replicas: Replicas) -> None:
    """Three deaths while uploads and downloads are on their way; nobody restarts the service."""
    victims = Victims(testbed, replicas)
    processes = [each.process for each in (*replicas.apis, *replicas.workers)]
    with own_folder(testbed.alice, "chaos-pool") as folder:
        batch = Batch(testbed, replicas, Gates(), folder, "chaos-pool", "restarts")
        kill, bring_back = victims.by_name["postgresql"]
        for _ in range(3):
            trips = [batch.begin_freely(plan) for plan in ("upload", "download", "finish", "cancel") for _ in range(2)]
            wait_until(partial(any_begun, trips), 30, "some are begun", pause=0.01)
            assert kill() == 1
            wait_until(lambda: not is_healthy(replicas), 20, "the API notices", pause=0.05)
            bring_back()
            wait_until(lambda: is_healthy(replicas), 20, "the API serves again", pause=0.05)
        batch.wait_until_all_have_ended()
        for trip in batch.trips:
            trip.check()
        outcomes = {(trip.plan, trip.outcome) for trip in batch.trips}
        assert outcomes == {("upload", "done"), ("finish", "done"), ("download", "done"), ("cancel", "cancelled")}
        assert [each.process for each in (*replicas.apis, *replicas.workers)] == processes
        assert all(process is not None and process.poll() is None for process in processes)
        leftovers = Leftovers(testbed, replicas, folder)
        wait_until(lambda: not leftovers.unfinished_rows(), 240, "all is cleaned", pause=0.5)
        assert leftovers.found() == []


def any_begun(trips: Sequence[Trip]) -> bool:
    return any(trip.begun for trip in trips)


def is_healthy(replicas: Replicas) -> bool:
    return all(httpx.get(f"{replica.url}/healthz", timeout=10).status_code == 200 for replica in replicas.apis)


def waiting_sessions(testbed: Testbed) -> int:
    with psycopg.connect(testbed.environment["DATABASE_URL"].replace("+psycopg", "")) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname LIKE 'chaos_pool%'"
        row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0
