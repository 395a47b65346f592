"""The program as it runs on a cluster: a process of its own that sees nothing but its directory, under every Python at hand."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.unit.mover.test_process import pythons
from tests.unit.operations.orders import Order, make_things, picture

from stagecoach.core.job_scripts import MOVER_FILE, OPERATION_FILES, OPERATIONS_FILE, job_script
from stagecoach.mover import stagecoach_mover

SHIPPED = Path(stagecoach_mover.__file__).parent


def shipped(order: Order) -> Path:
    """The job's directory with all that is put there."""
    for name in (MOVER_FILE, *OPERATION_FILES):
        shutil.copyfile(SHIPPED / name, order.directory / name)
    return order.directory


def started(directory: Path, python: str = sys.executable) -> subprocess.Popen[str]:
    script = directory / "job.sh"
    script.write_bytes(job_script("operate", str(directory), python, {}))
    return subprocess.Popen(["bash", script], cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_all_that_lies_beside_the_mover_is_shipped() -> None:
    assert {path.name for path in SHIPPED.glob("stagecoach_*.py")} == {MOVER_FILE, *OPERATION_FILES}


@pytest.mark.parametrize("python", pythons())
def test_every_python_copies_packs_unpacks_and_removes(top: Path, python: str) -> None:
    source = make_things(top / "source")
    (top / "out").mkdir()
    for kind, target, what, options in (
        ("cp", top / "copy", source, {}),
        ("compress", top / "archive", source, {}),
        ("extract", top / "out", top / "archive", {"merges": True}),
        ("mv", top / "moved", top / "copy", {}),
        ("rm", top / "moved", None, {}),
    ):
        order = Order(top, kind, target, what, **options)
        process = started(shipped(order), python)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, ""), out + err
        assert out.splitlines()[-1].startswith("Files were successfully ")
        shutil.rmtree(order.directory)
    assert picture(top / "out" / "source") == picture(source)
    assert sorted(path.name for path in top.iterdir()) == ["archive", "out", "source"]


def test_a_failure_ends_it_with_one_and_says_why(top: Path) -> None:
    order = Order(top, "cp", top / "target", top / "nothing")
    process = started(shipped(order))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("source_missing: ")
    assert "successful" not in err


def test_the_scheduler_word_to_stop_ends_it_soon_and_it_goes_on_later(top: Path) -> None:
    (top / "source").mkdir()
    for number in range(4):
        (top / "source" / f"{number}").write_bytes(os.urandom(1024 * 1024) * 200)
    order = Order(top, "cp", top / "target", top / "source")
    process = started(shipped(order))
    deadline = time.monotonic() + 60
    while not list(top.glob(".stagecoach-*/0")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert err.startswith("interrupted: ")
    assert not (top / "target").exists()
    assert order.done()["files_done"] == 5
    assert picture(top / "target") == picture(top / "source")


def test_only_one_of_two_jobs_works(top: Path) -> None:
    make_things(top / "source")
    order = Order(top, "cp", top / "target", top / "source")
    lock = stagecoach_mover.State(str(order.directory)).lock("operation.lock")
    assert order.carry_out()["code"] == "another_mover"
    assert picture(top / "target") == {}
    os.close(lock)
    order.done()


def test_a_ticket_that_is_none_is_told(top: Path) -> None:
    order = Order(top, "cp", top / "target", top / "source")
    for text in ("", "[]", "{}", '{"version": 2}', order.ticket.read_text().replace('"cp"', '"dd"')):
        order.ticket.write_text(text)
        assert order.carry_out()["code"] == "ticket_unreadable"


@pytest.mark.parametrize("name", OPERATION_FILES)
def test_no_spelling_is_newer_than_the_oldest_python(name: str) -> None:
    beside = Path(sys.executable).with_name("vermin")
    vermin = str(beside) if beside.exists() else shutil.which("vermin")
    if vermin is None:
        pytest.skip("vermin is not installed")
    done = subprocess.run([vermin, "-t=3.6-", "--no-tips", SHIPPED / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_it_is_started_by_its_own_name() -> None:
    script = job_script("operate", "/x", "python3", {}).decode()
    assert f"./{OPERATIONS_FILE} --ticket ./ticket.json --state-directory ." in script
