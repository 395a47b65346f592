"""Directories: what arrives is what was sent, to the nanosecond, or nothing is."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.unit.mover.clocks import QuickClock, Stopper
from tests.unit.mover.faulty_store import FaultyStore, hidden_files, md5, some_bytes
from tests.unit.mover.trees import fetch_ticket, make_tree, put_ticket, snapshot, write

from stagecoach.mover import stagecoach_mover
from stagecoach.mover.stagecoach_mover import Failed, SourceTree, TargetTree, fetch, measure_tree, put

PART = 10_000


@pytest.fixture(params=["rgw", "rclone"])
def store(request: pytest.FixtureRequest) -> Iterator[FaultyStore]:
    with FaultyStore(dialect=request.param, part_size=PART).serving() as serving:
        yield serving


@pytest.fixture
def rgw() -> Iterator[FaultyStore]:
    with FaultyStore(part_size=PART).serving() as serving:
        yield serving


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    subprocess.run(["rm", "-rf", tmp_path], check=True)  # what cleans up otherwise fails at trees so deep


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A tree whose members are easily pointed at: a directory, a link, a file of five parts, small files."""
    root = tmp_path / "small"
    (root / "sub").mkdir(parents=True)
    (root / "a-large").write_bytes(some_bytes(5 * PART + 7))
    for number in range(20):
        (root / "sub" / f"file{number}").write_bytes(some_bytes(1000 + number))
    (root / "link").symlink_to("sub/file1")
    return root


def run_put(ticket: dict[str, Any], **more: Any) -> dict[str, Any]:
    return put(ticket, **{"clock": QuickClock(), **more})


def run_fetch(ticket: dict[str, Any], **more: Any) -> dict[str, Any]:
    return fetch(ticket, **{"clock": QuickClock(), **more})


def stream_of(root: Path) -> bytes:
    tree = SourceTree(os.fsencode(root), None)
    data = tree.read(0, tree.size_bytes)
    tree.close()
    return data


def test_a_tree_with_everything_in_it_makes_the_round_trip(store: FaultyStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    make_tree(source)
    before = snapshot(source)
    measured = measure_tree(os.fsencode(source), str(tmp_path))
    receipt = run_put(put_ticket(store, source), state_directory=str(tmp_path / "a"))
    assert receipt["ok"], receipt
    assert receipt["size_bytes"] == measured["size_bytes"] == len(store.objects["object"])
    assert measured["entry_count"] == len(before) > 2000
    assert json.loads(store.objects["progress"])["size_bytes"] == measured["size_bytes"]
    receipt = run_fetch(fetch_ticket(store, target), state_directory=str(tmp_path / "b"))
    assert receipt["ok"], receipt
    assert snapshot(source) == before
    assert snapshot(target) == before
    assert {"size", "multipart_etag" if store.dialect == "rgw" else "md5"} == {p["how"] for p in receipt["proved"]}
    assert receipt["size_bytes"] == receipt["bytes_moved"] == measured["size_bytes"]
    assert sorted(os.listdir(tmp_path / "a")) == ["put.lock", "receipt.json"]
    assert os.listdir(tmp_path / "b") == ["receipt.json"]
    assert hidden_files(tmp_path) == []


def test_the_stream_is_one_that_tar_and_the_standard_library_read(tmp_path: Path) -> None:
    make_tree(tmp_path / "source", 200)
    data = stream_of(tmp_path / "source")
    assert len(data) % tarfile.RECORDSIZE == 0
    before = snapshot(tmp_path / "source")
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        members = {member.name: member for member in archive}
        assert {os.fsencode(name) for name in members} == {b"." if not path else path[1:] for path in before}
        for name, member in members.items():
            path = b"" if name == "." else b"/" + os.fsencode(name)
            kind, mode, mtime_ns, *content = before[path]
            assert (member.mode, member.uid, member.uname) == (mode, 0, ""), path
            assert abs(member.mtime - mtime_ns / 1e9) < 1e-6, path
            if kind == "file":
                assert hashlib.sha256(archive.extractfile(member).read()).hexdigest() == content[1], path  # type: ignore[union-attr]
            assert member.isfile() == (kind == "file")
            assert os.fsencode(member.linkname) == (content[0] if kind == "link" else b"")
    listed = subprocess.run(["tar", "-tf", "-", "--quoting-style=literal"], input=data, capture_output=True, check=True).stdout
    listed = b"\n" + listed.replace(b"/\n", b"\n")
    for path in before:
        assert b"\n" + (path[1:] or b".") + b"\n" in listed, path


def test_any_stretch_of_the_stream_can_be_read_at_any_time(small: Path) -> None:
    tree = SourceTree(os.fsencode(small), None)
    data = tree.read(0, 10**9)
    assert len(data) == tree.size_bytes
    for step in (97, 512, 1000, 4096):
        for offset in reversed(range(0, tree.size_bytes, step)):
            assert tree.read(offset, step) == data[offset : offset + step]
    assert tree.read(tree.size_bytes, 10) == b""
    tree.close()


def test_many_threads_read_the_same_stream(small: Path) -> None:
    tree = SourceTree(os.fsencode(small), None)
    data = tree.read(0, tree.size_bytes)

    def pick(number: int) -> bool:
        offset = number * 7919 % len(data)
        return tree.read(offset, 3000) == data[offset : offset + 3000]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(pick, range(400)))
    tree.close()


