"""Slurm itself is made to lie: it freezes, loses its memory, its database or its keys, and calls living jobs dead.

What it cannot be made to say, commands that lie say in ``tests/integration/test_lying_slurm.py``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.testbed import REPOSITORY, Testbed, wait_for_step_daemons, wait_until
from tests.integration.road.fault_proxy import FaultProxy

SIZE = 100_000_000
OLD = b"the old content"
BYTES_PER_SECOND = 40_000_000
SLOW_BYTES_PER_SECOND = 500_000


class Cluster:
    """The daemons of the testbed's Slurm."""

    def __init__(self, testbed: Testbed) -> None:
        self.testbed = testbed
        self.root = Path(testbed.environment["TESTBED_ROOT"])

    def signal(self, daemon: str, number: signal.Signals) -> None:
        os.kill(int((self.root / "run" / f"{daemon}.pid").read_text()), number)

    def up(self) -> None:
        """Start what is down."""
        environment = {**os.environ, "VENV": sys.prefix, "TESTBED_ROOT": str(self.root)}
        subprocess.run([REPOSITORY / "deploy" / "testbed" / "slurm-up"], env=environment, check=True, capture_output=True)

    def lose_memory(self) -> None:
        """slurmctld dies before it has written anything; job numbers begin at 1 again."""
        wait_for_step_daemons(self.testbed)
        self.signal("slurmctld", signal.SIGKILL)
        self.forget_state()
        self.up()

    def forget_state(self) -> None:
        """The nodes forget too: one that was never told a job's end refuses another job of its number, and is drained."""
        for node in ("n1", "n2"):
            self.signal(f"slurmd-{node}", signal.SIGKILL)
        for path in (self.root / "slurm" / "state").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def cancels_asked(self, job_id: str, by: int) -> int:
        """How often a user's uid has asked the controllers so far to cancel a job of this number."""
        log = (self.root / "log" / "slurmctld.log").read_text(errors="replace")
        # Printed a second time on the error stream, without the time.
        return sum(f"REQUEST_KILL_JOB JobId={job_id} uid {by}" in line for line in log.splitlines() if line.startswith("["))

    def submit(self, user: str, *options: str) -> str:
        """Somebody's own job; returns its number."""
        command = ["runuser", "-u", user, "--", "env", f"SLURM_CONF={self.testbed.environment['SLURM_CONF']}", "sbatch"]
        command += ["--parsable", "--output=/dev/null", "--job-name=my-simulation", *options, "--wrap=sleep 60"]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout.strip()


@pytest.fixture
def cluster(testbed: Testbed) -> Iterator[Cluster]:
    """Whatever a test does to it, the next one finds it whole, and without this test's jobs."""
    cluster = Cluster(testbed)
    yield cluster
    with_pid = [name for name in ("slurmctld", "slurmdbd", "munged") if (cluster.root / "run" / f"{name}.pid").exists()]
    for name in with_pid:
        pid = int((cluster.root / "run" / f"{name}.pid").read_text())
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGCONT)
    cluster.up()
    testbed.slurm("scancel", "--name=my-simulation")
    wait_for_step_daemons(testbed)


@pytest.fixture
def narrow_road(testbed: Testbed) -> Iterator[FaultProxy]:
    """Jobs of the system ``testbed-slow`` go through it."""
    proxy = FaultProxy(testbed.environment["S3_ENDPOINT"].removeprefix("http://"), bytes_per_second=BYTES_PER_SECOND)
    with proxy.serving(int(testbed.environment["SLOW_PROXY_PORT"])):
        yield proxy


