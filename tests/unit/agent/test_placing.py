"""What has arrived is counted and moved to its place, once, whenever it is cut off in the middle."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from stagecoach.agent import placing
from stagecoach.agent.arrivals import Arrival, Arrivals, arrival
from stagecoach.agent.moving import KEEP_UNFINISHED_SECONDS
from stagecoach.agent.placing import Placed, place
from stagecoach.mover.stagecoach_mover import Failed


class Node:
    def __init__(self, folder: Path) -> None:
        self.receive = folder / "receive"
        self.receive.mkdir()
        self.notes = folder / "arrivals"
        self.arrivals = Arrivals(str(self.receive), self.notes)

    def arrived(self, path: str, contents: dict[str, bytes], *, directory: bool) -> Arrival:
        one = arrival("t1", path, is_directory=directory)
        folder = self.arrivals.open(one)
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return one

    def hidden(self) -> list[Path]:
        return list(self.receive.rglob(".stagecoach*"))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_file_takes_the_place_and_the_mode_of_the_old_one(node: Node) -> None:
    target = node.receive / "a" / "data"
    target.parent.mkdir()
    target.write_bytes(b"old")
    target.chmod(0o604)
    one = node.arrived("/a/data", {"whatever it is called": b"12345"}, directory=False)
    assert place(node.arrivals, one, Placed(5, 1)) == Placed(5, 1)
    assert target.read_bytes() == b"12345"
    assert stat.S_IMODE(target.stat().st_mode) == 0o604
    assert node.hidden() == []


def test_a_directory_goes_where_nothing_is_or_an_empty_one(node: Node) -> None:
    (node.receive / "empty").mkdir()
    for path in ("/deep/er/new", "/empty"):
        one = node.arrived(path, {"x/y": b"1", "z": b"22"}, directory=True)
        assert place(node.arrivals, one, Placed(3, 2)) == Placed(3, 2)
        assert (node.receive / path[1:] / "x" / "y").read_bytes() == b"1"
    assert node.hidden() == []
    one = arrival("t2", "/empty", is_directory=True)
    with pytest.raises(Failed) as failed:
        node.arrivals.open(one)
    assert failed.value.code == "target_exists"


def test_a_directory_that_came_meanwhile_is_not_replaced(node: Node) -> None:
    one = node.arrived("/new", {"x": b"1"}, directory=True)
    (node.receive / "new").mkdir()
    (node.receive / "new" / "theirs").write_bytes(b"theirs")
    with pytest.raises(Failed) as failed:
        place(node.arrivals, one, Placed(1, 1))
    assert failed.value.code == "target_exists"
    assert os.listdir(node.receive / "new") == ["theirs"]
    assert len(node.hidden()) == 1


@pytest.mark.parametrize("expected", [Placed(4, 1), Placed(6, 1), Placed(5, 2), Placed(0, 0)])
def test_what_is_not_what_was_sent_stays_where_it_is(node: Node, expected: Placed) -> None:
    for directory in (False, True):
        one = node.arrived("/data", {"data": b"12345"}, directory=directory)
        with pytest.raises(Failed) as failed:
            place(node.arrivals, one, expected)
        assert failed.value.code == "size_mismatch"
        assert not (node.receive / "data").exists()


def test_a_link_in_the_folder_is_nothing_that_was_sent(node: Node) -> None:
    one = node.arrived("/data", {}, directory=False)
    (node.hidden()[0] / "data").symlink_to("/etc/passwd")
    with pytest.raises(Failed) as failed:
        place(node.arrivals, one, Placed(11, 1))
    assert failed.value.code == "size_mismatch"


def test_nor_is_one_to_a_directory(node: Node) -> None:
    one = node.arrived("/new", {"x": b"1"}, directory=True)
    (node.hidden()[0] / "link").symlink_to("/etc")
    with pytest.raises(Failed) as failed:
        place(node.arrivals, one, Placed(1, 1))
    assert failed.value.code == "size_mismatch"
    assert not (node.receive / "new").exists()


def test_what_keeps_the_folder_of_a_file_that_is_at_its_place_fails_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NFS: a file that is removed while somebody has it open leaves another one there."""
    one = node.arrived("/data", {"data": b"12345"}, directory=False)

    def busy(*arguments: object) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(placing, "remove_tree", busy)
    for _ in range(2):
        assert place(node.arrivals, one, Placed(5, 1)) == Placed(5, 1)
    assert (node.receive / "data").read_bytes() == b"12345"


