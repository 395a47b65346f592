"""The staging job is put back into the queue, or its node fails, in the middle of the bytes.

The jobs of the system ``testbed-slow`` reach the store through a proxy of these tests, which lets so few bytes a second
through that there is a middle, and counts them: what passes beyond the file's size was moved again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.conftest import SLOW_BYTES_PER_SECOND
from tests.e2e.testbed import Testbed, wait_until
from tests.integration.road.fault_proxy import FaultProxy

SIZE = 200_000_000
MOST_MOVED_AGAIN = SIZE // 5
OLD = b"the old content"


@dataclass
class Halfway:
    """A transfer whose job has moved half of the bytes."""

    testbed: Testbed
    direction: str
    begun: dict[str, Any]
    path: Path
    content: bytes
    node: str

    @property
    def transfer_id(self) -> str:
        return str(self.begun["transferId"])

    @property
    def job_id(self) -> str:
        """Of the job that was submitted first."""
        return str(self.begun["transferJob"]["jobId"])

    def end(self) -> dict[str, Any]:
        """The transfer at its end (a download: when it is staged). A requeued job waits two minutes; three seconds here.

        Not less: a node refuses the job's new credential if it is of the second in which the old one was revoked.
        """
        hurried_at = 0.0

        def look() -> dict[str, Any] | None:
            nonlocal hurried_at
            if time.monotonic() > hurried_at + 10 and "BeginTime" in self.testbed.job_line(self.job_id):
                hurried_at = time.monotonic()
                with contextlib.suppress(subprocess.CalledProcessError):  # it may have started meanwhile
                    self.testbed.slurm("scontrol", "update", f"jobid={self.job_id}", "StartTime=now+3")
            shown = self.testbed.show(self.testbed.alice, self.begun["transferId"])
            return shown if shown["state"] in {"done", "failed", "expired", "cancelled", "staged"} else None

        return wait_until(look, 120, f"transfer {self.begun['transferId']} ends") or {}

    def journalled_bytes(self) -> int:
        """How much the job would not have to move again after a power cut."""
        work_directory = self.testbed.alice.home / self.testbed.environment["WORK_DIRECTORY_NAME"]
        journal = work_directory / self.begun["transferId"] / "journal.json"
        if not journal.exists():
            return 0
        known = json.loads(journal.read_text())
        return len(known["parts"]) * int(known["part_size_bytes"])

    def check_delivered(self, transfer: dict[str, Any]) -> None:
        if transfer["direction"] == "upload":
            assert transfer["state"] == "done", transfer
            assert self.path.read_bytes() == self.content
        else:
            assert transfer["state"] == "staged", transfer
            answer = httpx.get(self.begun["transferDirectives"]["downloadUrl"], timeout=60)
            assert answer.content == self.content
            assert self.testbed.alice.http.post(f"/transfers/{transfer['id']}/finish").json()["state"] == "done"
        self.testbed.wait_until_nothing_is_left(self.testbed.alice, transfer)


def halfway(testbed: Testbed, direction: str, proxy: FaultProxy, system: str = "testbed-slow", size: int = SIZE) -> Halfway:
    content = os.urandom(size)
    path = testbed.fresh(testbed.alice, f"halfway-{system}-{direction}.bin")
    if direction == "upload":
        path.write_bytes(OLD)
        begun = testbed.begin_upload(testbed.alice, path, size, system=system).json()
        testbed.complete(begun, testbed.put_parts(begun, content))
    else:
        path.write_bytes(content)
        os.chown(path, testbed.alice.uid, testbed.alice.uid)
        begun = testbed.begin_download(testbed.alice, path, system=system).json()
    wait_until(lambda: proxy.bytes_passed > size // 2, 60, "half of the bytes have passed", pause=0.01)
    assert proxy.bytes_passed < size
    node = testbed.slurm("squeue", "-h", "-j", str(begun["transferJob"]["jobId"]), "-o", "%N").strip()
    return Halfway(testbed, direction, begun, path, content, node)


@pytest.mark.usefixtures("nodes_come_back")
@pytest.mark.parametrize("trouble", ["requeue", "node-down"])
@pytest.mark.parametrize("direction", ["upload", "download"])
def test_a_job_put_back_into_the_queue_goes_on_where_it_was(
    direction: str, trouble: str, testbed: Testbed, slow_road: FaultProxy
) -> None:
    half = halfway(testbed, direction, slow_road)
    if trouble == "requeue":
        testbed.slurm("scontrol", "requeue", half.job_id)
    else:
        testbed.slurm("scontrol", "update", f"nodename={half.node}", "state=down", "reason=test")
    slow_road.bytes_per_second = None
    transfer = half.end()
    moved_again = slow_road.bytes_passed - SIZE
    half.check_delivered(transfer)
    assert moved_again < MOST_MOVED_AGAIN, f"{moved_again / SIZE:.1%} moved again"


@pytest.mark.usefixtures("nodes_come_back")
def test_a_node_that_dies_with_all_its_processes_is_survived(testbed: Testbed, slow_road: FaultProxy) -> None:
    half = halfway(testbed, "upload", slow_road)
    # What a power cut costs is what came after the last journal, which is written every few seconds: wait for one.
    slow_road.bytes_per_second = SLOW_BYTES_PER_SECOND // 5
    wait_until(lambda: half.journalled_bytes() > SIZE // 4, 8, "the journal knows of a quarter")
    kill_node(testbed, half)
    assert half.path.read_bytes() == OLD
    slow_road.bytes_per_second = None
    transfer = half.end()
    moved_again = slow_road.bytes_passed - SIZE
    half.check_delivered(transfer)
    assert testbed.slurm("squeue", "-h", "-t", "all", "-j", half.job_id, "-O", "restartcnt").strip() == "1"
    assert moved_again < SIZE // 2, f"{moved_again / SIZE:.1%} moved again"


def kill_node(testbed: Testbed, half: Halfway) -> None:
    """slurmd, the job's own daemon and the job end at once, as with a power cut."""
    movers = processes_of(half.job_id, testbed.environment["SLURM_CONF"])
    assert len(movers) == 1
    fields = Path(f"/proc/{movers[0]}/stat").read_text().rsplit(")", 1)[1].split()
    keeper = int(fields[1])
    assert f"[{half.job_id}." in Path(f"/proc/{keeper}/cmdline").read_text()
    slurmd = int(Path(testbed.environment["TESTBED_ROOT"], "run", f"slurmd-{half.node}.pid").read_text())
    for pid in (slurmd, keeper, *movers):
        os.kill(pid, signal.SIGKILL)


def processes_of(job_id: str, slurm_conf: str) -> list[int]:
    """Of a job of this testbed's cluster; others may run jobs of the same number."""
    wanted = {f"SLURM_JOB_ID={job_id}".encode(), f"SLURM_CONF={slurm_conf}".encode()}
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted <= set((directory / "environ").read_bytes().split(b"\0")):
                found.append(int(directory.name))
    return found
