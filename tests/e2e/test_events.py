"""On the testbed: one key makes one job, a stream tells a real upload, and a receiver that was away gets all of it in order."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.testbed import Testbed, wait_until
from tests.fakes.receiver import SECRET, Receiver

SIZE = 20 * 1024 * 1024
ALL = ["receiving", "staged", "queued", "moving", "done"]
# A job may begin and end between two looks.
ROADS = (ALL, [state for state in ALL if state != "moving"])


def body_of(testbed: Testbed, name: str) -> dict[str, Any]:
    path = str(testbed.fresh(testbed.alice, name))
    return {"path": path, "transferDirectives": {"transferMethod": "s3", "fileSize": SIZE}}


def post(testbed: Testbed, body: dict[str, Any], key: str) -> httpx.Response:
    route = f"/filesystem/{testbed.system}/transfer/upload"
    return testbed.alice.http.post(route, json=body, headers={"Idempotency-Key": key})


def jobs_of(testbed: Testbed) -> list[str]:
    return testbed.slurm("squeue", "-h", "-u", "alice", "-o", "%i").splitlines()


def test_the_same_request_twice_is_one_transfer_and_one_job(testbed: Testbed) -> None:
    body, key, before = body_of(testbed, "events-twice.bin"), uuid.uuid4().hex, set(jobs_of(testbed))
    first, again = post(testbed, body, key), post(testbed, body, key)
    assert (first.status_code, again.status_code) == (201, 201), again.text
    assert again.json()["transferId"] == first.json()["transferId"]
    assert again.json()["transferState"] == "receiving"
    assert set(jobs_of(testbed)) - before == {first.json()["transferJob"]["jobId"]}
    other = post(testbed, {**body, "transferDirectives": {"fileSize": 1}}, key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    content = os.urandom(SIZE)
    testbed.complete(again.json(), testbed.put_parts(again.json(), content))
    done = testbed.wait(testbed.alice, first.json()["transferId"])
    assert done["state"] == "done", done
    ended = post(testbed, body, key).json()
    assert (ended["transferId"], ended["transferState"]) == (done["id"], "done")
    assert "partsUploadUrls" not in ended["transferDirectives"]


def test_twenty_racing_requests_with_one_key_are_one_transfer_and_one_job(testbed: Testbed) -> None:
    body, key, before = body_of(testbed, "events-race.bin"), uuid.uuid4().hex, set(jobs_of(testbed))
    start = threading.Barrier(20)
    refused: list[int] = []

    def ask(_: int) -> str:
        start.wait()

        def answer() -> str:
            got = post(testbed, body, key)
            if got.status_code == 201:
                return str(got.json()["transferId"])
            assert (got.status_code, got.json()["code"]) == (409, "request_under_way"), got.text
            assert got.headers["Retry-After"] == "1"
            refused.append(got.status_code)
            return ""

        return wait_until(answer, 60, "the transfer is answered")

    with ThreadPoolExecutor(20) as threads:
        ids = set(threads.map(ask, range(20)))
    assert len(ids) == 1
    made = set(jobs_of(testbed)) - before
    assert len(made) == 1, made
    (transfer_id,) = ids
    print(f"20 racing requests, {len(refused)} answers of 409: transfer {transfer_id}, job {made}")
    assert len(testbed.open_jobs(transfer_id)) == 1
    testbed.alice.http.delete(f"/transfers/{transfer_id}")
    testbed.wait_until_nothing_is_left(testbed.alice, {"id": transfer_id, "path": body["path"], "state": "cancelled"})


def test_curl_sees_a_real_upload_from_its_first_line_to_its_end(testbed: Testbed) -> None:
    content = os.urandom(SIZE)
    begun = post(testbed, body_of(testbed, "events-curl.bin"), uuid.uuid4().hex).json()
    url = f"{testbed.url}/transfers/{begun['transferId']}/events"
    token = testbed.environment["ALICE_TOKEN"]
    command = ["curl", "-sN", "--noproxy", "*", "--max-time", "90", "-H", f"Authorization: Bearer {token}", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
        testbed.complete(begun, testbed.put_parts(begun, content))
        printed, _ = curl.communicate(timeout=90)
    assert curl.returncode == 0
    blocks = [dict(line.split(": ", 1) for line in block.splitlines() if ": " in line[1:]) for block in printed.split("\n\n")]
    events = [(block["event"], json.loads(block["data"])) for block in blocks if "event" in block]
    told = [data["state"] for kind, data in events if kind == "story"]
    assert (told[0], told[1:]) in [("preparing", road) for road in ROADS]
    seen = [data["state"] for kind, data in events if kind == "state"]
    # A state that lasts less than the interval of looking is in the story only.
    assert seen == [state for state in ALL if state in seen]
    assert (seen[0], seen[-1], events[-1][0]) == ("receiving", "done", "state")
    assert events[-1][1]["bytesMoved"] == SIZE
    numbers = [int(block["id"]) for block in blocks if "id" in block]
    assert numbers == sorted(numbers)
    headers = {"Last-Event-ID": str(numbers[-1])}
    assert testbed.alice.http.get(f"/transfers/{begun['transferId']}/events", headers=headers).status_code == 204


def test_the_service_stops_within_seconds_with_streams_open(testbed: Testbed) -> None:
    begun = post(testbed, body_of(testbed, "events-stop.bin"), uuid.uuid4().hex).json()
    pid = testbed.service_pid("api")
    path = f"/transfers/{begun['transferId']}/events"
    try:
        with testbed.alice.http.stream("GET", path) as first, testbed.alice.http.stream("GET", path) as second:
            lines = first.iter_lines()
            assert next(lines)
            os.kill(pid, 15)
            wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 5, "the API has ended")
            for stream in (lines, second.iter_lines()):
                assert "event: state" in list(stream)
    finally:
        testbed.start_service()
    assert testbed.alice.http.delete(f"/transfers/{begun['transferId']}").json()["state"] in {"cancelled", "cancelling"}


@pytest.fixture
def receiver(testbed: Testbed) -> Iterator[Receiver]:
    """One that the service may tell; it is not listening yet."""
    made = Receiver()
    with made.listening():
        pass
    webhooks = {
        "STAGECOACH_WEBHOOKS__ALLOWED_HOSTS": json.dumps([f"127.0.0.1:{made.port}"]),
        "STAGECOACH_WEBHOOKS__SIGNING_SECRET": SECRET,
        "STAGECOACH_WEBHOOKS__ALLOW_HTTP": "true",
    }
    testbed.start_service("--restart", **webhooks)
    yield made
    testbed.start_service("--restart")


def test_a_receiver_that_was_away_gets_every_state_later_in_order_and_signed(testbed: Testbed, receiver: Receiver) -> None:
    body = {**body_of(testbed, "events-webhook.bin"), "webhookUrl": receiver.url}
    begun = post(testbed, body, uuid.uuid4().hex)
    assert begun.status_code == 201, begun.text
    transfer_id = begun.json()["transferId"]
    testbed.complete(begun.json(), testbed.put_parts(begun.json(), os.urandom(SIZE)))
    done = testbed.wait(testbed.alice, transfer_id)
    assert done["state"] == "done", done
    road = [entry["state"] for entry in done["history"] if entry["state"] != "preparing"]
    assert road in ROADS

    def trouble() -> bool:
        webhook = testbed.show(testbed.alice, transfer_id)["webhook"]
        assert (webhook["host"], webhook["pending"]) == (f"127.0.0.1:{receiver.port}", len(road))
        return webhook["trouble"] is not None

    wait_until(trouble, 30, "the trouble is shown")
    with receiver.listening():
        wait_until(lambda: len(receiver.messages) >= len(road), 90, "all is delivered")
        wait_until(lambda: testbed.show(testbed.alice, transfer_id)["webhook"]["pending"] == 0, 10, "nothing is pending")
    assert receiver.states == road
    assert all(message.is_signed for message in receiver.messages)
    assert {message.document["data"]["id"] for message in receiver.messages} == {transfer_id}
    assert "s3cret" not in json.dumps(testbed.show(testbed.alice, transfer_id))
    for name in ("api", "worker"):
        log = Path(testbed.environment["TESTBED_ROOT"], "log", f"stagecoach-{name}.log").read_text(encoding="utf-8")
        assert transfer_id in log or name == "api"
        assert "s3cret" not in log
    refused = post(testbed, {**body, "webhookUrl": "https://elsewhere.example.org/"}, uuid.uuid4().hex)
    assert (refused.status_code, refused.json()["code"]) == (400, "webhook_refused")
