"""On a node: a ticket's path is below the directory that the agent gives, whatever stands there and whoever made it."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.mover.clocks import QuickClock, Stopper
from tests.unit.mover.faulty_store import PART, FaultyStore, hidden_files, some_bytes, write_ticket
from tests.unit.mover.test_process import finished, mover, pythons
from tests.unit.mover.trees import make_tree, snapshot

from stagecoach.mover import stagecoach_mover
from stagecoach.mover.stagecoach_mover import discard, fetch, put

PARTS_OFFERED = 10


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """With something of the owner's beside it, which no ticket may reach."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"the owner's")
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def fetched(store: FaultyStore, place: Path, path: bytes, size: int, **more: Any) -> dict[str, Any]:
    ticket = store.fetch_ticket(path, size, **{"place": "receive", **more})
    return fetch(ticket, str(place.parent / "state"), clock=QuickClock(), place=str(place))


def measured(store: FaultyStore, path: bytes, **more: Any) -> dict[str, Any]:
    ticket = store.put_ticket(path, PARTS_OFFERED * PART, **{"place": "send", **more})
    return {**ticket, "size_bytes": None}


def sent(store: FaultyStore, place: Path, path: bytes, **more: Any) -> dict[str, Any]:
    return put(measured(store, path, **more), str(place.parent / "state"), clock=QuickClock(), place=str(place))


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("path", [b"/data", b"/a/b/c/data", b"//a///data", b"/\xff b/$(x)/new\nline/-rf"])
def test_what_is_fetched_arrives_below_the_place_in_directories_that_are_made(
    store: FaultyStore, place: Path, path: bytes
) -> None:
    data = some_bytes(5 * PART + 7)
    store.keep("object", data)
    receipt = fetched(store, place, path, len(data))
    assert receipt["ok"], receipt
    target = os.fsencode(place) + path
    with open(target, "rb") as file:
        assert file.read() == data
    assert stat.S_IMODE(os.stat(target).st_mode) == 0o640
    for directory in {os.path.dirname(target), os.path.dirname(os.path.dirname(target))} - {os.fsencode(place)}:
        if len(directory) > len(os.fsencode(place)) + 1:
            assert stat.S_IMODE(os.stat(directory).st_mode) == 0o750
    assert not hidden_files(os.fsdecode(os.path.dirname(target)))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 1, PART, 3 * PART + 1, PARTS_OFFERED * PART, PARTS_OFFERED * PART + 1, 25 * PART + 7])
def test_a_file_whose_size_the_service_cannot_know_is_measured_and_sent_whole(store: FaultyStore, place: Path, size: int) -> None:
    (place / "run1").mkdir()
    (place / "run1" / "data.bin").write_bytes(some_bytes(size))
    receipt = sent(store, place, b"/run1/data.bin")
    assert receipt["ok"], receipt
    assert store.objects["object"] == some_bytes(size)
    assert receipt["size_bytes"] == receipt["bytes_moved"] == size
    assert len(store.parts) <= PARTS_OFFERED
    assert {"size", "part_md5"} <= {proof["how"] for proof in receipt["proved"]}


