"""The mover as it runs on a cluster: a process of its own, under every Python at hand."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.mover.faulty_store import PART, SIGNATURE, FaultyStore, hidden_files, some_bytes, write_ticket

from stagecoach.mover import stagecoach_mover

MOVER = stagecoach_mover.__file__
PHRASES = ("Files were successfully", "File was successfully", "Multipart file upload successfully completed")


def pythons() -> list[str]:
    """Every Python from 3.6 on that is here and works (a version manager's stand-in may not); this one always."""
    named = os.environ.get("STAGECOACH_TEST_PYTHONS", "").split(":")
    found = {sys.executable: None}
    for path in [*named, *(shutil.which(f"python3.{minor}") for minor in range(6, 16))]:
        if path:
            asked = subprocess.run([path, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True)
            found.update({asked.stdout.strip(): None} if asked.returncode == 0 else {})
            assert asked.returncode == 0 or path not in named, f"{path} does not work"
    return list(found)


def mover(
    *arguments: object, python: str = sys.executable, before: Callable[[], None] | None = None, **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, MOVER, *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "STAGECOACH_STALL_SECONDS": "10", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )


def finished(process: subprocess.Popen[str], exit_code: int) -> str:
    out, err = process.communicate(timeout=20)
    assert process.returncode == exit_code, out + err
    assert SIGNATURE not in out + err
    assert "://" not in out + err
    if exit_code:
        assert not any(phrase.lower() in (out + err).lower() for phrase in PHRASES)
    else:
        assert err == ""
    return out


@pytest.mark.parametrize("python", pythons())
def test_a_round_trip_holds_under_every_python(store: FaultyStore, tmp_path: Path, python: str) -> None:
    data = some_bytes(25 * PART + 7)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    store.fail("PUT", "status", 3, status=503)
    store.fail("GET", "reset_inside", 4)
    put = write_ticket(tmp_path / "put.json", store.put_ticket(os.fsencode(source), len(data)))
    fetch = write_ticket(tmp_path / "fetch.json", store.fetch_ticket(os.fsencode(target), len(data)))
    out = finished(mover("put", "--ticket", put, "--state-directory", tmp_path / "a", python=python), 0)
    phrase = "File was successfully moved: multipart file upload successfully completed"
    assert out.splitlines()[-1] == phrase
    assert store.objects["object"] == data
    out = finished(mover("fetch", "--ticket", fetch, "--state-directory", tmp_path / "b", python=python), 0)
    assert out.splitlines()[-1] == "File was successfully moved"
    assert target.read_bytes() == data


@pytest.mark.parametrize("python", pythons())
def test_sigterm_leaves_a_receipt_a_journal_and_the_old_target(rgw: FaultyStore, tmp_path: Path, python: str) -> None:
    data = some_bytes(6 * PART)
    target = tmp_path / "target"
    target.write_bytes(b"old")
    rgw.keep("object", data)
    rgw.fail("GET", "hold", 4)
    ticket = write_ticket(tmp_path / "ticket", rgw.fetch_ticket(os.fsencode(target), len(data)))
    state = tmp_path / "state"
    arguments = ("fetch", "--ticket", ticket, "--state-directory", state, "--concurrency", 1)
    process = mover(*arguments, python=python, STAGECOACH_STALL_SECONDS="60")
    assert rgw.waiting.wait(10)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    finished(process, 75)
    receipt = json.loads((state / "receipt.json").read_text())
    assert (receipt["ok"], receipt["code"]) == (False, "interrupted")
    assert json.loads(rgw.objects["receipt"]) == receipt
    assert sorted(json.loads((state / "journal.json").read_text())["parts"]) == ["1", "2", "3"]
    assert target.read_bytes() == b"old"
    finished(mover(*arguments, python=python), 0)
    assert target.read_bytes() == data
    assert json.loads((state / "receipt.json").read_text())["bytes_resumed"] == 3 * PART


def test_a_kill_without_warning_is_healed_by_the_next_run(rgw: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(6 * PART)
    target = tmp_path / "target"
    target.write_bytes(b"old")
    rgw.keep("object", data)
    rgw.fail("GET", "hold", 4)
    ticket = write_ticket(tmp_path / "ticket", rgw.fetch_ticket(os.fsencode(target), len(data)))
    process = mover("fetch", "--ticket", ticket, "--concurrency", 1)
    assert rgw.waiting.wait(10)
    process.kill()
    process.communicate()
    assert target.read_bytes() == b"old"
    finished(mover("fetch", "--ticket", ticket), 0)
    assert target.read_bytes() == data
    assert hidden_files(tmp_path) == []


def test_sigterm_in_a_put_keeps_what_was_sent(rgw: FaultyStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(some_bytes(6 * PART))
    rgw.fail("PUT", "hold", 4)
    ticket = write_ticket(tmp_path / "ticket", rgw.put_ticket(os.fsencode(source), 6 * PART))
    process = mover("put", "--ticket", ticket, "--concurrency", 1)
    assert rgw.waiting.wait(10)
    process.terminate()
    finished(process, 75)
    assert rgw.completed == 0
    finished(mover("put", "--ticket", ticket), 0)
    assert [rgw.count("PUT", part=part) for part in (1, 2, 3, 5)] == [1, 1, 1, 1]
    assert rgw.objects["object"] == source.read_bytes()


def at_url(store: FaultyStore, folder: Path, ticket: dict[str, Any]) -> Path:
    store.objects["ticket"] = json.dumps(ticket).encode()
    (folder / "ticket-url").write_text(store.url("ticket") + "\n")
    return folder / "ticket-url"


def test_a_ticket_is_read_from_its_address_and_again_when_it_expired(rgw: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(6 * PART)
    rgw.keep("object", data)
    rgw.fail("GET", "hold", 3)
    url_file = at_url(rgw, tmp_path, rgw.fetch_ticket(os.fsencode(tmp_path / "target"), len(data)))
    process = mover("fetch", "--ticket-url-file", url_file, "--concurrency", 1, STAGECOACH_STALL_SECONDS="0.5")
    assert rgw.waiting.wait(10)
    rgw.expire_urls()
    at_url(rgw, tmp_path, rgw.fetch_ticket(os.fsencode(tmp_path / "target"), len(data)))
    finished(process, 0)
    assert (tmp_path / "target").read_bytes() == data
    assert (tmp_path / "receipt.json").exists()
    assert rgw.count("GET", "ticket") == 2


def test_an_expired_ticket_that_nobody_renews_is_final(rgw: FaultyStore, tmp_path: Path) -> None:
    url_file = at_url(rgw, tmp_path, rgw.fetch_ticket(os.fsencode(tmp_path / "target"), 3))
    rgw.expire_urls()
    finished(mover("fetch", "--ticket-url-file", url_file), 1)
    assert json.loads((tmp_path / "receipt.json").read_text())["code"] == "ticket_expired"


@pytest.mark.parametrize("content", ["", "not an address", "file:///etc/passwd", "{}"])
def test_what_is_no_ticket_leaves_a_receipt_that_says_so(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ticket"
    path.write_text(content)
    for option in ("--ticket", "--ticket-url-file"):
        finished(mover("fetch", option, path), 1)
        receipt = json.loads((tmp_path / "receipt.json").read_text())
        assert (receipt["ok"], receipt["code"]) == (False, "ticket_unreadable")


def test_a_limit_on_the_size_of_files_is_no_space(rgw: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(20 * PART)
    rgw.keep("object", data)
    ticket = write_ticket(tmp_path / "ticket", rgw.fetch_ticket(os.fsencode(tmp_path / "target"), len(data)))
    limit = 10 * PART
    process = mover("fetch", "--ticket", ticket, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    finished(process, 1)
    assert json.loads((tmp_path / "receipt.json").read_text())["code"] == "no_space"
    assert sorted(os.listdir(tmp_path)) == ["receipt.json", "ticket"]


def test_a_failed_run_never_prints_a_phrase_of_success_whatever_the_file_is_called(rgw: FaultyStore, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "File was successfully moved" / "x")
    ticket = write_ticket(tmp_path / "File was successfully moved.json", rgw.fetch_ticket(path, 3))
    finished(mover("fetch", "--ticket", ticket), 1)


def test_memory_stays_bounded_whatever_the_size_of_a_part(tmp_path: Path) -> None:
    size = 96 * 1024 * 1024
    with FaultyStore(part_size=size).serving() as store:
        store.keep("object", bytes(size))
        ticket = write_ticket(tmp_path / "ticket", store.fetch_ticket(os.fsencode(tmp_path / "target"), size))
        code = (
            "import runpy, sys; sys.argv[1:] = ['fetch', '--ticket', sys.argv[1]]\n"
            f"try: runpy.run_path({MOVER!r}, run_name='__main__')\n"
            "except SystemExit as end: assert not end.code\n"
            "print(next(row.split()[1] for row in open('/proc/self/status') if row.startswith('VmHWM')))"
        )
        out = subprocess.check_output([sys.executable, "-c", code, str(ticket)], text=True, timeout=20)
    assert int(out.split()[-1]) < 64 * 1024


def test_the_source_needs_no_python_newer_than_3_6() -> None:
    beside = Path(sys.executable).with_name("vermin")
    vermin = str(beside) if beside.exists() else shutil.which("vermin")
    if vermin is None:
        pytest.skip("vermin is not installed")
    done = subprocess.run([vermin, "-t=3.6-", "--no-tips", MOVER], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
