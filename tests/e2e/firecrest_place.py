"""Where FirecREST's client is tried: the testbed's cluster, and ``stagecoach up`` alone; each with a fresh directory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.contract.ssh_testbed import directory_of
from tests.e2e.testbed import Testbed, wait_until


@dataclass(frozen=True)
class Place:
    """A service, a system of it, and a fresh directory there."""

    url: str
    token: str
    system: str
    top: Path

    def ask(self, method: str, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = httpx.request(method, self.url + path, headers=headers, timeout=60)
        assert answer.is_success, answer.text
        return answer.json()

    def last_transfer(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", "/transfers?limit=1")["transfers"][0]
        return found


@contextmanager
def stagecoach_up(directory: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """``stagecoach up`` in a directory of its own: what its ready file says, and its root."""
    root, ready = directory / "root", directory / "ready.json"
    root.mkdir()
    command = [Path(sys.prefix, "bin", "stagecoach"), "up", "--state-directory", directory / "state", "--root", root]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--port", "0", "--ready-file", ready], stdout=log, stderr=log)
        try:
            wait_until(ready.exists, 120, f"stagecoach up is ready: {(directory / 'log').read_text()}")
            yield json.loads(ready.read_text()), root
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def on_cluster(testbed: Testbed) -> Iterator[Place]:
    """A directory of alice's."""
    with directory_of("alice", str(testbed.alice.home)) as path:
        yield Place(testbed.url, testbed.environment["ALICE_TOKEN"], testbed.system, Path(path))
