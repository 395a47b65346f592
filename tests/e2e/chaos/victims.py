"""What is killed with SIGKILL, how it comes back, and how the testbed is put right whatever a test has done to it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.chaos.replicas import Replicas
from tests.e2e.testbed import REPOSITORY, Testbed, wait_for_step_daemons


@dataclass(frozen=True)
class Process:
    """As /proc shows it."""

    pid: int
    parent: int
    name: str


def processes() -> dict[int, Process]:
    """All that run now."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (directory / "stat").read_text()
            name = words[words.index("(") + 1 : words.rindex(")")]
            state, parent = words[words.rindex(")") + 2 :].split()[:2]
            if state not in "ZX":
                found[int(directory.name)] = Process(int(directory.name), int(parent), name)
    return found


def kill(pids: Iterable[int]) -> int:
    """How many were there to be killed."""
    count = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            count += 1
    return count


def descendants(pid: int, name: str) -> list[int]:
    """Of that name, youngest last."""
    known, found, wanted = processes(), [], [pid]
    while wanted:
        parent = wanted.pop()
        children = [each.pid for each in known.values() if each.parent == parent]
        wanted += children
        found += [child for child in children if known[child].name == name]
    return found


def job_processes(testbed: Testbed) -> list[int]:
    """Of all jobs of this testbed's cluster."""
    mark = f"SLURM_CONF={testbed.environment['SLURM_CONF']}".encode()
    found = []
    for pid in processes():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if mark in words and any(word.startswith(b"SLURM_JOB_ID=") for word in words):
                found.append(pid)
    return found


class Victims:
    """One method for each; a method returns how many processes it killed."""

    def __init__(self, testbed: Testbed, replicas: Replicas) -> None:
        self._testbed = testbed
        self._replicas = replicas
        self.by_name: dict[str, tuple[Callable[[], int], Callable[[], None]]] = {
            "api": (self._api, replicas.start),
            "worker": (self._worker, replicas.start),
            "ssh session": (self._ssh_sessions, lambda: None),
            "sshd": (self._sshd, lambda: self.component("sshd-up")),
            "slurmctld": (lambda: kill([self._pid("slurmctld")]), lambda: self.component("slurm-up")),
            "slurmd": (self._slurmd, lambda: self.component("slurm-up")),
            "store": (self._store, self.store_up),
            "store under the movers": (self._store, self.store_up),
            "postgresql": (lambda: kill([self._pid("postgresql")]), lambda: self.component("postgresql-up")),
            "mover": (lambda: kill(job_processes(testbed)), lambda: None),
        }

    def component(self, script: str) -> None:
        """Start one component of the testbed, or what of it does not run."""
        environment = {
            "PATH": os.environ["PATH"],
            "VENV": sys.prefix,
            "S3": self._testbed.environment["S3_KIND"],
            "TESTBED_ROOT": self._testbed.environment["TESTBED_ROOT"],
        }
        subprocess.run([REPOSITORY / "deploy" / "testbed" / script], env=environment, check=True, capture_output=True)

    def store_up(self) -> None:
        self.component(f"s3-{self._testbed.environment['S3_KIND']}-up")

    def put_right(self) -> None:
        """Everything of the testbed runs, and no node believes in a job that its controller has forgotten.

        A controller that is killed gives the numbers of the last seconds' jobs out again. A node that was never told the
        end of the first one refuses the second, and is drained.
        """
        self.component("slurm-up")
        wait_for_step_daemons(self._testbed)
        kill([self._pid("slurmd-n1"), self._pid("slurmd-n2")])
        for script in ("postgresql-up", "sshd-up", "slurm-up"):
            self.component(script)
        self.store_up()

    def _pid(self, name: str) -> int:
        return int(Path(self._testbed.environment["TESTBED_ROOT"], "run", f"{name}.pid").read_text())

    def _api(self) -> int:
        for replica in self._replicas.apis:
            replica.kill()
        return len(self._replicas.apis)

    def _worker(self) -> int:
        for replica in self._replicas.workers:
            replica.kill()
        return len(self._replicas.workers)

    def _ssh_sessions(self) -> int:
        return kill(descendants(self._pid("sshd"), "sshd"))

    def _sshd(self) -> int:
        listener = self._pid("sshd")
        return kill([listener, *descendants(listener, "sshd")])

    def _slurmd(self) -> int:
        """With the daemon of each job; the jobs' own processes run on, as on a node that lost its network."""
        known = processes()
        parents = {known[pid].parent for pid in job_processes(self._testbed) if pid in known}
        keepers = [pid for pid in parents if pid in known and known[pid].name == "slurmstepd"]
        return kill([self._pid("slurmd-n1"), self._pid("slurmd-n2"), *keepers])

    def _store(self) -> int:
        return kill([self._pid("radosgw" if self._testbed.environment["S3_KIND"] == "rgw" else "rclone")])