def test_a_measured_file_also_goes_without_a_place(rgw: FaultyStore, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(some_bytes(3 * PART))
    ticket = {**rgw.put_ticket(os.fsencode(tmp_path / "data"), 9 * PART), "size_bytes": None}
    assert put(ticket, clock=QuickClock())["size_bytes"] == 3 * PART
    assert rgw.objects["object"] == some_bytes(3 * PART)


def test_a_measured_file_that_is_too_large_is_not_sent(rgw: FaultyStore, place: Path) -> None:
    (place / "data").write_bytes(some_bytes(101))
    assert sent(rgw, place, b"/data", limit_bytes=101)["ok"]
    (place / "data").write_bytes(some_bytes(102))
    (place.parent / "state" / "receipt.json").unlink()
    receipt = sent(rgw, place, b"/data", limit_bytes=101)
    assert (receipt["ok"], receipt["code"]) == (False, "size_refused")
    assert "102 bytes" in receipt["message"]


def test_an_interrupted_measured_put_goes_on_and_sends_no_part_twice(store: FaultyStore, place: Path) -> None:
    (place / "data").write_bytes(some_bytes(6 * PART))
    stop = threading.Event()
    store.fail("PUT", "status", part=6, times=99, status=503)
    ticket, state = measured(store, b"/data"), str(place.parent / "state")
    first = put(ticket, state, stop=stop, clock=Stopper(stop, lambda: len(store.parts) == 5), place=str(place))
    assert first["code"] == "interrupted"
    store.faults.clear()
    second = sent(store, place, b"/data")
    assert second["ok"], second
    assert (second["bytes_moved"], second["bytes_resumed"]) == (PART, 5 * PART)
    assert store.objects["object"] == some_bytes(6 * PART)


def test_a_fetch_whose_ticket_has_expired_goes_on_with_the_next_one(store: FaultyStore, place: Path) -> None:
    store.keep("object", some_bytes(6 * PART))
    store.fail("GET", "expire", 6)
    first = fetched(store, place, b"/run/data", 6 * PART, concurrency=1)
    assert first["code"] == "ticket_expired"
    assert hidden_files(place / "run") == [".stagecoach-t1.part"]
    second = fetched(store, place, b"/run/data", 6 * PART)
    assert second["ok"], second
    assert (second["bytes_moved"], second["bytes_resumed"]) == (PART, 5 * PART)
    assert (place / "run" / "data").read_bytes() == some_bytes(6 * PART)


@pytest.mark.parametrize("size", [6 * PART, 7 * PART], ids=["same size", "another size"])
def test_a_measured_file_that_changed_between_two_runs_is_noticed(rgw: FaultyStore, place: Path, size: int) -> None:
    (place / "data").write_bytes(some_bytes(6 * PART))
    stop = threading.Event()
    rgw.fail("PUT", "status", part=6, times=99, status=503)
    state = str(place.parent / "state")
    put(measured(rgw, b"/data"), state, stop=stop, clock=Stopper(stop, lambda: len(rgw.parts) == 5), place=str(place))
    rgw.faults.clear()
    (place / "data").write_bytes(bytes(size))
    os.utime(place / "data", (1, 1))
    assert sent(rgw, place, b"/data")["code"] == "source_changed"
    assert not rgw.completed


def test_a_source_whose_directory_is_replaced_while_it_is_sent_has_changed(rgw: FaultyStore, place: Path) -> None:
    (place / "run").mkdir()
    (place / "run" / "data").write_bytes(some_bytes(3 * PART))

    class Replaces(QuickClock):
        def pause(self, seconds: float, halt: threading.Event) -> None:
            if not (place / "old").exists():
                (place / "run").rename(place / "old")
                (place / "run").symlink_to(place / "old")

    rgw.fail("PUT", "status", part=2, status=503)
    receipt = put(measured(rgw, b"/run/data"), clock=Replaces(), place=str(place))
    assert receipt["code"] == "source_changed"
    assert not rgw.completed


@pytest.mark.parametrize("path", [b"/../outside/new", b"/a/../../outside/new", b"/./new", b"/.."])
def test_a_path_that_climbs_is_not_understood(rgw: FaultyStore, place: Path, path: bytes) -> None:
    rgw.keep("object", b"data")
    assert fetched(rgw, place, path, 4)["code"] == "ticket_unreadable"
    assert sent(rgw, place, path)["code"] == "ticket_unreadable"
    assert os.listdir(place.parent / "outside") == ["secret"]


@pytest.mark.parametrize("target", ["../outside", "/", ".", "inside", "nowhere"])
def test_no_directory_on_the_way_may_be_a_link(rgw: FaultyStore, place: Path, target: str) -> None:
    (place / "inside").mkdir()
    (place / "inside" / "secret").write_bytes(b"of another sender")
    (place / "link").symlink_to(target)
    rgw.keep("object", b"data")
    receipt = fetched(rgw, place, b"/link/new", 4)
    assert (receipt["ok"], receipt["code"]) == (False, "target_missing_directory")
    assert "'link' is a symbolic link" in receipt["message"]
    receipt = sent(rgw, place, b"/link/secret")
    assert (receipt["ok"], receipt["code"]) == (False, "source_missing")
    for archive in ("/link", "/link/below"):
        assert sent(rgw, place, archive.encode(), archive="tar")["code"] == "source_missing"
    assert fetched(rgw, place, b"/link/below", 4, archive="tar")["code"] == "target_missing_directory"
    assert not rgw.parts
    assert not list(place.parent.rglob("new"))


def test_a_link_is_neither_read_nor_replaced(rgw: FaultyStore, place: Path) -> None:
    rgw.keep("object", b"data")
    for name, target in (("file", "../outside/secret"), ("directory", "../outside"), ("nothing", "nowhere")):
        (place / name).symlink_to(target)
        receipt = fetched(rgw, place, b"/" + name.encode(), 4)
        assert (receipt["ok"], receipt["code"]) == (False, "permission_denied")
        assert fetched(rgw, place, b"/" + name.encode(), 4, archive="tar")["code"] == "target_exists"
        assert sent(rgw, place, b"/" + name.encode())["code"] == "source_missing"
        assert os.readlink(place / name) == target
    assert (place.parent / "outside" / "secret").read_bytes() == b"the owner's"
    assert not rgw.parts


def test_a_file_is_no_way(rgw: FaultyStore, place: Path) -> None:
    (place / "file").write_bytes(b"old")
    rgw.keep("object", b"data")
    receipt = fetched(rgw, place, b"/file/new", 4)
    assert (receipt["code"], "'file' is no directory" in receipt["message"]) == ("target_missing_directory", True)
    assert sent(rgw, place, b"/file/new")["code"] == "source_missing"
    assert (place / "file").read_bytes() == b"old"


def test_the_place_itself_may_be_a_link_but_must_be_there(rgw: FaultyStore, place: Path) -> None:
    rgw.keep("object", b"data")
    (place.parent / "named").symlink_to(place)
    assert fetched(rgw, place.parent / "named", b"/data", 4)["ok"]
    assert (place / "data").read_bytes() == b"data"
    absent = place.parent / "absent"
    receipt = fetched(rgw, absent, b"/other", 4)
    assert (receipt["code"], "Tell the node's owner" in receipt["message"]) == ("target_missing_directory", True)
    assert sent(rgw, absent, b"/other")["code"] == "source_missing"
    assert not absent.exists()


@pytest.mark.parametrize("path", [b"/", b"/run/"])
def test_a_file_needs_a_name(rgw: FaultyStore, place: Path, path: bytes) -> None:
    rgw.keep("object", b"data")
    assert fetched(rgw, place, path, 4)["code"] == "target_is_directory"
    (place / "run").mkdir(exist_ok=True)
    assert sent(rgw, place, path)["code"] == "source_missing"


def test_ticket_and_mover_must_agree_that_this_is_a_node(rgw: FaultyStore, place: Path) -> None:
    rgw.keep("object", b"data")
    for_node, for_cluster = rgw.fetch_ticket(b"/data", 4, place="receive"), rgw.fetch_ticket(b"/data", 4)
    without = fetch(for_node, clock=QuickClock())
    assert (without["code"], "--place" in without["message"]) == ("ticket_unreadable", True)
    with_one = fetch(for_cluster, clock=QuickClock(), place=str(place))
    assert (with_one["code"], "for no node" in with_one["message"]) == ("ticket_unreadable", True)
    assert put(measured(rgw, b"/data"), clock=QuickClock())["code"] == "ticket_unreadable"
    assert put(rgw.put_ticket(b"/data", 4), clock=QuickClock(), place=str(place))["code"] == "ticket_unreadable"
    crossed = rgw.fetch_ticket(b"/data", 4, place="send")
    assert fetch(crossed, clock=QuickClock(), place=str(place))["code"] == "ticket_unreadable"
    crossed = rgw.put_ticket(b"/data", 4, place="receive")
    assert put(crossed, clock=QuickClock(), place=str(place))["code"] == "ticket_unreadable"
    assert not os.path.lexists("/data")
    assert os.listdir(place) == []


def test_a_renewed_ticket_may_not_lead_out_of_the_place(rgw: FaultyStore, place: Path) -> None:
    rgw.keep("object", some_bytes(3 * PART))
    rgw.fail("GET", "expire", 2)
    ticket = rgw.fetch_ticket(b"/data", 3 * PART, place="receive")
    renewed = lambda: rgw.fetch_ticket(b"/data", 3 * PART)  # noqa: E731
    receipt = fetch(ticket, reload_ticket=renewed, clock=QuickClock(), place=str(place))
    assert receipt["code"] == "ticket_unreadable"
    assert os.listdir(place) == []


@pytest.mark.parametrize("path", [b"/", b"/tree"])
def test_directories_go_and_come_byte_for_byte(rgw: FaultyStore, place: Path, path: bytes) -> None:
    source = place if path == b"/" else place / "tree"
    source = source / "tree" if path == b"/" else source
    make_tree(source, 60)
    receipt = sent(rgw, place, path, archive="tar")
    assert receipt["ok"], receipt
    (place.parent / "other").mkdir()
    size = len(rgw.objects["object"])
    receipt = fetched(rgw, place.parent / "other", b"/new/" + (b"whole" if path == b"/" else b"tree"), size, archive="tar")
    assert receipt["ok"], receipt
    there = place.parent / "other" / "new" / ("whole/tree" if path == b"/" else "tree")
    assert snapshot(there) == snapshot(source)


def test_a_link_that_was_sent_in_a_directory_is_no_way_out_for_the_next(rgw: FaultyStore, place: Path) -> None:
    tree = place.parent / "tree"
    tree.mkdir()
    (tree / "out").symlink_to(place.parent / "outside")
    ticket = {**rgw.put_ticket(os.fsencode(tree), PARTS_OFFERED * PART, archive="tar"), "size_bytes": None}
    assert put(ticket, clock=QuickClock())["ok"]
    assert fetched(rgw, place, b"/sent", len(rgw.objects["object"]), archive="tar")["ok"]
    assert os.readlink(place / "sent" / "out") == str(place.parent / "outside")
    rgw.keep("object", b"data")
    (place.parent / "state" / "receipt.json").unlink()
    assert fetched(rgw, place, b"/sent/out/secret", 4)["code"] == "target_missing_directory"
    assert (place.parent / "outside" / "secret").read_bytes() == b"the owner's"


@pytest.mark.parametrize("archive", [None, "tar"])
def test_what_an_interrupted_fetch_left_hidden_is_discarded_without_its_ticket(
    rgw: FaultyStore, place: Path, archive: str | None
) -> None:
    tree, state = place.parent / "tree", str(place.parent / "state")
    make_tree(tree, 60)
    ticket = {**rgw.put_ticket(os.fsencode(tree), 400 * PART, archive="tar"), "size_bytes": None}
    assert put(ticket, clock=QuickClock())["ok"]
    size = len(rgw.objects["object"])
    (place / "run").mkdir()
    (place / "run" / "other").write_bytes(b"stays")
    stop = threading.Event()
    rgw.fail("GET", "status", size // PART // 2, times=99, status=503)
    ticket = rgw.fetch_ticket(b"/run/data", size, place="receive", archive=archive)
    receipt = fetch(ticket, state, stop=stop, clock=Stopper(stop), place=str(place))
    assert receipt["code"] == "interrupted"
    assert hidden_files(place / "run") == [".stagecoach-t1.part"]
    discard(state, str(place))
    assert os.listdir(place / "run") == ["other"]
    discard(state, str(place))
    discard(str(place.parent / "never"), str(place))


def test_nothing_is_discarded_through_a_link(rgw: FaultyStore, place: Path) -> None:
    state = place.parent / "state"
    state.mkdir()
    (place.parent / "outside" / ".stagecoach-t1.part").write_bytes(b"the owner's as well")
    (place / "run").symlink_to("../outside")
    ticket = rgw.fetch_ticket(b"/run/data", 4, place="receive")
    noted = {"version": 1, "transfer_id": "t1", "path_base64": ticket["path_base64"]}
    (state / "target.json").write_text(json.dumps(noted))
    discard(str(state), str(place))
    assert (place.parent / "outside" / ".stagecoach-t1.part").exists()


def test_without_room_for_the_note_nothing_is_begun(rgw: FaultyStore, place: Path) -> None:
    (place.parent / "state").write_text("no directory")
    rgw.keep("object", b"data")
    assert fetched(rgw, place, b"/a/data", 4)["code"] == "no_space"
    assert os.listdir(place) == []


@pytest.mark.parametrize("python", pythons())
def test_the_program_takes_the_place_and_discards_under_every_python(store: FaultyStore, place: Path, python: str) -> None:
    data, state = some_bytes(7 * PART + 7), place.parent / "state"
    (place / "source").write_bytes(data)
    ticket = write_ticket(place.parent / "put.json", measured(store, b"/source"))
    finished(mover("put", "--ticket", ticket, "--state-directory", state, "--place", place, python=python), 0)
    assert store.objects["object"] == data
    ticket = write_ticket(place.parent / "fetch.json", store.fetch_ticket(b"/a/b/target", len(data), place="receive"))
    finished(mover("fetch", "--ticket", ticket, "--state-directory", state / "f", "--place", place, python=python), 0)
    assert (place / "a" / "b" / "target").read_bytes() == data
    (place / "a" / "b" / ".stagecoach-t1.part").write_bytes(b"left")
    finished(mover("discard", "--state-directory", state / "f", "--place", place, python=python), 0)
    assert os.listdir(place / "a" / "b") == ["target"]


@pytest.mark.parametrize("arguments", [["discard", "--place", "/x"], ["discard", "--state-directory", "/x"], ["fetch"]])
def test_the_program_says_what_it_needs(arguments: list[str]) -> None:
    process = mover(*arguments)
    assert "usage:" in process.communicate(timeout=20)[1]
    assert process.returncode == 2


def test_several_tasks_measure_the_same(place: Path) -> None:
    kib64 = 64 * 1024
    data = some_bytes(23 * kib64 + 7)
    (place / "source").write_bytes(data)
    with FaultyStore(part_size=kib64).serving() as store:
        ticket = {**store.put_ticket(b"/source", 8 * kib64, place="send"), "size_bytes": None}
        path = write_ticket(place.parent / "ticket", ticket)
        common = ("put", "--ticket", path, "--state-directory", place.parent / "state", "--place", place)
        tasks = [mover(*common, "--task", number, "--tasks", 3, "--run", "r") for number in range(3)]
        assert finished(tasks[0], 0).endswith(stagecoach_mover.SUCCESS_PHRASES["put"] + "\n")
        assert [finished(task, 0) for task in tasks[1:]] == ["", ""]
        assert store.objects["object"] == data


@pytest.mark.parametrize("name", [b".stagecoach-x1.part", b".Stagecoach-X1.PART"])
@pytest.mark.parametrize("archive", [None, "tar"])
def test_nothing_is_written_into_the_hidden_folder_of_another_transfer(
    rgw: FaultyStore, place: Path, name: bytes, archive: str | None
) -> None:
    """Its sender may be writing there, and through whatever link an archive would put there."""
    hidden = place / os.fsdecode(name)
    hidden.mkdir()
    rgw.keep("object", b"data")
    for path in (b"/" + name, b"/" + name + b"/new"):
        receipt = fetched(rgw, place, path, 4, archive=archive)
        assert (receipt["ok"], receipt["code"]) == (False, "permission_denied")
    assert list(hidden.iterdir()) == []


def test_no_archive_brings_what_is_called_like_a_hidden_folder(rgw: FaultyStore, place: Path) -> None:
    """Into the place of a folder that its sender has removed, whose key still opens that name."""
    tree = place.parent / "tree"
    tree.mkdir()
    (tree / ".stagecoach-x1.part").symlink_to(place.parent / "outside")
    ticket = {**rgw.put_ticket(os.fsencode(tree), PARTS_OFFERED * PART, archive="tar"), "size_bytes": None}
    assert put(ticket, str(place.parent / "state"), clock=QuickClock())["ok"]
    receipt = fetched(rgw, place, b"/new", len(rgw.objects["object"]), archive="tar")
    assert (receipt["ok"], receipt["code"]) == (False, "archive_unsafe")
    assert not (place / "new").exists()
