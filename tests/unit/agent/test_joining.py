"""Parts become the file they are of: once, wherever it is cut off, and nothing of a stranger's making is followed."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stagecoach.agent import joining
from stagecoach.agent.arrivals import Arrival, Arrivals, arrival
from stagecoach.agent.parts import FOLDER, LIST_NAME, PartedFile, part_name, written_list
from stagecoach.agent.placing import Placed, place
from stagecoach.mover.stagecoach_mover import Failed, Handle, remove_tree

PART = 1000
CONTENT = bytes(number % 251 for number in range(4 * PART + 7))
VERSION = "0123456789abcdef"
TIME = 1_600_000_000_123_456_789


class Node:
    def __init__(self, folder: Path) -> None:
        self.receive = folder / "receive"
        self.receive.mkdir(parents=True)
        self.arrivals = Arrivals(str(self.receive), folder / "arrivals")

    def arrived(self, path: str = "/run/data", files: dict[str, bytes] | None = None, *, directory: bool = False) -> Arrival:
        self.one = arrival("t1", path, is_directory=directory)
        self.folder = self.arrivals.open(self.one)
        self.parts = self.folder / FOLDER
        contents = files if files is not None else {"sent": CONTENT}
        listed = [PartedFile(name, len(content), PART, TIME, VERSION) for name, content in contents.items()]
        self.files = [replace(file, compared_parts=file.count) for file in listed]
        for number, file in enumerate(listed, 1):
            own = self.parts / file.folder(number)
            own.mkdir(parents=True)
            for part in range(1, file.count + 1):
                start = file.start_bytes(part)
                (own / part_name(part)).write_bytes(contents[file.path][start : start + file.length_bytes(part)])
        (self.parts / LIST_NAME).write_bytes(written_list(self.files))
        self.expected = Placed(sum(map(len, contents.values())), len(contents))
        return self.one

    def place(self) -> None:
        assert place(self.arrivals, self.one, self.expected) == self.expected

    def join_compared(self, is_stopped: Callable[[], bool] = lambda: False) -> None:
        joining.join_compared(Handle(os.open(self.folder, os.O_RDONLY)), is_stopped)

    def refused(self, code: str = "size_mismatch") -> str:
        before = self.seen()
        with pytest.raises(Failed) as failed:
            self.place()
        assert failed.value.code == code, failed.value.message
        assert self.seen() == before
        return failed.value.message

    def seen(self) -> dict[str, Any]:
        """Everything but directories, and what is in it."""
        paths = [path for path in self.receive.rglob("*") if path.is_symlink() or not path.is_dir()]
        return {
            str(path): path.read_bytes() if path.is_file() and not path.is_symlink() else path.lstat().st_mode for path in paths
        }


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_file_is_whole_with_its_time_and_the_mode_of_the_old_one(node: Node) -> None:
    node.arrived()
    target = node.receive / "run" / "data"
    target.write_bytes(b"old")
    target.chmod(0o604)
    node.place()
    assert target.read_bytes() == CONTENT
    assert target.stat().st_mtime_ns == TIME
    assert stat.S_IMODE(target.stat().st_mode) == 0o604
    assert os.listdir(node.receive / "run") == ["data"]


def test_several_files_take_their_places_in_the_tree(node: Node) -> None:
    files = {"a/b/large": CONTENT, "top": CONTENT[::-1], "a/one part": b"x" * 10}
    node.arrived("/tree", files, directory=True)
    (node.folder / "a").mkdir()
    (node.folder / "a" / "small").write_bytes(b"small")
    node.expected = Placed(node.expected.size_bytes + 5, 4)
    node.place()
    top = node.receive / "tree"
    found = {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}
    assert found == {**files, "a/small": b"small"}
    assert not (top / FOLDER).exists()


class Cut(BaseException):
    """Nothing of the product catches it: as a crash."""


class Knife:
    """Stands for one function of ``os``, and cuts before or after its call of one number."""

    def __init__(self, real: Callable[..., Any], wanted: int, *, after: bool) -> None:
        self._real, self._wanted, self._after, self.calls = real, wanted, after, 0

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        self.calls += 1
        if self.calls == self._wanted and not self._after:
            raise Cut
        given = self._real(*arguments, **more)
        if self.calls == self._wanted:
            raise Cut
        return given


STEPS = ["mkdir", "rename", "ftruncate", "copy_file_range", "fsync", "unlink", "utime", "rmdir"]


@pytest.mark.parametrize("directory", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_wherever_it_is_cut_off_a_repeat_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool, directory: bool
) -> None:
    files = {"a/large": CONTENT, "other": CONTENT[: 2 * PART]} if directory else {"sent": CONTENT}
    real: Callable[..., Any] = getattr(os, step)
    cuts = 0
    for wanted in range(1, 60):
        node = Node(tmp_path / str(wanted))
        node.arrived("/data", files, directory=directory)
        knife = Knife(real, wanted, after=after)
        with monkeypatch.context() as patched:
            patched.setattr(os, step, knife)
            try:
                node.place()
            except Cut:
                cuts += 1
        if knife.calls < wanted:
            break
        node.place()
        target = node.receive / "data"
        assert {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()} == (
            files if directory else {}
        )
        assert directory or target.read_bytes() == CONTENT
        assert not list(node.receive.rglob(".stagecoach*"))
    assert cuts or (step == "mkdir" and not directory)


def test_what_a_crash_left_half_appended_is_appended_again(node: Node) -> None:
    """The whole has grown, but what it grew by is not on the disk; the part is still there."""
    node.arrived()
    (node.parts / f"joined-1-{VERSION}").write_bytes(CONTENT[:PART] + b"?" * (2 * PART))
    (node.parts / f"1-{VERSION}" / part_name(1)).unlink()
    node.place()
    assert (node.receive / "run" / "data").read_bytes() == CONTENT


def test_a_part_whose_removal_was_lost_is_not_needed(node: Node) -> None:
    node.arrived()
    (node.parts / f"joined-1-{VERSION}").write_bytes(CONTENT[: 3 * PART])
    (node.parts / f"1-{VERSION}" / part_name(3)).unlink()
    (node.parts / f"1-{VERSION}" / part_name(2)).unlink()
    node.place()
    assert (node.receive / "run" / "data").read_bytes() == CONTENT


def test_there_is_room_needed_for_one_part_alone(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.arrived()
    most = 0
    real = os.fsync

    def look(descriptor: int) -> None:
        nonlocal most
        most = max(most, sum(path.stat().st_size for path in node.folder.rglob("*") if path.is_file() and path.name != LIST_NAME))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    node.place()
    assert len(CONTENT) < most <= len(CONTENT) + PART


def test_where_the_kernel_cannot_copy_it_is_read_and_written(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.arrived()

    def cannot(*arguments: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", cannot)
    node.place()
    assert (node.receive / "run" / "data").read_bytes() == CONTENT


def test_a_full_disk_is_said_and_a_repeat_goes_on(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.arrived()

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "copy_file_range", full)
        with pytest.raises(Failed) as failed:
            node.place()
        assert failed.value.code == "no_space"
    node.place()
    assert (node.receive / "run" / "data").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [1, 3, 5])
@pytest.mark.parametrize("how", ["gone", "shorter", "longer"])
def test_without_all_parts_nothing_is_joined(node: Node, part: int, how: str) -> None:
    node.arrived()
    path = node.parts / f"1-{VERSION}" / part_name(part)
    if how == "gone":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size + (1 if how == "longer" else -1))
    assert "not all parts" in node.refused()


@pytest.mark.parametrize("what", ["link", "fifo", "directory"])
@pytest.mark.parametrize("where", [f"1-{VERSION}/{part_name(2)}", LIST_NAME, f"joined-1-{VERSION}"])
def test_what_is_no_regular_file_is_refused(node: Node, tmp_path: Path, what: str, where: str) -> None:
    node.arrived()
    path = node.parts / where
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes() if path.exists() else CONTENT)
    path.unlink(missing_ok=True)
    {"link": lambda: path.symlink_to(copy), "fifo": lambda: os.mkfifo(path), "directory": path.mkdir}[what]()
    node.refused()


@pytest.mark.parametrize("where", ["", f"1-{VERSION}"])
def test_a_link_to_a_directory_is_refused(node: Node, tmp_path: Path, where: str) -> None:
    node.arrived()
    folder = node.parts / where if where else node.parts
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Failed):
        node.place()
    assert (tmp_path / "elsewhere").is_dir()
    assert not (node.receive / "run" / "data").exists()


def test_a_link_in_the_way_of_a_target_is_not_followed(node: Node, tmp_path: Path) -> None:
    node.arrived("/tree", {"a/large": CONTENT}, directory=True)
    (node.folder / "a").symlink_to(tmp_path)
    with pytest.raises(Failed):
        node.place()
    assert not (tmp_path / "large").exists()
    assert not (node.receive / "tree").exists()


def test_a_list_that_is_too_long_or_of_too_much_is_refused(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.arrived()
    node.expected = Placed(len(CONTENT) - 1, 1)
    assert "more than was sent" in node.refused()
    monkeypatch.setattr(joining, "MOST_LIST_BYTES", 10)
    assert "too long" in node.refused()


@pytest.mark.parametrize("path", ["a/b", "/etc/passwd", "../x"])
def test_one_file_is_one_file_in_the_folder(node: Node, path: str) -> None:
    node.arrived()
    entry = {"path": path, "sizeBytes": len(CONTENT), "partSizeBytes": PART, "mtimeNs": 0, "version": VERSION}
    entry["comparedParts"] = 5
    (node.parts / LIST_NAME).write_text(json.dumps({"version": 1, "files": [entry]}))
    node.refused()


def test_more_than_was_listed_is_not_brought_along(node: Node) -> None:
    """Names that are in no list, and a half object of a try before: none of it takes a place."""
    node.arrived()
    for name in (f"2-{VERSION}/000001", f"1-{VERSION}/000009", f"1-{VERSION}/extra", "extra", "joined-7"):
        (node.parts / name).parent.mkdir(exist_ok=True)
        (node.parts / name).write_bytes(b"more")
    (node.folder / "half of an object").write_bytes(b"half")
    node.place()
    assert (node.receive / "run" / "data").read_bytes() == CONTENT
    assert os.listdir(node.receive / "run") == ["data"]


def test_what_was_compared_is_joined_while_the_rest_is_under_way(node: Node) -> None:
    node.arrived()
    own = node.parts / node.files[0].folder(1)
    late = {part: (own / part_name(part)).read_bytes() for part in (3, 5)}
    for part in late:
        (own / part_name(part)).unlink()
    for compared in (0, 1, 2):
        (node.parts / LIST_NAME).write_bytes(written_list([replace(node.files[0], compared_parts=compared)]))
        node.join_compared()
        left = {part_name(part) for part in range(compared + 1, 6) if part not in late}
        assert {path.name for path in own.iterdir()} == left
        assert (node.parts / f"joined-1-{VERSION}").exists() == bool(compared)
    for part, content in late.items():
        (own / part_name(part)).write_bytes(content)
    (node.parts / LIST_NAME).write_bytes(written_list(node.files))
    node.join_compared()
    assert list(own.iterdir()) == []
    node.place()
    assert (node.receive / "run" / "data").read_bytes() == CONTENT


def test_it_stops_between_two_parts_and_goes_on(node: Node) -> None:
    node.arrived()
    asked = []
    node.join_compared(lambda: len(asked) == 3 or asked.append(1) is not None)
    assert len(list((node.parts / node.files[0].folder(1)).iterdir())) == 2
    node.place()
    assert (node.receive / "run" / "data").read_bytes() == CONTENT


def test_a_list_that_was_stored_too_late_costs_nothing(node: Node) -> None:
    node.arrived()
    (node.parts / LIST_NAME).write_bytes(written_list([replace(node.files[0], compared_parts=2)]))
    assert "not compared" in node.refused("receiver_failed")
    (node.parts / LIST_NAME).write_bytes(written_list(node.files))
    node.place()


def test_a_list_of_no_files_has_all_parts_removed(node: Node) -> None:
    node.arrived()
    (node.parts / LIST_NAME).write_bytes(written_list([]))
    node.join_compared()
    assert os.listdir(node.parts) == [LIST_NAME]
    (node.folder / "sent").write_bytes(CONTENT)
    node.place()
    assert (node.receive / "run" / "data").read_bytes() == CONTENT


def test_a_strangers_list_of_very_many_parts_takes_no_time(node: Node) -> None:
    node.arrived()
    many = PartedFile("sent", 999_999, 1, TIME, VERSION, 999_999)
    (node.parts / LIST_NAME).write_bytes(written_list([many]))
    asked = 0

    def stat_once(*arguments: Any, **named: Any) -> os.stat_result:
        nonlocal asked
        asked += 1
        return os_stat(*arguments, **named)

    os_stat = os.stat
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Failed):
        patch.setattr(os, "stat", stat_once)
        node.join_compared()
    assert asked < 50


def test_what_is_of_earlier_contents_is_removed_at_once(node: Node) -> None:
    node.arrived()
    other = replace(node.files[0], version="f" * 16, compared_parts=0)
    (node.parts / LIST_NAME).write_bytes(written_list([other]))
    (node.parts / f"joined-1-{VERSION}").write_bytes(b"old")
    (node.parts / other.folder(1)).mkdir()
    node.join_compared()
    assert sorted(os.listdir(node.parts)) == sorted([LIST_NAME, other.folder(1)])


def test_without_parts_or_a_list_nothing_is_joined(node: Node) -> None:
    node.arrived()
    (node.parts / LIST_NAME).unlink()
    before = node.seen()
    node.join_compared()
    assert node.seen() == before
    remove_tree(os.open(node.folder, os.O_RDONLY), FOLDER.encode())
    node.join_compared()
    assert os.listdir(node.folder) == []


@pytest.mark.parametrize("compared", [None, 0, 4])
def test_parts_that_were_not_all_compared_are_those_of_a_try_before(node: Node, compared: int | None) -> None:
    node.arrived()
    (node.parts / LIST_NAME).unlink()
    if compared is not None:
        (node.parts / LIST_NAME).write_bytes(written_list([replace(node.files[0], compared_parts=compared)]))
    (node.folder / "whole").write_bytes(b"12345")
    node.expected = Placed(5, 1)
    node.place()
    assert (node.receive / "run" / "data").read_bytes() == b"12345"
    assert os.listdir(node.receive / "run") == ["data"]
