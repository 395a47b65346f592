"""docs/workflows.md does what it says: its lines are run against ``stagecoach up``, with real jobs on this machine."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.e2e.testbed import REPOSITORY, wait_until

DOCUMENT = REPOSITORY / "docs" / "workflows.md"
MEBIBYTE = 1024**2


@dataclass(frozen=True)
class Service:
    """``stagecoach up``, and the directory that its one system holds."""

    url: str
    system: str
    token: str
    scratch: Path

    def lines(self, name: str) -> str:
        """The document's lines of that name, with this service's URL, system and directory in them."""
        (found,) = re.findall(rf"```python {name}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
        for theirs, ours in (
            ("https://transfer.example.org", self.url),
            ('"alps"', f'"{self.system}"'),
            ("/compute/alps/", f"/compute/{self.system}/"),
            ("/scratch/alice", str(self.scratch)),
        ):
            found = found.replace(theirs, ours)
        return found


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("workflows")
    scratch, ready, log = directory / "scratch", directory / "ready.json", directory / "log"
    (scratch / "run").mkdir(parents=True)
    command = [sys.executable, "-m", "stagecoach", "up", "--port", "0", "--root", str(scratch)]
    command += ["--state-directory", str(directory / "state"), "--ready-file", str(ready)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STAGECOACH_")}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            wait_until(lambda: _is_up(process, ready, log), 240, "stagecoach up listens")
            said = json.loads(ready.read_text())
            yield Service(said["url"], said["system"], said["token"], scratch)
        finally:
            process.terminate()
            process.wait(60)


def _is_up(process: subprocess.Popen[bytes], ready: Path, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    if not ready.exists():
        return False
    with suppress(httpx.HTTPError):
        return httpx.get(f"{json.loads(ready.read_text())['url']}/healthz", timeout=5).status_code == 200
    return False


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: Service) -> Path:
    """A person's directory, with a token in a file and in the environment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text(service.token + "\n")
    monkeypatch.setenv("TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("STAGECOACH_URL", service.url)
    monkeypatch.setenv("ACCESS_TOKEN", service.token)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


def run_cell(source: str) -> None:
    """As a notebook runs a cell: ``await`` may stand by itself."""
    code = compile(source, str(DOCUMENT), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def whole() -> None:
        await eval(code, {})

    asyncio.run(whole())


def test_a_cell_of_a_notebook_fetches_and_sends(service: Service, here: Path) -> None:
    content = os.urandom(3 * MEBIBYTE + 1)
    (service.scratch / "run" / "old.dat").write_bytes(b"old")
    os.utime(service.scratch / "run" / "old.dat", (1_000_000_000, 1_000_000_000))
    (service.scratch / "run" / "new.dat").write_bytes(content)
    run_cell(service.lines("notebook"))
    assert (here / "new.dat").read_bytes() == content
    assert (service.scratch / "run" / "new.dat.copy").read_bytes() == content
    assert not (here / "old.dat").exists()


@pytest.mark.parametrize("client", ["pyfirecrest", "stagecoach"])
@pytest.mark.parametrize("size_bytes", [5, 3 * MEBIBYTE + 1])
def test_a_job_with_its_data(service: Service, here: Path, client: str, size_bytes: int) -> None:
    content = os.urandom(size_bytes)
    (here / "input.dat").write_bytes(content)
    script = here / "workflow.py"
    script.write_text(service.lines(client))
    done = subprocess.run([sys.executable, script], cwd=here, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (service.scratch / "run" / "input.dat").read_bytes() == content
    assert (here / "result.txt").read_text() == f"{hashlib.sha256(content).hexdigest()}  input.dat\n"
