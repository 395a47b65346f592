"""A system that hangs: its own users are told within one timeout and then at once, and nobody else notices anything."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.own_service import Road, own_service
from tests.e2e.testbed import Person, Testbed, wait_until

TIMEOUT_SECONDS = 3.0
REST_SECONDS = 5.0
# This machine is shared; ten times what a request takes when all is quiet.
QUICK_SECONDS = 2.5


@pytest.fixture
def near_and_far(testbed: Testbed, tmp_path: Path) -> Iterator[tuple[Testbed, Road]]:
    """The one cluster as two systems: ``testbed`` directly, ``far`` over a road that can freeze."""
    road = Road(int(testbed.environment["SSH_PORT"]))

    def two_systems(settings: dict[str, Any]) -> None:
        near = settings["systems"][0]
        near["ssh"] |= {"command_timeout_seconds": 20}
        far_ssh = {**near["ssh"], "port": road.port}
        far_ssh |= {
            "connect_timeout_seconds": TIMEOUT_SECONDS,
            "command_timeout_seconds": TIMEOUT_SECONDS,
            "keepalive_seconds": 1,
        }
        settings["systems"] = [near, {**near, "name": "far", "ssh": far_ssh}]

    with own_service(testbed, tmp_path, two_systems) as own:
        yield own, road
    road.close()


def timed(ask: Any) -> tuple[float, httpx.Response]:
    begun = time.monotonic()
    answer = ask()
    return time.monotonic() - begun, answer


def begin(own: Testbed, person: Person, name: str, system: str) -> tuple[float, httpx.Response]:
    return timed(lambda: own.begin_upload(person, person.home / f"bounds-{name}", 10, system))


def told_to_come_back(answer: httpx.Response) -> int:
    assert answer.status_code == 503, answer.text
    problem = answer.json()
    seconds = int(answer.headers["Retry-After"])
    assert problem["data"]["retry_after_seconds"] == seconds
    assert 1 <= seconds <= 10
    return seconds


def test_a_frozen_login_node_costs_its_users_one_timeout_and_others_nothing(near_and_far: tuple[Testbed, Road]) -> None:
    own, road = near_and_far
    stuck = own.begin_upload(own.alice, own.alice.home / "bounds-stuck", 10, "far")
    assert stuck.status_code == 201, stuck.text
    quiet, answer = begin(own, own.alice, "quiet", "testbed")
    assert answer.status_code == 201, answer.text
    own.complete(stuck.json(), own.put_parts(stuck.json(), b"0123456789"))
    road.freeze()
    with ThreadPoolExecutor(40) as pool:
        hanging = [pool.submit(begin, own, person, "far", "far") for _ in range(15) for person in (own.alice, own.bob)]
        for number in range(6):
            seconds, answer = begin(own, own.bob, f"near-{number}", "testbed")
            assert answer.status_code == 201, answer.text
            assert seconds < quiet + QUICK_SECONDS, f"{seconds:.2f} s, {quiet:.2f} s before"
            seconds, answer = timed(lambda: own.bob.http.get("/healthz"))
            assert (answer.status_code, seconds < QUICK_SECONDS) == (200, True), seconds
        waited = [task.result() for task in hanging]
    for seconds, answer in waited:
        told_to_come_back(answer)
        # Two for those who had a connection when it froze: the command's, then the new login's.
        assert seconds < 2 * TIMEOUT_SECONDS + QUICK_SECONDS, f"{seconds:.2f} s"
    # While the worker's looks at the far one hang, those at the near one go on.
    began = time.monotonic()
    near = own.upload(own.bob, own.bob.home / "bounds-near", b"near")
    assert near["state"] == "done", near
    assert time.monotonic() - began < 30
    for person in (own.alice, own.bob):
        wait_until(lambda person=person: begin(own, person, "far", "far")[0] < 1, 20, "it is refused at once")  # type: ignore[misc]
    road.thaw()
    again = wait_until(
        lambda: (answer := begin(own, own.bob, "far", "far")[1]).status_code == 201 and answer, REST_SECONDS + 25, "it is back"
    )
    assert again
    transfer = own.wait(own.alice, stuck.json()["transferId"])
    assert transfer["state"] == "done", transfer


@contextmanager
def frozen_scheduler(testbed: Testbed) -> Iterator[None]:
    pid = int(Path(testbed.environment["TESTBED_ROOT"], "run", "slurmctld.pid").read_text().split()[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_frozen_scheduler_is_asked_once_and_comes_back_by_itself(testbed: Testbed, tmp_path: Path) -> None:
    with own_service(testbed, tmp_path, lambda settings: None) as own:
        with frozen_scheduler(testbed):
            with ThreadPoolExecutor(4) as pool:
                first = [pool.submit(begin, own, person, "frozen", "testbed") for person in (own.alice, own.bob)]
                for task in first:
                    told_to_come_back(task.result()[1])
            rows = len(own.alice.http.get("/transfers").json()["transfers"])
            for _ in range(3):
                seconds, answer = begin(own, own.alice, "frozen", "testbed")
                if "tried again within" in answer.json()["message"]:
                    break
            told_to_come_back(answer)
            assert "tried again within" in answer.json()["message"], answer.text
            assert seconds < 1, f"{seconds:.2f} s"
            assert len(own.alice.http.get("/transfers").json()["transfers"]) in {rows, rows + 1, rows + 2}
        transfer = wait_until(
            lambda: (answer := begin(own, own.alice, "thawed", "testbed")[1]).status_code == 201 and answer, 30, "it is back"
        )
        own.alice.http.delete(f"/transfers/{transfer.json()['transferId']}")
        # What was in doubt while it was frozen leaves nothing either.
        for person in (own.alice, own.bob):
            for shown in person.http.get("/transfers").json()["transfers"]:
                assert shown["state"] in {"failed", "cancelled", "cancelling"}, shown
                own.wait_until_nothing_is_left(person, shown, seconds=180)


def test_a_dead_store_is_asked_once_and_comes_back_by_itself(testbed: Testbed, tmp_path: Path) -> None:
    road = Road(int(testbed.environment["S3_ENDPOINT"].rsplit(":", 1)[1].strip("/")))

    def over_the_road(settings: dict[str, Any]) -> None:
        settings["s3"]["private_url"] = f"http://127.0.0.1:{road.port}"
        settings["s3"]["request_timeout_seconds"] = TIMEOUT_SECONDS

    with own_service(testbed, tmp_path, over_the_road) as own:
        own.alice.http.delete(f"/transfers/{begin(own, own.alice, 'store', 'testbed')[1].json()['transferId']}")
        road.freeze()
        seconds, answer = begin(own, own.alice, "store", "testbed")
        told_to_come_back(answer)
        assert "S3 store" in answer.json()["message"]
        assert seconds < TIMEOUT_SECONDS + QUICK_SECONDS, f"{seconds:.2f} s"
        seconds, answer = begin(own, own.bob, "store", "testbed")
        told_to_come_back(answer)
        road.thaw()
        back = wait_until(
            lambda: (answer := begin(own, own.bob, "store", "testbed")[1]).status_code == 201 and answer, 30, "it is back"
        )
        own.bob.http.delete(f"/transfers/{back.json()['transferId']}")
    road.close()


@contextmanager
def frozen_database(testbed: Testbed) -> Iterator[None]:
    """The server and all its children stop; their connections stay."""
    first = int(Path(testbed.environment["TESTBED_ROOT"], "run", "postgresql.pid").read_text().split()[0])
    parents = subprocess.run(["ps", "-eo", "ppid,pid"], capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    pairs = [tuple(int(number) for number in line.split()) for line in parents]
    pids = {first}
    while more := {pid for parent, pid in pairs if parent in pids} - pids:
        pids |= more
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def test_a_frozen_database_ends_no_request_in_silence_and_is_ridden_out(testbed: Testbed) -> None:
    target = testbed.fresh(testbed.alice, "bounds-frozen-database")
    begun = testbed.begin_upload(testbed.alice, target, 5).json()
    testbed.complete(begun, testbed.put_parts(begun, b"whole"))
    with frozen_database(testbed), ThreadPoolExecutor(30) as pool:
        asked = [pool.submit(timed, lambda: testbed.alice.http.get("/transfers", timeout=90)) for _ in range(30)]
        for task in asked:
            seconds, answer = task.result()
            told_to_come_back(answer)
            assert answer.json()["code"] == "database_unavailable"
            # An answer's time, the driver's patience with a query that it takes back, and this machine's.
            assert seconds < 45, f"{seconds:.2f} s"
    wait_until(lambda: testbed.alice.http.get("/transfers").status_code == 200, 60, "the database is used again")
    assert testbed.wait(testbed.alice, begun["transferId"])["state"] == "done"
    assert target.read_bytes() == b"whole"