def test_what_a_killed_receiver_or_check_has_left_is_not_counted(node: Node) -> None:
    contents = {"x": b"1", "d/.rclone_temp_put_1": b"half", ".stagecoach-check-ab": b"probe", ".rclone_multipart_upload_x": b""}
    one = node.arrived("/new", contents, directory=True)
    place(node.arrivals, one, Placed(1, 1))
    assert sorted(path.name for path in (node.receive / "new").rglob("*")) == ["d", "x"]


@pytest.mark.parametrize("directory", [False, True])
@pytest.mark.parametrize("cut_off_at", ["note", "rename", "rmdir", "fsync"])
def test_a_repeat_after_a_crash_ends_as_if_there_had_been_none(
    node: Node, monkeypatch: pytest.MonkeyPatch, directory: bool, cut_off_at: str
) -> None:
    one = node.arrived("/data", {"data": b"12345"}, directory=directory)

    class Crash(BaseException):
        pass

    def crash(*arguments: object, **more: object) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        what: object = node.arrivals if cut_off_at == "note" else placing.os
        patched.setattr(what, cut_off_at, crash)
        if directory and cut_off_at == "rmdir":
            place(node.arrivals, one, Placed(5, 1))
        else:
            with pytest.raises(Crash):
                place(node.arrivals, one, Placed(5, 1))
    for _ in range(2):
        assert place(node.arrivals, one, Placed(5, 1)) == Placed(5, 1)
    target = node.receive / "data"
    assert (target / "data" if directory else target).read_bytes() == b"12345"
    assert node.hidden() == []


def test_a_folder_is_there_again_with_what_it_held_and_is_discarded_wherever_it_is(node: Node) -> None:
    one = node.arrived("/a/data", {"data": b"1"}, directory=False)
    again = node.arrivals.open(one)
    assert (again / "data").read_bytes() == b"1"
    assert stat.S_IMODE(again.stat().st_mode) == 0o700
    node.arrivals.discard("t1")
    assert node.hidden() == []
    assert list(node.notes.iterdir()) == []
    node.arrivals.discard("t1")
    # The mover's hidden file, of which there is no note here.
    (node.receive / "a" / ".stagecoach-t9.part").write_bytes(b"half")
    node.arrivals.discard("t9", "/a/data")
    assert node.hidden() == []


def test_only_what_nobody_has_touched_for_long_is_old(node: Node) -> None:
    node.arrived("/a/data", {}, directory=False)
    now = next(node.notes.iterdir()).stat().st_mtime
    assert node.arrivals.old_transfers(now + KEEP_UNFINISHED_SECONDS - 60) == []
    assert node.arrivals.old_transfers(now + KEEP_UNFINISHED_SECONDS + 60) == ["t1"]


@pytest.mark.parametrize("path", ["/", "relative", "/a/../../x", "/./x", "/a\0b", ""])
def test_a_path_that_leads_nowhere_is_refused(path: str) -> None:
    with pytest.raises(Failed) as failed:
        arrival("t1", path, is_directory=False)
    assert failed.value.code == "path_refused"


def test_no_link_on_the_way_is_followed(node: Node, tmp_path: Path) -> None:
    (node.receive / "out").symlink_to(tmp_path)
    openings: list[Callable[[], object]] = [
        lambda: node.arrivals.open(arrival("t1", "/out/x", is_directory=True)),
        lambda: place(node.arrivals, arrival("t1", "/out/x", is_directory=True), Placed(0, 0)),
    ]
    for opening in openings:
        with pytest.raises(Failed):
            opening()
    assert not list(tmp_path.glob(".stagecoach*"))