def test_a_path_that_ends_with_a_slash_or_is_a_link_is_the_directory(rgw: FaultyStore, small: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(small)
    for path in (f"{small}/", str(tmp_path / "link")):
        assert stream_of(Path(path)) == stream_of(small)
    run_put(put_ticket(rgw, small))
    ticket = fetch_ticket(rgw, tmp_path / "target")
    ticket["path_base64"] = rgw.fetch_ticket(os.fsencode(tmp_path / "target") + b"/", 1)["path_base64"]
    assert run_fetch(ticket)["ok"]
    assert snapshot(tmp_path / "target") == snapshot(small)


# --- the ticket of a put


@pytest.mark.parametrize(("url_count", "multiple"), [(1, 12), (2, 6), (3, 4), (5, 3), (11, 2), (12, 1), (500, 1)])
def test_the_part_size_is_the_smallest_multiple_for_which_there_are_addresses(
    rgw: FaultyStore, small: Path, url_count: int, multiple: int
) -> None:
    data = stream_of(small)
    assert 11 * PART < len(data) <= 12 * PART
    receipt = run_put(put_ticket(rgw, small, url_count))
    assert receipt["ok"], receipt
    assert rgw.objects["object"] == data
    # By number, the longest of its tries: on a busy machine one may have been sent twice, and one of the two be cut off.
    parts: dict[int, int] = {}
    for request in rgw.requests:
        if request.method == "PUT" and request.key == "object":
            parts[request.part] = max(request.body_bytes, parts.get(request.part, 0))
    assert max(parts.values()) == min(multiple * PART, len(data))
    assert len(parts) == -(-len(data) // (multiple * PART))


def test_a_tree_larger_than_its_limit_is_refused(rgw: FaultyStore, small: Path) -> None:
    size = len(stream_of(small))
    assert run_put(put_ticket(rgw, small, limit_bytes=size - 1))["code"] == "size_refused"
    assert run_put(put_ticket(rgw, small, limit_bytes=10))["code"] == "size_refused"
    assert rgw.count("PUT") == 0
    assert run_put(put_ticket(rgw, small, limit_bytes=size))["ok"]


def test_a_tree_whose_size_was_announced_must_have_it(rgw: FaultyStore, small: Path) -> None:
    size = measure_tree(str(small))["size_bytes"]
    ticket = {**rgw.put_ticket(os.fsencode(small), size), "archive": "tar"}
    receipt = run_put(ticket)
    assert receipt["ok"], receipt
    (small / "new").write_bytes(some_bytes(20_000))
    assert run_put(ticket)["code"] == "source_changed"


def test_digests_of_the_whole_stream_are_compared(rgw: FaultyStore, small: Path, tmp_path: Path) -> None:
    data = stream_of(small)
    good = {"sha256": hashlib.sha256(data).hexdigest(), "md5": md5(data)}
    assert run_put(put_ticket(rgw, small, digests={"sha256": "0" * 64}))["code"] == "digest_mismatch"
    assert rgw.completed == 0
    assert run_put(put_ticket(rgw, small, digests=good))["ok"]
    assert run_fetch(fetch_ticket(rgw, tmp_path / "bad", digests={"md5": "0" * 32}))["code"] == "digest_mismatch"
    assert not (tmp_path / "bad").exists()
    receipt = run_fetch(fetch_ticket(rgw, tmp_path / "good", digests=good))
    assert {"sha256", "md5", "size", "multipart_etag"} == {p["how"] for p in receipt["proved"]}


def test_digests_of_the_parts_are_compared_when_they_arrive(rgw: FaultyStore, small: Path, tmp_path: Path) -> None:
    data = stream_of(small)
    rgw.keep("object", data)
    good = [md5(data[at : at + PART]) for at in range(0, len(data), PART)]
    receipt = run_fetch(fetch_ticket(rgw, tmp_path / "good", part_digests={"md5": good}))
    assert {"size", "multipart_etag", "part_md5"} == {p["how"] for p in receipt["proved"]}
    bad = [*good[:3], "0" * 32, *good[4:]]
    assert run_fetch(fetch_ticket(rgw, tmp_path / "bad", part_digests={"md5": bad}))["code"] == "digest_mismatch"
    assert hidden_files(tmp_path) == []


@pytest.mark.parametrize("part_size", [PART, 200_000])
def test_digests_of_every_kind_can_be_made_on_the_way(small: Path, tmp_path: Path, part_size: int) -> None:
    data = stream_of(small)
    digests = {"sha256": hashlib.sha256(data).hexdigest(), "crc32": f"{zlib.crc32(data):08x}"}
    with FaultyStore(part_size=part_size).serving() as store:
        store.keep("object", data)
        store.headers["x-amz-checksum-crc32"] = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
        receipt = run_fetch(fetch_ticket(store, tmp_path / "target", digests=digests))
        assert receipt["ok"], receipt
        assert {"size", "multipart_etag", "sha256", "crc32", "store_crc32"} == {p["how"] for p in receipt["proved"]}
        wrong = {"crc32": "00000000"}
        assert run_fetch(fetch_ticket(store, tmp_path / "bad", digests=wrong))["code"] == "digest_mismatch"


BAD = [{"archive": "zip"}, {"archive": True}, {"limit_bytes": "1"}, {"size_bytes": -1}]


@pytest.mark.parametrize("change", BAD)
def test_a_ticket_that_is_not_understood_is_refused(rgw: FaultyStore, small: Path, change: dict[str, Any]) -> None:
    assert run_put({**put_ticket(rgw, small), **change})["code"] == "ticket_unreadable"


def test_a_source_that_is_no_directory_is_named_as_such(rgw: FaultyStore, small: Path) -> None:
    for name in ("absent", "a-large"):
        assert run_put(put_ticket(rgw, small / name))["code"] == "source_missing", name


def test_a_special_file_in_the_tree_is_refused_by_name(rgw: FaultyStore, small: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        os.mkfifo(small / "sub" / "pi\npe")
        receipt = run_put(put_ticket(rgw, small))
        assert receipt["code"] == "source_special_file"
        assert "'sub/pi\\npe'" in receipt["message"]
        (small / "sub" / "pi\npe").unlink()
        here = os.getcwd()
        os.chdir(small)
        listener.bind("socket File was successfully moved")
        os.chdir(here)
        with pytest.raises(Failed) as caught:
            measure_tree(str(small))
    assert caught.value.code == "source_special_file"
    assert "successful" not in caught.value.message
    assert rgw.count("PUT") == 0


def test_the_identity_is_another_when_anything_is(small: Path) -> None:
    seen = {measure_tree(str(small))["identity"]}
    assert seen == {measure_tree(os.fsencode(small))["identity"]}
    for change in (*CHANGES, lambda root: os.chmod(root / "sub", 0o700), lambda root: os.utime(root, ns=(1, 1))):
        change(small)
        identity = measure_tree(str(small))["identity"]
        assert identity not in seen
        seen.add(identity)


# --- a source that changes


def change_content(root: Path) -> None:
    path = root / "sub" / "file7"
    found = path.stat()
    path.write_bytes(bytes(found.st_size))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))


def change_grown(root: Path) -> None:
    with (root / "a-large").open("ab") as file:
        file.write(b"more")


def change_new(root: Path) -> None:
    (root / "new").write_bytes(b"")


def change_removed(root: Path) -> None:
    (root / "sub" / "file19").unlink()


def change_touched(root: Path) -> None:
    os.utime(root / "sub" / "file3", ns=(1, 1))


def change_link(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("elsewhere")


def change_directory(root: Path) -> None:
    (root / "sub").rename(root / "other")
    shutil.copytree(root / "other", root / "sub")
    shutil.rmtree(root / "other")


CHANGES = [change_content, change_grown, change_new, change_removed, change_touched, change_link, change_directory]


@pytest.mark.parametrize("part", [1, 3, 9])
@pytest.mark.parametrize("change", CHANGES)
def test_a_tree_that_changes_while_it_is_read_is_not_uploaded(rgw: FaultyStore, small: Path, change: Any, part: int) -> None:
    class Meddler(QuickClock):
        def pause(self, seconds: float, halt: threading.Event) -> None:
            change(small)

    rgw.fail("PUT", "status", part, status=503)
    receipt = run_put(put_ticket(rgw, small), clock=Meddler(), concurrency=1)
    assert receipt["code"] == "source_changed", receipt
    assert rgw.completed == 0


def test_a_pipe_in_place_of_a_file_does_not_hang_and_a_link_is_not_followed(small: Path) -> None:
    tree = SourceTree(os.fsencode(small), None)
    secret = small.parent / "secret"
    secret.write_bytes(some_bytes(5 * PART + 7))
    for replace in (lambda path: os.mkfifo(path), lambda path: path.symlink_to(secret)):
        (small / "a-large").unlink()
        replace(small / "a-large")
        with pytest.raises(Failed) as caught:
            tree.read(0, tree.size_bytes)
        assert caught.value.code == "source_changed"
    tree.close()


def test_a_tree_that_changed_between_two_runs_is_not_uploaded(rgw: FaultyStore, small: Path, tmp_path: Path) -> None:
    for change in (change_touched, change_grown):
        state = str(tmp_path / change.__name__)
        ticket = put_ticket(rgw, small)
        assert interrupted_put(rgw, ticket, state, 4)["code"] == "interrupted"
        change(small)
        assert run_put(ticket, state_directory=state)["code"] == "source_changed"
    assert rgw.completed == 0


# --- again


def interrupted_put(store: FaultyStore, ticket: dict[str, Any], state: str, part: int) -> dict[str, Any]:
    stop = threading.Event()
    store.fail("PUT", "status", part, status=503)
    return put(ticket, state, stop=stop, clock=Stopper(stop), concurrency=1)


def test_a_second_put_sends_no_finished_part_again(store: FaultyStore, small: Path, tmp_path: Path) -> None:
    ticket, data = put_ticket(store, small), stream_of(small)
    assert interrupted_put(store, ticket, str(tmp_path / "state"), 4)["code"] == "interrupted"
    receipt = run_put(ticket, state_directory=str(tmp_path / "state"))
    assert receipt["ok"], receipt
    assert receipt["bytes_resumed"] == 3 * PART
    assert [store.count("PUT", part=part) for part in (1, 2, 3, 4, 5)] == [1, 1, 1, 2, 1]
    assert store.objects["object"] == data
    store.requests.clear()
    assert run_put(ticket, state_directory=str(tmp_path / "state")) == receipt
    assert store.count("PUT") == 0


def test_a_word_to_stop_is_heard_during_the_walk(rgw: FaultyStore, small: Path) -> None:
    stop = threading.Event()
    stop.set()
    assert run_put(put_ticket(rgw, small), stop=stop)["code"] == "interrupted"


@pytest.mark.parametrize("action", ["reset", "reset_inside", "lost_answer", "wrong_bytes", "expire"])
def test_a_part_that_failed_is_sent_again_whole(store: FaultyStore, small: Path, action: str) -> None:
    store.fail("PUT", action, 3)
    receipt = run_put(put_ticket(store, small), reload_ticket=lambda: put_ticket(store, small))
    assert receipt["ok"], receipt
    assert receipt["retries"] >= 1
    assert store.objects["object"] == stream_of(small)


def test_a_host_that_allows_no_second_thread_is_enough(rgw: FaultyStore, small: Path, tmp_path: Path) -> None:
    start, refused = threading.Thread.start, []

    def start_alone(thread: threading.Thread) -> None:
        if thread.name == "stagecoach-mover" and thread.name in {other.name for other in threading.enumerate()}:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    rgw.keep("object", stream_of(small))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_alone)
        receipt = run_fetch(fetch_ticket(rgw, tmp_path / "target"))
    assert receipt["ok"], receipt
    assert refused, "it tried"
    assert snapshot(tmp_path / "target") == snapshot(small)


def test_pieces_smaller_than_a_part_arrive_in_order(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stagecoach_mover, "LARGEST_PIECE_BYTES", 3000)
    monkeypatch.setattr(stagecoach_mover, "READ_AHEAD_BYTES", 20_000)
    with FaultyStore(part_size=PART).serving() as store:
        store.keep("object", stream_of(small))
        for part in (1, 4, 12):
            store.fail("GET", "reset_inside", part)
        receipt = run_fetch(fetch_ticket(store, tmp_path / "target"), concurrency=8)
    assert receipt["ok"], receipt
    assert snapshot(tmp_path / "target") == snapshot(small)


PASSING = ["reset", "stall", "reset_inside", "stall_inside", "short", "wrong_range", "whole_object", "expire", "wrong_bytes"]


@pytest.mark.parametrize("part", [1, 3, 6, 10])
@pytest.mark.parametrize("action", PASSING)
def test_a_fault_that_passes_costs_a_retry_and_not_a_byte(
    store: FaultyStore, small: Path, tmp_path: Path, action: str, part: int
) -> None:
    store.keep("object", stream_of(small))
    store.fail("GET", action, part)
    target = tmp_path / "target"
    receipt = run_fetch(fetch_ticket(store, target), reload_ticket=lambda: fetch_ticket(store, target))
    assert receipt["ok"], receipt
    assert snapshot(target) == snapshot(small)
    assert hidden_files(tmp_path) == []


FINAL: list[tuple[str, str, str]] = [
    ("HEAD", "reset", "store_unreachable"),
    ("GET", "reset", "store_unreachable"),
    ("GET", "wrong_bytes", "digest_mismatch"),
    ("GET", "other_object", "digest_mismatch"),
    ("GET", "whole_object", "store_refused"),
    ("GET", "expire", "ticket_expired"),
]


@pytest.mark.parametrize("part", [3, 6, 10])
@pytest.mark.parametrize(("method", "action", "code"), FINAL)
def test_a_fault_that_stays_leaves_nothing(
    rgw: FaultyStore, small: Path, tmp_path: Path, method: str, action: str, code: str, part: int
) -> None:
    rgw.keep("object", stream_of(small))
    rgw.fail(method, action, part if method == "GET" else None, times=99)
    before = sorted(os.listdir(tmp_path))
    receipt = run_fetch(fetch_ticket(rgw, tmp_path / "target"))
    codes = (code, "archive_unreadable") if action == "wrong_bytes" else (code,)
    assert receipt["code"] in codes, receipt
    assert sorted(os.listdir(tmp_path)) == before


def interrupted_fetch(store: FaultyStore, ticket: dict[str, Any], state: Path, part: int) -> dict[str, Any]:
    stop = threading.Event()
    store.fail("GET", "reset", part, times=2)  # the first is taken for an idle line that was closed
    return fetch(ticket, str(state), stop=stop, clock=Stopper(stop), concurrency=1)


@pytest.mark.parametrize("part", range(2, 11))
def test_a_second_fetch_goes_on_where_the_first_was(rgw: FaultyStore, small: Path, tmp_path: Path, part: int) -> None:
    os.chmod(small / "sub", 0o500)
    rgw.keep("object", stream_of(small))
    ticket = fetch_ticket(rgw, tmp_path / "target")
    assert interrupted_fetch(rgw, ticket, tmp_path / "state", part)["code"] == "interrupted"
    assert hidden_files(tmp_path) == [".stagecoach-t1.part"]
    assert stat.S_IMODE((tmp_path / ".stagecoach-t1.part").stat().st_mode) == 0o700
    assert not (tmp_path / "target").exists()
    rgw.requests.clear()
    receipt = run_fetch(ticket, state_directory=str(tmp_path / "state"))
    assert receipt["ok"], receipt
    assert receipt["bytes_resumed"] >= (part - 2) * PART
    assert rgw.count("GET", part=1) == (part == 2 and receipt["bytes_resumed"] == 0)
    assert snapshot(tmp_path / "target") == snapshot(small)
    assert os.listdir(tmp_path / "state") == ["receipt.json"]


@pytest.mark.parametrize("harm", ["tree", "file", "notes", "journal", "object"])
def test_what_cannot_be_gone_on_with_is_fetched_afresh(rgw: FaultyStore, small: Path, tmp_path: Path, harm: str) -> None:
    rgw.keep("object", stream_of(small))
    ticket = fetch_ticket(rgw, tmp_path / "target")
    interrupted_fetch(rgw, ticket, tmp_path / "state", 4)
    hidden, state = tmp_path / ".stagecoach-t1.part", tmp_path / "state"
    if harm == "tree":
        shutil.rmtree(hidden)
    elif harm == "file":
        (hidden / "a-large").unlink()
    elif harm == "notes":
        (state / stagecoach_mover.NOTES_NAME).unlink()
    elif harm == "journal":
        journal = json.loads((state / "journal.json").read_text())
        (state / "journal.json").write_text(json.dumps({**journal, "member": {"name": "?"}}))
    else:
        (small / "a-large").write_bytes(bytes(5 * PART + 7))
        rgw.keep("object", stream_of(small))
    receipt = run_fetch(ticket, state_directory=str(state))
    assert receipt["ok"], receipt
    assert receipt["bytes_resumed"] == 0
    assert snapshot(tmp_path / "target") == snapshot(small)


@pytest.mark.parametrize("killed_before", ["place", "forget_notes"])
def test_a_run_that_was_killed_around_the_renaming_has_no_more_to_fetch(
    rgw: FaultyStore, small: Path, tmp_path: Path, killed_before: str
) -> None:
    rgw.keep("object", stream_of(small))
    ticket, state = fetch_ticket(rgw, tmp_path / "target"), tmp_path / "state"

    class Killed(BaseException):
        pass

    def kill(target: TargetTree) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(TargetTree, killed_before, kill)
        patch.setattr(stagecoach_mover.Fetch, "give_up", lambda self: None)
        run_fetch(ticket, state_directory=str(state))
    assert (tmp_path / "target").exists() == (killed_before == "forget_notes")
    rgw.requests.clear()
    receipt = run_fetch(ticket, state_directory=str(state))
    assert receipt["ok"], receipt
    assert {"size", "multipart_etag"} == {p["how"] for p in receipt["proved"]}
    assert receipt["etag"] == rgw.etags["object"]
    assert rgw.count("GET") == 0
    assert snapshot(tmp_path / "target") == snapshot(small)
    assert os.listdir(state) == ["receipt.json"]
    assert run_fetch(ticket, state_directory=str(state)) == receipt
    (state / "receipt.json").unlink()
    assert run_fetch(ticket, state_directory=str(state))["code"] == "target_exists"


def test_the_directories_of_jobs_do_not_travel(rgw: FaultyStore, small: Path, tmp_path: Path) -> None:
    before = snapshot(small)
    times = small.stat()
    jobs = small / ".stagecoach"
    for job in ("t1", "t2"):
        (jobs / job).mkdir(parents=True)
        (jobs / job / "ticket-url").write_text("secret")
    os.utime(small, ns=(times.st_atime_ns, times.st_mtime_ns))
    receipt = run_put(put_ticket(rgw, small), state_directory=str(jobs / "t1"))
    assert receipt["ok"], receipt
    assert run_fetch(fetch_ticket(rgw, tmp_path / "target"))["ok"]
    assert snapshot(tmp_path / "target") == before


def test_what_another_mover_has_under_the_hidden_name_is_left_alone(rgw: FaultyStore, small: Path, tmp_path: Path) -> None:
    class Other(QuickClock):
        def pause(self, seconds: float, halt: threading.Event) -> None:
            (tmp_path / ".stagecoach-t1.part").rename(tmp_path / "elsewhere")
            (tmp_path / ".stagecoach-t1.part" / "theirs").mkdir(parents=True)

    rgw.keep("object", stream_of(small))
    rgw.fail("GET", "status", 3, status=503)
    assert run_fetch(fetch_ticket(rgw, tmp_path / "target"), clock=Other())["code"] == "another_mover"
    assert os.listdir(tmp_path / ".stagecoach-t1.part") == ["theirs"]
    assert not (tmp_path / "target").exists()


def test_without_verification_no_digest_is_made(rgw: FaultyStore, small: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stagecoach_mover, "new_digest", lambda name: pytest.fail(name))
        receipt = run_put(put_ticket(rgw, small), verify=False)
        assert receipt["ok"], receipt
        receipt = run_fetch(fetch_ticket(rgw, tmp_path / "target"), verify=False)
        assert receipt["ok"], receipt
    assert [proof["how"] for proof in receipt["proved"]] == ["size"]
    assert snapshot(tmp_path / "target") == snapshot(small)


def test_two_movers_of_one_transfer_do_not_disturb_each_other(rgw: FaultyStore, small: Path, tmp_path: Path) -> None:
    rgw.keep("object", stream_of(small))
    rgw.fail("GET", "hold", 2)
    ticket = fetch_ticket(rgw, tmp_path / "target")
    receipts: list[dict[str, Any]] = []
    first = threading.Thread(target=lambda: receipts.append(run_fetch(ticket)))
    first.start()
    assert rgw.waiting.wait(5)
    second = run_fetch(ticket, state_directory=str(tmp_path / "state"))
    rgw.hold.set()
    first.join()
    assert second["code"] == "another_mover"
    assert receipts[0]["ok"], receipts
    assert snapshot(tmp_path / "target") == snapshot(small)


# --- the target


def test_an_empty_directory_is_taken_and_anything_else_is_left_alone(rgw: FaultyStore, small: Path, tmp_path: Path) -> None:
    rgw.keep("object", stream_of(small))
    full, empty, file, link = (tmp_path / name for name in ("full", "empty", "file", "link"))
    for folder in (full, empty):
        folder.mkdir()
    (full / "mine").write_bytes(b"mine")
    file.write_bytes(b"mine")
    link.symlink_to(empty)
    for path in (full, file, link):
        receipt = run_fetch(fetch_ticket(rgw, path))
        assert receipt["code"] == "target_exists", receipt
    assert rgw.count("GET") == 0
    assert (full / "mine").read_bytes() == file.read_bytes() == b"mine"
    assert link.is_symlink()
    assert run_fetch(fetch_ticket(rgw, empty))["ok"]
    assert snapshot(empty) == snapshot(small)
    assert run_fetch(fetch_ticket(rgw, tmp_path / "absent" / "target"))["code"] == "target_missing_directory"


@pytest.mark.parametrize("kind", ["file", "full", "link"])
def test_what_appears_at_the_path_meanwhile_is_left_alone(rgw: FaultyStore, small: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"

    class Intruder(QuickClock):
        def pause(self, seconds: float, halt: threading.Event) -> None:
            if kind == "file":
                target.write_bytes(b"mine")
            elif kind == "link":
                target.symlink_to(small)
            else:
                (target / "mine").mkdir(parents=True)

    rgw.keep("object", stream_of(small))
    rgw.fail("GET", "status", 3, status=503)
    before = snapshot(small)
    assert run_fetch(fetch_ticket(rgw, target), clock=Intruder())["code"] == "target_exists"
    assert hidden_files(tmp_path) == []
    assert snapshot(small) == before
    assert target.is_file() or target.is_symlink() or (target / "mine").is_dir()


def test_a_planted_link_by_the_hidden_name_is_not_followed(rgw: FaultyStore, small: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "mine").write_bytes(b"mine")
    (tmp_path / ".stagecoach-t1.part").symlink_to(victim)
    rgw.keep("object", stream_of(small))
    assert run_fetch(fetch_ticket(rgw, tmp_path / "target"))["ok"]
    assert os.listdir(victim) == ["mine"]
    assert snapshot(tmp_path / "target") == snapshot(small)


def test_a_full_disk_leaves_nothing(rgw: FaultyStore, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, view: memoryview) -> int:
        raise OSError(errno.ENOSPC, "full")

    rgw.keep("object", stream_of(small))
    monkeypatch.setattr(stagecoach_mover.os, "write", full)
    receipt = run_fetch(fetch_ticket(rgw, tmp_path / "target"))
    monkeypatch.undo()
    assert receipt["code"] == "no_space"
    assert sorted(os.listdir(tmp_path)) == ["small"]


def test_a_directory_that_hands_down_its_group_goes_on_doing_so(rgw: FaultyStore, small: Path, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    os.chmod(tmp_path / "shared", 0o2775)
    os.chmod(small / "a-large", 0o6755)
    rgw.keep("object", stream_of(small))
    assert run_fetch(fetch_ticket(rgw, tmp_path / "shared" / "target"))["ok"]
    target = tmp_path / "shared" / "target"
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(small.stat().st_mode) | stat.S_ISGID
    assert stat.S_IMODE((target / "sub").stat().st_mode) & stat.S_ISGID
    assert stat.S_IMODE((target / "a-large").stat().st_mode) == 0o755


def test_it_does_so_after_an_interruption_too(rgw: FaultyStore, small: Path, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    os.chmod(tmp_path / "shared", 0o2775)
    rgw.keep("object", stream_of(small))
    ticket = fetch_ticket(rgw, tmp_path / "shared" / "target")
    assert interrupted_fetch(rgw, ticket, tmp_path / "state", 4)["code"] == "interrupted"
    receipt = run_fetch(ticket, state_directory=str(tmp_path / "state"))
    assert receipt["bytes_resumed"] > 0
    target = tmp_path / "shared" / "target"
    assert stat.S_IMODE(target.stat().st_mode) & stat.S_ISGID
    assert stat.S_IMODE((target / "sub").stat().st_mode) & stat.S_ISGID


class AsUser:
    """The superuser is never locked out; this user of `os.open` and `os.mkdir` is, by the owner's bits."""

    def __init__(self) -> None:
        self._open = os.open

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        descriptor = self._open(path, flags, mode, dir_fd=dir_fd)
        bits = stat.S_IMODE(os.fstat(descriptor).st_mode)
        needed = 0o500 if flags & os.O_DIRECTORY else 0o200 if flags & os.O_WRONLY else 0
        if bits & needed != needed:
            os.close(descriptor)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return descriptor


def test_a_file_that_was_finished_as_read_only_after_the_journal_is_gone_on_with(
    rgw: FaultyStore, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chmod(small / "a-large", 0o444)
    rgw.keep("object", stream_of(small))
    ticket = fetch_ticket(rgw, tmp_path / "target")
    interrupted_fetch(rgw, ticket, tmp_path / "state", 4)
    os.chmod(tmp_path / ".stagecoach-t1.part" / "a-large", 0o444)
    monkeypatch.setattr(os, "open", AsUser().open)
    receipt = run_fetch(ticket, state_directory=str(tmp_path / "state"))
    assert receipt["ok"], receipt
    assert receipt["bytes_resumed"] > 0
    assert snapshot(tmp_path / "target") == snapshot(small)


def test_directories_that_an_interrupted_run_had_closed_are_settled_by_the_next(
    rgw: FaultyStore, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small / "sub" / "below").mkdir()
    (small / "sub" / "below" / "deep").mkdir()
    for folder in (small / "sub" / "below" / "deep", small / "sub" / "below", small / "sub"):
        os.chmod(folder, 0o000)
    rgw.keep("object", stream_of(small))
    ticket = fetch_ticket(rgw, tmp_path / "target")
    monkeypatch.setattr(os, "open", AsUser().open)

    def stopped(target: TargetTree) -> None:
        raise Failed("interrupted", "")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stagecoach_mover.Unpacking, "_keep_verdict", stopped)
        assert run_fetch(ticket, state_directory=str(tmp_path / "state"))["code"] == "interrupted"
    assert stat.S_IMODE((tmp_path / ".stagecoach-t1.part" / "sub").stat().st_mode) == 0
    receipt = run_fetch(ticket, state_directory=str(tmp_path / "state"))
    monkeypatch.undo()
    assert receipt["ok"], receipt
    assert receipt["bytes_resumed"] > 0
    assert snapshot(tmp_path / "target") == snapshot(small)


def test_a_tree_of_any_depth_is_removed_whatever_its_modes(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", 100)
    write(os.fsencode(tmp_path / "tree" / ".stagecoach-1"), b"")
    (tmp_path / "tree" / ".stagecoach-2").mkdir()
    (tmp_path / "tree" / ".stagecoach-3" / "full").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "mine").write_bytes(b"mine")
    (tmp_path / "tree" / "out").symlink_to(tmp_path / "outside")
    here = os.open(tmp_path, os.O_RDONLY)
    stagecoach_mover.remove_tree(here, b"tree")
    stagecoach_mover.remove_tree(here, b"tree")
    os.close(here)
    assert os.listdir(tmp_path) == ["outside"]
    assert os.listdir(tmp_path / "outside") == ["mine"]
