"""A job ends in the middle of the bytes and another takes over; what failed is kept for its owner's retry, and goes.

The system ``testbed-keeping`` keeps what is staged of a failed transfer for forty seconds. Its jobs may not be requeued,
and reach the store through a proxy that counts: what passes beyond the file's size was moved again.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.recovery.test_requeue import OLD, Halfway, halfway
from tests.e2e.testbed import Testbed, wait_until
from tests.integration.road.fault_proxy import FaultProxy

SYSTEM = "testbed-keeping"
SIZE = 200_000_000
KEPT_SECONDS = 40
MOST_MOVED_AGAIN = 0.2


def ended(half: Halfway, *, seconds: float = 150) -> dict[str, Any]:
    states = ("staged",) if half.direction == "download" else ()
    return half.testbed.wait(half.testbed.alice, half.transfer_id, *states, seconds=seconds)


def moved_again(proxy: FaultProxy, size: int = SIZE) -> float:
    return (proxy.bytes_passed - size) / size


def told(transfer: dict[str, Any]) -> str:
    return "\n".join(line["message"] for line in transfer["history"])


def retry(testbed: Testbed, transfer_id: str) -> dict[str, Any]:
    answer = testbed.alice.http.post(f"/transfers/{transfer_id}/retry")
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def settled(testbed: Testbed, transfer: dict[str, Any], *kinds: str) -> None:
    """Waits until of the failed transfer only these kinds of things are left."""
    wait_until(
        lambda: set(testbed.leftovers(testbed.alice, transfer)) == set(kinds),
        20,
        f"only {kinds} of {transfer['id']} stay: {testbed.leftovers(testbed.alice, transfer)}",
    )


@pytest.mark.usefixtures("nodes_come_back")
@pytest.mark.parametrize("direction", ["upload", "download"])
def test_a_failed_node_whose_job_may_not_run_again_is_followed_by_another_job(
    direction: str, testbed: Testbed, slow_road: FaultProxy
) -> None:
    half = halfway(testbed, direction, slow_road, SYSTEM)
    testbed.slurm("scontrol", "update", f"nodename={half.node}", "state=down", "reason=test")
    slow_road.bytes_per_second = None
    transfer = ended(half)
    again = moved_again(slow_road)
    half.check_delivered(transfer)
    assert transfer["jobId"] != half.job_id
    assert f"The compute node {half.node} failed at" in told(transfer)
    assert again < MOST_MOVED_AGAIN, f"{again:.1%} moved again"
    job = testbed.alice.http.get(f"/compute/{SYSTEM}/jobs/{half.job_id}").json()["jobs"][0]
    assert (job["jobId"], job["status"]["state"]) == (half.job_id, "COMPLETED")


def test_a_job_that_reaches_its_time_limit_in_the_middle_is_continued(testbed: Testbed, slow_road: FaultProxy) -> None:
    size = 300_000_000
    half = halfway(testbed, "upload", slow_road, SYSTEM, size)
    slow_road.bytes_per_second = 1_000_000
    testbed.slurm("scontrol", "update", f"jobid={half.job_id}", "EndTime=now")
    wait_until(lambda: testbed.job_line(half.job_id).startswith("TIMEOUT"), 90, "the job reaches its time limit")
    slow_road.bytes_per_second = None
    transfer = ended(half)
    again = moved_again(slow_road, size)
    half.check_delivered(transfer)
    assert "The staging job reached its time limit at" in told(transfer)
    assert again < MOST_MOVED_AGAIN, f"{again:.1%} moved again"


def cancelled_by_an_administrator(testbed: Testbed, half: Halfway) -> dict[str, Any]:
    testbed.slurm("scancel", half.job_id)
    transfer = ended(half)
    assert (transfer["state"], transfer["code"]) == ("failed", "job_cancelled")
    assert transfer["retryUntil"] is not None
    return transfer


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_a_retry_goes_on_where_the_cancelled_job_stopped(direction: str, testbed: Testbed, slow_road: FaultProxy) -> None:
    half = halfway(testbed, direction, slow_road, SYSTEM)
    transfer = cancelled_by_an_administrator(testbed, half)
    kept = {"upload": ("objects", "files"), "download": ("objects", "multiparts", "files")}[direction]
    settled(testbed, transfer, *kept)
    journalled = half.journalled_bytes()
    assert journalled > 0.3 * SIZE, f"the journal knows of {journalled / SIZE:.0%} only"
    slow_road.bytes_per_second = None
    assert retry(testbed, transfer["id"])["state"] == {"upload": "staged", "download": "queued"}[direction]
    transfer = ended(half)
    again = moved_again(slow_road)
    half.check_delivered(transfer)
    assert again < MOST_MOVED_AGAIN, f"{again:.1%} moved again"
    answer = testbed.alice.http.post(f"/transfers/{transfer['id']}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_state")


@pytest.fixture
def small_file_system(testbed: Testbed) -> Iterator[Path]:
    """64 MiB, in alice's home."""
    place = testbed.alice.home / "trying-again-small"
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=64m,uid={testbed.alice.uid},mode=700", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)
    place.rmdir()


def test_after_a_full_disk_space_is_made_and_the_client_sends_nothing_again(
    testbed: Testbed, slow_road: FaultProxy, small_file_system: Path
) -> None:
    slow_road.bytes_per_second = None
    content = os.urandom(30 * 1024 * 1024)
    path, filler = small_file_system / "file.bin", small_file_system / "filler"
    path.write_bytes(OLD)
    begun = testbed.begin_upload(testbed.alice, path, len(content), system=SYSTEM).json()
    with open(filler, "wb") as file:
        file.write(bytes(50 * 1024 * 1024))
    testbed.complete(begun, testbed.put_parts(begun, content))
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    assert (transfer["state"], transfer["code"]) == ("failed", "no_space")
    settled(testbed, transfer, "objects")
    assert path.read_bytes() == OLD
    assert sorted(small_file_system.iterdir()) == [path, filler]
    filler.unlink()
    assert retry(testbed, transfer["id"])["state"] == "staged"
    transfer = testbed.wait(testbed.alice, transfer["id"])
    assert transfer["state"] == "done", transfer
    assert path.read_bytes() == content
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)


def test_what_nobody_retries_is_removed_when_its_time_is_over(testbed: Testbed, slow_road: FaultProxy) -> None:
    half = halfway(testbed, "upload", slow_road, SYSTEM)
    transfer = cancelled_by_an_administrator(testbed, half)
    settled(testbed, transfer, "objects", "files")
    testbed.wait_until_nothing_is_left(testbed.alice, transfer, seconds=KEPT_SECONDS + 20)
    shown = testbed.show(testbed.alice, transfer["id"])
    assert (shown["state"], shown["code"], shown["retryUntil"]) == ("failed", "job_cancelled", None)
    assert "Nobody retried it in time" in told(shown)
    assert half.path.read_bytes() == OLD
    answer = testbed.alice.http.post(f"/transfers/{transfer['id']}/retry")
    assert answer.status_code == 409
    assert "begin a new transfer" in answer.json()["message"]


def test_what_is_kept_can_be_given_up_at_once(testbed: Testbed, slow_road: FaultProxy) -> None:
    half = halfway(testbed, "download", slow_road, SYSTEM)
    transfer = cancelled_by_an_administrator(testbed, half)
    dropped = testbed.alice.http.delete(f"/transfers/{transfer['id']}")
    assert (dropped.status_code, dropped.json()["state"], dropped.json()["retryUntil"]) == (200, "failed", None)
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)
    assert testbed.alice.http.delete(f"/transfers/{transfer['id']}").status_code == 409
