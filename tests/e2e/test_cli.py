"""The real program, as a person uses it: copies up and down, Ctrl-C and going on from another process, errors."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.testbed import Person, Testbed, wait_until

PART = 8 * 1024 * 1024
LARGE = 200 * 1000 * 1000
PROGRAM = Path(sys.executable).with_name("stagecoach")


class Terminal:
    """A person's own, with a home of its own; every output is searched for secrets."""

    def __init__(self, testbed: Testbed, person: Person, home: Path) -> None:
        self.home = home
        self.token = testbed.environment[f"{person.name.upper()}_TOKEN"]
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "STAGECOACH_URL": testbed.url}

    def start(self, *arguments: str | Path, token: str | None = None) -> subprocess.Popen[str]:
        environment = {**self.environment, "STAGECOACH_TOKEN": token or self.token}
        pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # A signal of ours must reach it whatever started the tests.
        return subprocess.Popen([PROGRAM, *arguments], env=environment, cwd=self.home, start_new_session=True, **pipes)

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        out, err = process.communicate(timeout=120)
        for secret in (self.token, "Signature=", "Bearer"):
            assert secret not in out + err
        return process.returncode, out, err

    def run(self, *arguments: str | Path, token: str | None = None) -> tuple[int, str, str]:
        return self.end(self.start(*arguments, token=token))

    def done(self, *arguments: str | Path) -> dict[str, Any]:
        code, out, err = self.run(*arguments, "--json")
        assert code == 0, err
        document: dict[str, Any] = json.loads(out)
        return document

    def state(self, transfer_id: str) -> Path:
        return self.home / ".local/state/stagecoach/transfers" / transfer_id

    def begun(self, process: subprocess.Popen[str]) -> str:
        """The id, which the program says as soon as there is one."""
        assert process.stderr is not None
        found = re.fullmatch(r"Transfer ([0-9a-z]{26})\n", process.stderr.readline())
        assert found
        return found[1]


@pytest.fixture
def terminal(testbed: Testbed, tmp_path: Path) -> Terminal:
    return Terminal(testbed, testbed.alice, tmp_path)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.bin"
    path.write_bytes(os.urandom(LARGE))
    return path


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stored_bytes(testbed: Testbed, transfer_id: str) -> int:
    """Of the parts that the store has of an open upload, asked at the store itself."""
    bucket = testbed.bucket(testbed.alice)
    for upload in testbed.s3.list_multipart_uploads(Bucket=bucket, Prefix=transfer_id).get("Uploads", []):
        parts = testbed.s3.list_parts(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]).get("Parts", [])
        return sum(part["Size"] for part in parts)
    return 0


@pytest.mark.parametrize("size", [0, 3 * PART + 5])
def test_cp_up_and_down(testbed: Testbed, terminal: Terminal, size: int) -> None:
    source, remote = terminal.home / "a file.bin", testbed.fresh(testbed.alice, f"cli {size}.bin")
    source.write_bytes(os.urandom(size))
    up = terminal.done("cp", source, f"{testbed.system}:{remote}")
    assert (up["state"], up["clientLeg"]["bytesMoved"]) == ("done", size)
    assert sha256(remote) == sha256(source)
    down = terminal.done("cp", f"{testbed.system}:{remote}", terminal.home / "back.bin")
    assert down["state"] == "done"
    assert sha256(terminal.home / "back.bin") == sha256(source)
    assert not list((terminal.home / ".local/state/stagecoach/transfers").iterdir())
    testbed.wait_until_nothing_is_left(testbed.alice, down)


def test_ctrl_c_in_an_upload_and_resume_from_another_process(testbed: Testbed, terminal: Terminal, large: Path) -> None:
    remote = testbed.fresh(testbed.alice, "cli-resumed.bin")
    copying = terminal.start("cp", large, f"{testbed.system}:{remote}", "--json")
    transfer_id = terminal.begun(copying)
    wait_until(lambda: stored_bytes(testbed, transfer_id) or copying.poll() is not None, 30, "a part is stored", pause=0.005)
    copying.send_signal(signal.SIGINT)
    code, out, err = terminal.end(copying)
    assert code == 130, err
    assert f"stagecoach transfers resume {transfer_id}" in err
    assert json.loads(out)["error"]["transferId"] == transfer_id
    assert terminal.state(transfer_id).is_dir()
    stored = stored_bytes(testbed, transfer_id)
    assert 0 < stored < LARGE
    done = terminal.done("transfers", "resume", transfer_id)
    assert done["state"] == "done"
    # The store may still have been busy with the last parts when we looked.
    assert stored <= done["clientLeg"]["bytesResumed"] < LARGE
    assert done["clientLeg"]["bytesMoved"] == LARGE - done["clientLeg"]["bytesResumed"]
    assert sha256(remote) == sha256(large)
    assert not terminal.state(transfer_id).exists()
    testbed.wait_until_nothing_is_left(testbed.alice, done)