class Upload:
    """A large upload through the narrow road."""

    def __init__(self, testbed: Testbed, name: str) -> None:
        self.testbed = testbed
        self.content = os.urandom(SIZE)
        self.path = testbed.fresh(testbed.alice, f"lies-{name}.bin")
        self.path.write_bytes(OLD)
        self.begun: dict[str, Any] = testbed.begin_upload(testbed.alice, self.path, SIZE, system="testbed-slow").json()
        self.id = str(self.begun["transferId"])
        self.job_id = str(self.begun["transferJob"]["jobId"])

    def half(self, road: FaultProxy) -> None:
        """Complete it, and wait until its job has moved half of the bytes; it goes on slowly."""
        self.testbed.complete(self.begun, self.testbed.put_parts(self.begun, self.content))
        wait_until(lambda: road.bytes_passed > SIZE // 2, 60, "half of the bytes have passed", pause=0.01)
        road.bytes_per_second = SLOW_BYTES_PER_SECOND
        assert self.testbed.wait(self.testbed.alice, self.id, "moving", seconds=20)["state"] == "moving"

    def show(self) -> dict[str, Any]:
        return self.testbed.show(self.testbed.alice, self.id)

    def story(self) -> str:
        return "\n".join(entry["message"] for entry in self.show()["history"])

    def delivered(self, seconds: float = 90) -> dict[str, Any]:
        transfer = self.testbed.wait(self.testbed.alice, self.id, seconds=seconds)
        assert transfer["state"] == "done", transfer
        assert self.path.read_bytes() == self.content
        self.testbed.wait_until_nothing_is_left(self.testbed.alice, transfer, seconds=100)
        return transfer


def jobs_ever(testbed: Testbed, transfer_id: str) -> set[str]:
    """Numbers of all jobs of a transfer that the controller remembers."""
    lines = testbed.slurm("squeue", "-h", "-t", "all", "-o", "%i %j").splitlines()
    return {line.split()[0] for line in lines if line.split()[1].startswith(f"stagecoach-{transfer_id}")}


def asks_for_our_job(testbed: Testbed) -> bool:
    """Whether a squeue by name runs now: the service looks for a job whose submission's answer was lost."""
    of_testbed = f"SLURM_CONF={testbed.environment['SLURM_CONF']}".encode()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
            if not words[0].endswith(b"squeue") or not any(word.startswith(b"--name=stagecoach-") for word in words):
                continue
            if of_testbed in (directory / "environ").read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


def test_a_job_made_by_a_controller_that_was_frozen_is_found_by_its_name(testbed: Testbed, cluster: Cluster) -> None:
    path = testbed.fresh(testbed.alice, "lies-frozen.bin")
    answers: list[Any] = []
    cluster.signal("slurmctld", signal.SIGSTOP)
    asking = threading.Thread(target=lambda: answers.append(testbed.begin_upload(testbed.alice, path, 1000)))
    asking.start()
    wait_until(partial(asks_for_our_job, testbed), 60, "the service looks for the job", pause=0.02)
    cluster.signal("slurmctld", signal.SIGCONT)
    asking.join(60)
    assert answers[0].status_code == 201, answers[0].text
    begun = answers[0].json()
    assert jobs_ever(testbed, begun["transferId"]) == {begun["transferJob"]["jobId"]}
    content = os.urandom(1000)
    testbed.complete(begun, testbed.put_parts(begun, content))
    assert testbed.wait(testbed.alice, begun["transferId"])["state"] == "done"
    assert path.read_bytes() == content
    assert len(jobs_ever(testbed, begun["transferId"])) == 1


def test_a_job_made_after_its_request_had_failed_does_not_stay(testbed: Testbed, cluster: Cluster) -> None:
    path = testbed.fresh(testbed.alice, "lies-late.bin")
    cluster.signal("slurmctld", signal.SIGSTOP)
    answer = testbed.begin_upload(testbed.alice, path, 1000)
    assert answer.status_code == 503, answer.text
    cluster.signal("slurmctld", signal.SIGCONT)
    (transfer,) = [each for each in testbed.alice.http.get("/transfers").json()["transfers"] if each["path"] == str(path)][:1]
    wait_until(lambda: jobs_ever(testbed, transfer["id"]), 30, "the frozen controller makes the job")
    wait_until(lambda: not testbed.open_jobs(transfer["id"]), 150, "the late job is taken back")
    assert len(jobs_ever(testbed, transfer["id"])) == 1
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)


