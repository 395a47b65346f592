"""One transfer moved by a job of several tasks, on both nodes of the testbed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.test_round_trip import random_bytes
from tests.e2e.testbed import Testbed, wait_until

SYSTEM = "testbed-two-nodes"
MEBIBYTE = 1024 * 1024
SIZE = 200 * MEBIBYTE + 1
TOLD = re.compile(r"Task (\d) of 2 on (\w+): (\d+) parts from (\d+) on, (\d+) bytes moved, (\d+) resumed\.")


@pytest.fixture(scope="module")
def content() -> bytes:
    return random_bytes(4 * MEBIBYTE) * 50 + b"!"


def shares(transfer: dict[str, Any]) -> list[dict[str, int | str]]:
    """What the job's log says that each task did."""
    found = TOLD.findall(transfer["jobLog"])
    keys = ("task", "node", "parts", "first", "moved", "resumed")
    return [{key: text if key == "node" else int(text) for key, text in zip(keys, row, strict=True)} for row in found]


def with_log(testbed: Testbed, transfer_id: str) -> dict[str, Any]:
    """As it is shown when its job is over: what the job printed is kept then."""

    def look() -> dict[str, Any] | None:
        shown = testbed.show(testbed.alice, transfer_id)
        return shown if shown["jobLog"] is not None else None

    return wait_until(look, 60, "the job's log is kept") or {}


def both_worked(transfer: dict[str, Any], *, resumed: bool = False) -> None:
    told = shares(transfer)
    assert [(share["task"], share["node"]) for share in told] == [(0, "n1"), (1, "n2")], transfer["jobLog"]
    assert sum(int(share["parts"]) for share in told) == -(-SIZE // (8 * MEBIBYTE))
    assert sum(int(share["moved"]) + int(share["resumed"]) for share in told) == SIZE
    assert resumed or all(int(share["moved"]) > 0.4 * SIZE for share in told)
    assert transfer["jobLog"].count("\nFile was successfully moved") == 1


class SlowStore:
    """The store's process, let run a fiftieth of the time: what moves is in its middle for seconds."""

    def __init__(self, testbed: Testbed) -> None:
        name = {"rgw": "radosgw", "rclone": "rclone"}[testbed.environment["S3_KIND"]]
        self._process = int(Path(testbed.environment["TESTBED_ROOT"], "run", f"{name}.pid").read_text())
        self._thawed = threading.Event()
        self._thread = threading.Thread(target=self._throttle)

    def slow_down(self) -> None:
        self._thread.start()

    def thaw(self) -> None:
        self._thawed.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _throttle(self) -> None:
        while not self._thawed.wait(0.003):
            os.kill(self._process, signal.SIGSTOP)
            self._thawed.wait(0.147)
            os.kill(self._process, signal.SIGCONT)


@pytest.fixture
def slow_store(testbed: Testbed) -> Iterator[SlowStore]:
    store = SlowStore(testbed)
    yield store
    store.thaw()


def noted(testbed: Testbed, transfer_id: str) -> list[int]:
    """Parts in the journals of both tasks."""
    counts = []
    for name in ("journal.json", "journal-1.json"):
        path = testbed.alice.home / ".stagecoach" / transfer_id / name
        counts.append(len(json.loads(path.read_text())["parts"]) if path.exists() else 0)
    return counts


def begin(testbed: Testbed, target: Path, content: bytes, slow_store: SlowStore | None = None) -> dict[str, Any]:
    """An upload whose object is whole: its job is released by now or soon."""
    begun = testbed.begin_upload(testbed.alice, target, len(content), SYSTEM)
    assert begun.status_code == 201, begun.text
    answer: dict[str, Any] = begun.json()
    etags = testbed.put_parts(answer, content)
    testbed.complete(answer, etags)
    if slow_store is not None:
        slow_store.slow_down()
    return answer


def test_a_file_goes_up_and_comes_back_through_both_nodes_with_one_job_each_way(testbed: Testbed, content: bytes) -> None:
    target = testbed.fresh(testbed.alice, "two-nodes.bin")
    target.write_bytes(b"old")
    begun = begin(testbed, target, content)
    job_id = begun["transferJob"]["jobId"]
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    assert (transfer["state"], transfer["jobId"]) == ("done", job_id), transfer
    both_worked(with_log(testbed, transfer["id"]))
    assert target.read_bytes() == content
    assert target.stat().st_uid == testbed.alice.uid
    assert testbed.slurm("sacct", "-n", "-X", "-o", "JobID,NNodes,NTasks%5", "-P", "-j", job_id).startswith(f"{job_id}|2|")
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)

    down = testbed.begin_download(testbed.alice, target, SYSTEM).json()
    staged = testbed.wait(testbed.alice, down["transferId"], "staged")
    assert (staged["state"], staged["jobId"]) == ("staged", down["transferJob"]["jobId"]), staged
    both_worked(with_log(testbed, staged["id"]))
    answer = httpx.get(down["transferDirectives"]["downloadUrl"], timeout=60)
    assert answer.content == content
    testbed.alice.http.post(f"/transfers/{down['transferId']}/finish")
    testbed.wait_until_nothing_is_left(testbed.alice, testbed.show(testbed.alice, down["transferId"]))