def test_a_kill_in_an_upload_and_resume(testbed: Testbed, terminal: Terminal, large: Path) -> None:
    remote = testbed.fresh(testbed.alice, "cli-killed.bin")
    copying = terminal.start("cp", large, f"{testbed.system}:{remote}")
    transfer_id = terminal.begun(copying)
    wait_until(lambda: stored_bytes(testbed, transfer_id) or copying.poll() is not None, 30, "a part is stored", pause=0.005)
    copying.kill()
    terminal.end(copying)
    done = terminal.done("transfers", "resume", transfer_id)
    assert done["state"] == "done"
    assert done["clientLeg"]["bytesResumed"] > 0
    assert sha256(remote) == sha256(large)
    testbed.wait_until_nothing_is_left(testbed.alice, done)


def test_ctrl_c_in_a_download_and_resume_from_another_process(testbed: Testbed, terminal: Terminal, large: Path) -> None:
    remote, target = testbed.fresh(testbed.alice, "cli-down.bin"), terminal.home / "down.bin"
    terminal.done("cp", large, f"{testbed.system}:{remote}")
    for pause in (0.1, 0.2, 0.05, 0.4):  # the moment decides whether a part is whole; any of them will do
        copying = terminal.start("cp", f"{testbed.system}:{remote}", target)
        transfer_id = terminal.begun(copying)
        hidden = terminal.home / f".stagecoach-{transfer_id}.part"
        wait_until(lambda: hidden.exists() or copying.poll() is not None, 60, "the data arrives", pause=0.005)  # noqa: B023
        time.sleep(pause)
        copying.send_signal(signal.SIGINT)
        code, _, err = terminal.end(copying)
        if code == 0:
            target.unlink()
            continue
        assert code == 130, err
        assert f"stagecoach transfers resume {transfer_id}" in err
        assert not target.exists()
        journal = terminal.state(transfer_id) / "journal.json"
        finished = len(json.loads(journal.read_text())["parts"]) if journal.exists() else 0
        if finished:
            break
        terminal.done("transfers", "cancel", transfer_id)
    done = terminal.done("transfers", "resume", transfer_id)
    assert done["state"] == "done"
    assert (finished - 1) * PART < done["clientLeg"]["bytesResumed"] <= finished * PART
    assert done["clientLeg"]["bytesMoved"] + done["clientLeg"]["bytesResumed"] == LARGE
    assert sha256(target) == sha256(large)
    assert not hidden.exists()
    assert not terminal.state(transfer_id).exists()
    testbed.wait_until_nothing_is_left(testbed.alice, done)


def test_a_source_that_changed_since_is_refused(testbed: Testbed, terminal: Terminal, large: Path) -> None:
    source, remote = terminal.home / "changing.bin", testbed.fresh(testbed.alice, "cli-changed.bin")
    source.write_bytes(large.read_bytes())
    copying = terminal.start("cp", source, f"{testbed.system}:{remote}")
    transfer_id = terminal.begun(copying)
    copying.send_signal(signal.SIGINT)
    assert terminal.end(copying)[0] == 130
    with source.open("r+b") as file:
        file.write(b"changed")
    code, out, err = terminal.run("transfers", "resume", transfer_id, "--json")
    assert code == 1
    assert json.loads(out)["error"]["code"] == "source_changed"
    assert f"stagecoach transfers cancel {transfer_id}" in err
    cancelled = terminal.done("transfers", "cancel", transfer_id)
    assert not remote.exists()
    testbed.wait_until_nothing_is_left(testbed.alice, cancelled)


def test_list_show_cancel(testbed: Testbed, terminal: Terminal) -> None:
    begun = testbed.begin_upload(testbed.alice, testbed.fresh(testbed.alice, "cli-cancelled.bin"), PART).json()
    transfer_id = begun["transferId"]
    listed = terminal.done("transfers", "list", "--limit", "5", "--state", "receiving")
    assert transfer_id in [transfer["id"] for transfer in listed["transfers"]]
    shown = terminal.done("transfers", "show", transfer_id)
    assert (shown["state"], shown["sizeBytes"]) == ("receiving", PART)
    assert shown["history"]
    cancelled = terminal.done("transfers", "cancel", transfer_id)
    assert cancelled["state"] in {"cancelled", "cancelling"}
    testbed.wait(testbed.alice, transfer_id)
    testbed.wait_until_nothing_is_left(testbed.alice, cancelled)
    assert terminal.run("transfers", "watch", transfer_id)[0] == 1


def test_wrong_tokens_and_unknown_things(testbed: Testbed, terminal: Terminal) -> None:
    code, out, err = terminal.run("transfers", "list", token="not.a.token")
    assert (code, out) == (3, "")
    assert len(err.splitlines()) == 2
    assert "stagecoach login" in err
    assert terminal.run("transfers", "show", "0" * 26)[0] == 4
    assert terminal.run("cp", f"{testbed.system}:{testbed.alice.home}/cli-nothing.bin", "x")[0] == 4
    assert terminal.run("cp", "nothing", f"{testbed.system}:/x")[0] == 1
    assert terminal.run("login", testbed.url)[0] == 0
    assert (terminal.home / ".config/stagecoach/config.json").stat().st_mode & 0o777 == 0o600