def test_a_held_job_whose_number_was_used_again(testbed: Testbed, cluster: Cluster) -> None:
    cluster.lose_memory()
    path = testbed.fresh(testbed.alice, "lies-number.bin")

    def begin() -> dict[str, Any] | None:
        answer = testbed.begin_upload(testbed.alice, path, 1000)
        assert answer.status_code in {201, 503}, answer.text
        return answer.json() if answer.status_code == 201 else None

    begun = wait_until(begin, 30, "the service asks the scheduler that was silent again") or {}
    cluster.lose_memory()
    other = cluster.submit("alice", "--hold")
    assert other == begun["transferJob"]["jobId"]
    content = os.urandom(1000)
    testbed.complete(begun, testbed.put_parts(begun, content))
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    assert (transfer["state"], path.read_bytes()) == ("done", content), transfer
    assert transfer["jobId"] != other
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)
    assert testbed.job_line(other) == "PENDING JobHeldUser"


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_a_running_job_whose_number_was_used_again(
    testbed: Testbed, cluster: Cluster, narrow_road: FaultProxy, user: str
) -> None:
    """Its script finishes while the controller is dead; afterwards the number is another job's, which runs."""
    cluster.lose_memory()
    upload = Upload(testbed, "number-running")
    upload.half(narrow_road)
    cluster.signal("slurmctld", signal.SIGKILL)
    narrow_road.bytes_per_second = None
    wait_until(lambda: upload.path.read_bytes() == upload.content, 60, "the script finishes all the same", pause=0.5)
    cluster.forget_state()
    cluster.up()
    cancels = cluster.cancels_asked(upload.job_id, by=testbed.alice.uid)
    other = cluster.submit(user)
    assert other == upload.job_id
    transfer = upload.delivered()
    assert transfer["jobId"] == other
    # Its state tells nothing: the dead script's daemon may report its own end as that of the new job.
    assert cluster.cancels_asked(other, by=testbed.alice.uid) == cancels


def test_a_script_that_runs_on_after_node_fail_is_waited_for(testbed: Testbed, cluster: Cluster, narrow_road: FaultProxy) -> None:
    upload = Upload(testbed, "node-fail")
    upload.half(narrow_road)
    testbed.slurm("scontrol", "update", f"jobid={upload.job_id}", "requeue=0")
    node = testbed.slurm("squeue", "-h", "-j", upload.job_id, "-o", "%N").strip()
    cluster.signal(f"slurmd-{node}", signal.SIGKILL)
    wait_until(lambda: upload.show()["jobState"] == "NODE_FAIL", 60, "Slurm calls the job dead")
    moved = upload.show()["bytesMoved"]
    # For longer than a receipt is waited for.
    wait_until(lambda: upload.show()["bytesMoved"] > moved + 20 * SLOW_BYTES_PER_SECOND, 60, "its bytes still move")
    assert upload.show()["state"] == "moving"
    assert upload.path.read_bytes() == OLD
    narrow_road.bytes_per_second = None
    upload.delivered()
    assert jobs_ever(testbed, upload.id) == {upload.job_id}
    assert "(NODE_FAIL)" in upload.story()


def test_a_script_that_runs_on_while_its_job_waits_to_run_again(
    testbed: Testbed, cluster: Cluster, narrow_road: FaultProxy
) -> None:
    upload = Upload(testbed, "runs-twice")
    upload.half(narrow_road)
    node = testbed.slurm("squeue", "-h", "-j", upload.job_id, "-o", "%N").strip()
    cluster.signal(f"slurmd-{node}", signal.SIGKILL)
    wait_until(lambda: "BeginTime" in testbed.job_line(upload.job_id), 60, "Slurm puts the job back into the queue")
    narrow_road.bytes_per_second = None
    upload.delivered()
    assert jobs_ever(testbed, upload.id) == {upload.job_id}


def test_accounting_that_is_dead_during_the_whole_job(testbed: Testbed, cluster: Cluster) -> None:
    cluster.signal("slurmdbd", signal.SIGKILL)
    content = os.urandom(1000)
    path = testbed.fresh(testbed.alice, "lies-accounting.bin")
    transfer = testbed.upload(testbed.alice, path, content)
    assert (transfer["state"], path.read_bytes()) == ("done", content), transfer
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)


def test_munge_that_is_down_for_a_while(testbed: Testbed, cluster: Cluster, narrow_road: FaultProxy) -> None:
    upload = Upload(testbed, "munge")
    upload.half(narrow_road)
    cluster.signal("munged", signal.SIGKILL)
    # Slurm's commands try for so long that it is our patience which ends first.
    wait_until(lambda: upload.show()["reason"], 60, "the transfer says why it waits")
    assert upload.show()["state"] == "moving"
    cluster.up()
    narrow_road.bytes_per_second = None
    upload.delivered()
