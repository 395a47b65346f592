"""Several tasks for one transfer, each a process of its own as Slurm starts them: byte-exact, or a clean failure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.mover.faulty_store import FaultyStore, hidden_files, some_bytes, write_ticket
from tests.unit.mover.test_process import finished, mover, pythons

from stagecoach.mover import stagecoach_mover
from stagecoach.mover.stagecoach_mover import Clock, LeadingPut, Rank, Ticket, leg_for

KIB64 = 64 * 1024
OLD = b"the old content"
PHRASES = {
    "fetch": "File was successfully moved",
    "put": "File was successfully moved: multipart file upload successfully completed",
}


@pytest.fixture(params=["rgw", "rclone"])
def store(request: pytest.FixtureRequest) -> Iterator[FaultyStore]:
    with FaultyStore(dialect=request.param, part_size=KIB64).serving() as serving:
        yield serving


@pytest.fixture
def rgw() -> Iterator[FaultyStore]:
    with FaultyStore(part_size=KIB64).serving() as serving:
        yield serving


class Job:
    """A directory with a ticket in it; ``start`` is what srun does."""

    def __init__(self, kind: str, store: FaultyStore, folder: Path, size: int, **more: Any) -> None:
        self.kind = kind
        self.state = folder / "state"
        self.file = folder / "file"
        made = store.fetch_ticket if kind == "fetch" else store.put_ticket
        self.ticket = write_ticket(folder / "ticket", made(os.fsencode(self.file), size, **{"concurrency": 1, **more}))
        self._runs = 0

    def start(
        self, tasks: int, only: int | None = None, run: str | None = None, python: str = sys.executable
    ) -> list[subprocess.Popen[str]]:
        self._runs += 1
        run = run or f"1.{self._runs}"
        numbers = range(tasks) if only is None else [only]
        return [
            mover(
                *(self.kind, "--ticket", self.ticket, "--state-directory", self.state),
                *(("--task", task, "--tasks", tasks, "--run", run) if tasks > 1 else ()),
                python=python,
                SLURMD_NODENAME=f"node{task}",
            )
            for task in numbers
        ]

    @property
    def receipt(self) -> dict[str, Any]:
        receipt: dict[str, Any] = json.loads((self.state / "receipt.json").read_text())
        return receipt


def all_done(job: Job, processes: list[subprocess.Popen[str]]) -> None:
    """All ended well, and the first task alone has the last word."""
    first, *others = processes
    assert [finished(other, 0) for other in others] == [""] * len(others)
    assert finished(first, 0).splitlines()[-1] == PHRASES[job.kind]


def killed(processes: list[subprocess.Popen[str]], number: signal.Signals = signal.SIGKILL) -> None:
    for process in processes:
        process.send_signal(number)
    for process in processes:
        process.communicate(timeout=20)


@pytest.mark.parametrize(("parts", "tasks"), [(0, 2), (1, 2), (2, 3), (7, 2), (12, 4)])
def test_a_file_arrives_and_leaves_byte_for_byte_whatever_the_number_of_tasks(
    store: FaultyStore, tmp_path: Path, parts: int, tasks: int
) -> None:
    data = some_bytes(max(0, parts * KIB64 - 7))
    put = Job("put", store, tmp_path, len(data))
    put.file.write_bytes(data)
    all_done(put, put.start(tasks))
    assert store.objects["object"] == data
    assert store.completed == 1
    assert {store.count("PUT", part=number) for number in range(1, max(1, parts) + 1)} == {1}
    (tmp_path / "to").mkdir()
    fetch = Job("fetch", store, tmp_path / "to", len(data))
    fetch.file.write_bytes(OLD)
    all_done(fetch, fetch.start(tasks))
    assert fetch.file.read_bytes() == data
    assert hidden_files(tmp_path / "to") == []
    for receipt in (put.receipt, fetch.receipt):
        assert receipt["ok"]
        assert receipt["bytes_moved"] == receipt["size_bytes"] == len(data)
    assert json.loads(store.objects["receipt"]) == fetch.receipt
    assert store.count("PUT", "receipt") == 2


@pytest.mark.parametrize("python", pythons())
def test_several_tasks_work_and_go_on_under_every_python(rgw: FaultyStore, tmp_path: Path, python: str) -> None:
    data = some_bytes(8 * KIB64)
    rgw.keep("object", data)
    job = Job("fetch", rgw, tmp_path, len(data))
    rgw.fail("GET", "hold", 6)
    processes = job.start(2, python=python)
    wait_for(lambda: noted(job.state / "journal-1.json") == 1)
    for process in processes:
        process.terminate()
    for process in processes:
        finished(process, 75)
    rgw.hold.set()
    all_done(job, job.start(2, python=python))
    assert job.file.read_bytes() == data
    assert job.receipt["bytes_resumed"] == 5 * KIB64


def test_the_receipt_tells_which_task_moved_what(rgw: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(7 * KIB64)
    rgw.keep("object", data)
    job = Job("fetch", rgw, tmp_path, len(data))
    first, second = job.start(2)
    finished(second, 0)
    out = finished(first, 0)
    assert job.receipt["tasks"] == [
        {"task": 0, "host": "node0", "first_part": 1, "parts": 3, "bytes_moved": 3 * KIB64, "bytes_resumed": 0},
        {"task": 1, "host": "node1", "first_part": 4, "parts": 4, "bytes_moved": 4 * KIB64, "bytes_resumed": 0},
    ]
    assert "Task 1 of 2 on node1: 4 parts from 4 on, 262144 bytes moved, 0 resumed." in out.splitlines()
    assert {proof["how"] for proof in job.receipt["proved"]} == {"size", "multipart_etag"}
    assert json.loads(rgw.objects["progress"])["bytes_done"] == len(data)


@pytest.mark.parametrize("again", [2, 3, 1])
def test_a_fetch_killed_in_the_middle_goes_on_where_its_tasks_were(rgw: FaultyStore, tmp_path: Path, again: int) -> None:
    data = some_bytes(16 * KIB64)
    rgw.keep("object", data)
    job = Job("fetch", rgw, tmp_path, len(data))
    job.file.write_bytes(OLD)
    rgw.fail("GET", "hold", 6)
    rgw.fail("GET", "hold", 14)
    processes = job.start(2)
    journals = [job.state / "journal.json", job.state / "journal-1.json"]
    wait_for(lambda: [noted(journal) for journal in journals] == [5, 5])
    killed(processes)
    assert job.file.read_bytes() == OLD
    rgw.hold.set()
    all_done(job, job.start(again))
    assert job.file.read_bytes() == data
    assert job.receipt["bytes_resumed"] == 10 * KIB64
    assert job.receipt["bytes_moved"] == 6 * KIB64
    assert [rgw.count("GET", part=number) for number in (1, 5, 9, 13)] == [1, 1, 1, 1]
    assert sorted(name for name in os.listdir(job.state) if name.startswith("journal")) == []


@pytest.mark.parametrize("again", [2, 3, 1])
def test_a_put_that_was_stopped_sends_no_part_twice(rgw: FaultyStore, tmp_path: Path, again: int) -> None:
    data = some_bytes(16 * KIB64)
    job = Job("put", rgw, tmp_path, len(data))
    job.file.write_bytes(data)
    rgw.fail("PUT", "hold", 6)
    rgw.fail("PUT", "hold", 14)
    processes = job.start(2)
    wait_for(lambda: rgw.count("PUT", part=6) == rgw.count("PUT", part=14) == 1)
    for process in processes:
        process.terminate()
    for process in processes:
        finished(process, 75)
    assert job.receipt["code"] == "interrupted"
    assert rgw.completed == 0
    rgw.hold.set()
    all_done(job, job.start(again))
    assert rgw.objects["object"] == data
    assert [rgw.count("PUT", part=number) for number in range(1, 17) if number not in (6, 14)] == [1] * 14
    assert job.receipt["bytes_resumed"] == 10 * KIB64


def test_one_task_killed_alone_leaves_the_others_to_be_stopped_and_all_goes_on(rgw: FaultyStore, tmp_path: Path) -> None:
    """What srun --kill-on-bad-exit does: a task dies without a word, the rest get SIGTERM."""
    data = some_bytes(8 * KIB64)
    rgw.keep("object", data)
    job = Job("fetch", rgw, tmp_path, len(data))
    job.file.write_bytes(OLD)
    rgw.fail("GET", "hold", 6)
    first, second = job.start(2)
    assert rgw.waiting.wait(10)
    wait_for(lambda: noted(job.state / "journal.json") == 4)
    killed([second])
    first.terminate()
    finished(first, 75)
    assert job.receipt["code"] == "interrupted"
    assert job.file.read_bytes() == OLD
    rgw.hold.set()
    all_done(job, job.start(2))
    assert job.file.read_bytes() == data
    assert [rgw.count("GET", part=number) for number in (1, 2, 3, 4)] == [1, 1, 1, 1]


@pytest.mark.parametrize("part", [1, 8])
def test_the_failure_of_one_task_is_that_of_all_and_the_old_target_stays(rgw: FaultyStore, tmp_path: Path, part: int) -> None:
    data = some_bytes(8 * KIB64)
    rgw.keep("object", data)
    job = Job("fetch", rgw, tmp_path, len(data))
    job.file.write_bytes(OLD)
    rgw.fail("GET", "status", part, times=99, status=404)
    rgw.fail("GET", "hold", 3 if part == 8 else 6)
    for process in job.start(2):
        finished(process, 1)
    assert (job.receipt["ok"], job.receipt["code"]) == (False, "object_missing")
    assert "tasks" not in job.receipt
    assert job.file.read_bytes() == OLD
    assert hidden_files(tmp_path) == []


def test_a_source_that_changes_under_one_task_fails_the_put_and_publishes_nothing(rgw: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(8 * KIB64)
    job = Job("put", rgw, tmp_path, len(data))
    job.file.write_bytes(data)
    rgw.fail("PUT", "hold", 2)
    rgw.fail("PUT", "hold", 7)
    processes = job.start(2)
    wait_for(lambda: rgw.count("PUT", part=2) == rgw.count("PUT", part=7) == 1)
    job.file.write_bytes(data[::-1])
    rgw.hold.set()
    for process in processes:
        finished(process, 1)
    assert job.receipt["code"] == "source_changed"
    assert rgw.completed == 0


@pytest.mark.parametrize("part", [2, 7])
def test_bytes_that_are_not_the_objects_are_fetched_over_by_the_first_task(store: FaultyStore, tmp_path: Path, part: int) -> None:
    data = some_bytes(8 * KIB64)
    store.keep("object", data)
    job = Job("fetch", store, tmp_path, len(data))
    store.fail("GET", "wrong_bytes", part)
    all_done(job, job.start(2))
    assert job.file.read_bytes() == data
    assert "tasks" not in job.receipt


@pytest.mark.parametrize("part", [2, 7])
def test_an_object_that_is_replaced_for_one_task_is_fetched_over_by_the_first(
    rgw: FaultyStore, tmp_path: Path, part: int
) -> None:
    data = some_bytes(8 * KIB64)
    rgw.keep("object", data)
    job = Job("fetch", rgw, tmp_path, len(data))
    rgw.fail("GET", "other_object", part)
    all_done(job, job.start(2))
    assert job.file.read_bytes() == data


def test_parts_that_would_share_a_page_are_left_to_one_task(tmp_path: Path) -> None:
    with FaultyStore(part_size=1000).serving() as store:
        data = some_bytes(20_000)
        store.keep("object", data)
        job = Job("fetch", store, tmp_path, len(data))
        all_done(job, job.start(3))
    assert job.file.read_bytes() == data
    assert "tasks" not in job.receipt


def test_a_task_may_begin_long_after_the_first(rgw: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(6 * KIB64)
    rgw.keep("object", data)
    job = Job("fetch", rgw, tmp_path, len(data))
    (first,) = job.start(2, only=0, run="7.0")
    wait_for(lambda: noted(job.state / "journal.json") == 3)
    assert first.poll() is None
    (second,) = job.start(2, only=1, run="7.0")
    all_done(job, [first, second])
    assert job.file.read_bytes() == data


def test_what_tasks_of_an_earlier_run_said_counts_nothing(rgw: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(6 * KIB64)
    rgw.keep("object", data)
    job = Job("fetch", rgw, tmp_path, len(data))
    job.state.mkdir()
    for word in ("begin", "ended", "alone"):
        (job.state / "task-0.json").write_text(json.dumps({"run": "1.0", "word": word, "ok": True, "beat": 9, "inode": 1}))
        (second,) = job.start(2, only=1, run="1.9")
        wait_for(lambda: (job.state / "task-1.json").exists())
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(1)
        killed([second])
        (job.state / "task-1.json").unlink()
    (job.state / "task-1.json").write_text(json.dumps({"run": "1.0", "word": "done", "beat": 9, "parts": {"4": "0" * 32}}))
    all_done(job, job.start(2))
    assert job.file.read_bytes() == data


def test_a_task_of_an_earlier_run_that_still_works_keeps_its_successor_out(rgw: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(8 * KIB64)
    rgw.keep("object", data)
    job = Job("fetch", rgw, tmp_path, len(data))
    rgw.fail("GET", "hold", 6)
    first, second = job.start(2)
    assert rgw.waiting.wait(10)
    killed([first])
    again = job.start(2)
    # The old task hears the new first one's word, stops, and so makes room.
    finished(second, 75)
    all_done(job, again)
    assert job.file.read_bytes() == data


def test_a_run_after_a_finished_one_moves_nothing(rgw: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(6 * KIB64)
    rgw.keep("object", data)
    job = Job("fetch", rgw, tmp_path, len(data))
    all_done(job, job.start(2))
    asked = rgw.count("GET")
    all_done(job, job.start(2))
    assert rgw.count("GET") == asked


class HastyClock(Clock):
    """A second is a millisecond."""

    def monotonic(self) -> float:
        return super().monotonic() * 1000


def carried_out(job: Job, rank: Rank) -> dict[str, Any]:
    ticket = json.loads(job.ticket.read_text())
    leg = leg_for(job.kind, rank)(lambda line: ticket, None, str(job.state), None, None, None, None, HastyClock())
    return leg.carry_out()


@pytest.mark.parametrize("task", [0, 1])
def test_no_task_waits_for_ever_for_one_that_is_silent(rgw: FaultyStore, tmp_path: Path, task: int) -> None:
    data = some_bytes(6 * KIB64)
    rgw.keep("object", data)
    job = Job("fetch", rgw, tmp_path, len(data))
    ended = carried_out(job, Rank(task, 2, "r"))
    assert (ended["ok"], ended["code"]) == (False, "interrupted")
    assert f"Task {1 - task} of this job has said nothing for 600 seconds" in ended["message"]


def test_without_a_place_to_talk_the_first_task_does_all(rgw: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(6 * KIB64)
    rgw.keep("object", data)
    job = Job("fetch", rgw, tmp_path, len(data))
    job.state.write_text("no directory")
    first, second = job.start(2)
    assert second.communicate(timeout=20)[0] == ""
    assert first.communicate(timeout=20)[0].splitlines()[-1] == PHRASES["fetch"]
    assert (first.returncode, second.returncode) == (0, 0)
    assert job.file.read_bytes() == data
    assert json.loads(rgw.objects["receipt"])["ok"]


@pytest.mark.parametrize("kind", ["fetch", "put"])
def test_a_file_that_is_not_the_same_on_every_node_is_said_in_words(rgw: FaultyStore, tmp_path: Path, kind: str) -> None:
    job = Job(kind, rgw, tmp_path, 6 * KIB64)
    job.file.write_bytes(bytes(6 * KIB64))
    job.state.mkdir()
    more = {"inode": 1, "object": [6 * KIB64, None, False, None, {}], "source": [6 * KIB64, 1, 1]}
    (job.state / "task-0.json").write_text(json.dumps({"run": "r", "word": "begin", "beat": 1, **more}))
    ended = carried_out(job, Rank(1, 2, "r"))
    assert ended["code"] == ("target_missing_directory" if kind == "fetch" else "source_changed")
    assert json.loads((job.state / "task-1.json").read_text())["word"] == "failed"
    assert not (job.state / "receipt.json").exists()


@pytest.mark.parametrize("parts", [None, {}, {"4": "x", "5": "x", "6": "x"}, {"4": None, "5": None, "6": None}])
def test_a_task_that_does_not_say_what_it_moved_is_not_believed(rgw: FaultyStore, tmp_path: Path, parts: Any) -> None:
    data = some_bytes(6 * KIB64)
    rgw.keep("object", data)
    job = Job("fetch", rgw, tmp_path, len(data))
    job.file.write_bytes(OLD)
    job.state.mkdir()
    said = {"run": "r", "word": "done", "beat": 1, "host": "x", "counts": [1, 1, 0, 0], "parts": parts}
    (job.state / "task-1.json").write_text(json.dumps(said))
    ended = carried_out(job, Rank(0, 2, "r"))
    assert (ended["ok"], ended["code"]) == (False, "mover_error")
    assert job.file.read_bytes() == OLD
    assert hidden_files(tmp_path) == []


def test_md5s_that_a_task_invents_do_not_add_up(rgw: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(6 * KIB64)
    rgw.keep("object", data)
    job = Job("fetch", rgw, tmp_path, len(data))
    job.state.mkdir()
    said = {"run": "r", "word": "done", "beat": 1, "host": "x", "counts": [1, 1, 0, 0]}
    (job.state / "task-1.json").write_text(
        json.dumps({**said, "parts": {str(number): {"md5": "0" * 32} for number in (4, 5, 6)}})
    )
    assert carried_out(job, Rank(0, 2, "r"))["ok"]  # having fetched everything over, by itself
    assert job.file.read_bytes() == data


def test_a_task_that_goes_on_complaining_does_not_disturb_the_first_when_it_does_all_over(
    rgw: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = some_bytes(6 * KIB64)
    rgw.keep("object", data)
    job = Job("fetch", rgw, tmp_path, len(data))
    job.state.mkdir()
    said = {"run": "r", "word": "failed", "beat": 1, "host": "x", "code": "object_differs", "message": "", "counts": [0, 0, 0, 0]}
    (job.state / "task-1.json").write_text(json.dumps(said))
    monkeypatch.setattr(stagecoach_mover, "TASK_LOOK_SECONDS", 0.0)  # it looks again before it has the object's HEAD
    receipt = carried_out(job, Rank(0, 2, "r"))
    assert receipt["ok"], receipt
    assert job.file.read_bytes() == data


def test_the_parts_of_the_others_are_counted_once_and_quickly(rgw: FaultyStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(20_000))
    rgw.part_size = 1
    leg = LeadingPut(Rank(0, 2, "r"), lambda line: None)
    leg.ticket = Ticket(rgw.put_ticket(os.fsencode(tmp_path / "file"), 20_000), "put")
    entry = ["etag", "0" * 32]
    began = time.process_time()
    leg._take_over({str(number): entry for number in range(1, 15_001)})
    assert time.process_time() - began < 5
    assert leg.progress.counts() == (0, 10_000, 10_000, 0)


@pytest.mark.parametrize(
    "options",
    [("--task", 2, "--tasks", 2, "--run", "1"), ("--task", -1), ("--tasks", 2), ("--tasks", 2, "--run", "a b"), ("--tasks", 999)],
)
def test_impossible_numbers_are_refused(tmp_path: Path, options: tuple[object, ...]) -> None:
    finished(mover("fetch", "--ticket", tmp_path / "none", *options), 2)


def noted(journal: Path) -> int:
    """Parts in a journal; 0 when there is none."""
    return len(json.loads(journal.read_text())["parts"]) if journal.exists() else 0


def wait_for(look: Callable[[], object]) -> None:
    """As a test that waits for another process must: bounded, and loudly."""
    deadline = time.monotonic() + 15
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)