def test_a_smaller_file_is_moved_by_one_task(testbed: Testbed) -> None:
    content = random_bytes(16 * MEBIBYTE)
    target = testbed.fresh(testbed.alice, "one-node.bin")
    transfer = testbed.upload(testbed.alice, target, content, SYSTEM)
    assert transfer["state"] == "done", transfer
    assert shares(with_log(testbed, transfer["id"])) == []
    assert target.read_bytes() == content


@pytest.fixture
def second_node(testbed: Testbed) -> Iterator[None]:
    """Is there again after a test that lost it."""
    yield
    if "down" in testbed.slurm("sinfo", "-h", "-n", "n2", "-p", "debug", "-o", "%T"):
        testbed.slurm("scontrol", "update", "nodename=n2", "state=resume")


@pytest.mark.usefixtures("second_node")
@pytest.mark.parametrize("event", ["requeue", "node failure"])
def test_a_job_put_back_into_the_queue_goes_on_where_both_tasks_were(
    testbed: Testbed, content: bytes, slow_store: SlowStore, event: str
) -> None:
    target = testbed.fresh(testbed.alice, "requeued.bin")
    target.write_bytes(b"old")
    begun = begin(testbed, target, content, slow_store)
    transfer_id, job_id = begun["transferId"], begun["transferJob"]["jobId"]
    wait_until(lambda: min(noted(testbed, transfer_id)) > 0, 60, "both tasks have finished parts", pause=0.01)
    if event == "requeue":
        testbed.slurm("scontrol", "requeue", job_id)
    else:
        testbed.slurm("scontrol", "update", "nodename=n2", "state=down", "reason=test")
    wait_until(lambda: testbed.job_line(job_id).startswith("PENDING"), 30, "the job is pending again")
    assert target.read_bytes() == b"old"
    slow_store.thaw()
    testbed.slurm("scontrol", "update", f"jobid={job_id}", "starttime=now")  # not after two minutes
    transfer = testbed.wait(testbed.alice, transfer_id)
    assert (transfer["state"], transfer["jobId"]) == ("done", job_id), transfer
    transfer = with_log(testbed, transfer_id)
    both_worked(transfer, resumed=True)
    assert all(int(share["resumed"]) > 0 for share in shares(transfer)), transfer["jobLog"]
    assert sum(int(share["moved"]) for share in shares(transfer)) > 0, transfer["jobLog"]
    assert target.read_bytes() == content
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_a_cancel_in_the_middle_ends_both_tasks_and_leaves_nothing(
    testbed: Testbed, content: bytes, slow_store: SlowStore, direction: str
) -> None:
    path = testbed.fresh(testbed.alice, "cancelled-two-nodes.bin")
    if direction == "upload":
        path.write_bytes(b"old")
        begun = begin(testbed, path, content, slow_store)
    else:
        path.write_bytes(content)
        slow_store.slow_down()
        begun = testbed.begin_download(testbed.alice, path, SYSTEM).json()
    transfer_id, job_id = begun["transferId"], begun["transferJob"]["jobId"]
    wait_until(lambda: min(noted(testbed, transfer_id)) > 0, 60, "both tasks have finished parts", pause=0.01)
    assert testbed.job_line(job_id).startswith("RUNNING")
    assert testbed.alice.http.delete(f"/transfers/{transfer_id}").status_code == 200
    wait_until(lambda: not testbed.job_line(job_id).startswith("RUNNING"), 30, "the job was asked to end")
    slow_store.thaw()
    transfer = testbed.wait(testbed.alice, transfer_id)
    assert transfer["state"] == "cancelled", transfer
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)
    assert path.read_bytes() == (b"old" if direction == "upload" else content)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert f"{job_id}.0." not in running  # the run's word, which each task's command line carries
