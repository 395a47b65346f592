"""Killed before any change to the disk, and run again: it ends right, and until then nothing is lost or half."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.operations.orders import Order, hidden_below, make_things, picture

CHANGES = ("rename", "unlink", "rmdir", "mkdir", "link", "symlink", "pwrite", "ftruncate", "fchmod", "chmod", "utime", "fsync")
Content = tuple[str, Any]


def killed_at(order: Order, number: int) -> bool:
    """Whether a run, in a process of its own, was killed at its ``number``-th change; else it came to its end."""
    child = os.fork()
    if child == 0:
        count = 0

        def watched(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)

            return call

        for name in CHANGES:
            setattr(os, name, watched(getattr(os, name)))
        os._exit(0 if order.carry_out()["ok"] else 1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the run failed before it was killed"
    return os.WIFSIGNALED(status)


SIZE_BYTES = 3_000_000 + 100_000 + 3 + 9 + 4


def contents(path: Path) -> dict[str, Content]:
    """Kinds and contents: what may not be lost."""
    return {name: (seen[0], seen[-1] if seen[0] != "directory" else "") for name, seen in picture(path).items()}


def at_every_change(make: Callable[[], Order], right: Callable[[], None], never_wrong: Callable[[], None]) -> int:
    """Number of points at which it was killed."""
    for number in range(1, 10_000):
        order = make()
        was_killed = killed_at(order, number)
        never_wrong()
        receipt = order.carry_out()
        assert receipt["ok"], (number, receipt)
        right()
        if not was_killed:
            return number - 1
    raise AssertionError("it never ended")


def cleared(path: Path) -> Path:
    """Nothing at this path any more."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        for inner in path.iterdir():
            cleared(inner)
        path.rmdir()
    return path


@pytest.fixture
def source_content(tmp_path: Path) -> dict[str, Content]:
    """Of what every test here works on."""
    return contents(make_things(tmp_path / "pattern"))


def anew(top: Path, kind: str, target: Path, source: Path | None, **options: Any) -> Order:
    order = Order(top, kind, target, source, **options)
    order.forget()
    return order


def test_a_copy_of_a_tree(top: Path, source_content: dict[str, Content]) -> None:
    make_things(top / "source")

    def make() -> Order:
        cleared(top / "target")
        return anew(top, "cp", top / "target", top / "source")

    def right() -> None:
        assert picture(top / "target") == picture(top / "source")
        assert hidden_below(top) == []

    def never_wrong() -> None:
        assert contents(top / "source") == source_content
        assert contents(top / "target") in ({}, source_content)

    assert at_every_change(make, right, never_wrong) > 40


def test_a_copy_over_a_file(top: Path) -> None:
    (top / "source").write_bytes(b"new")

    def make() -> Order:
        (top / "target").write_bytes(b"old")
        return anew(top, "cp", top / "target", top / "source")

    def right() -> None:
        assert picture(top / "target") == picture(top / "source")
        assert hidden_below(top) == []

    def never_wrong() -> None:
        assert (top / "target").read_bytes() in {b"old", b"new"}

    assert at_every_change(make, right, never_wrong) > 5


def test_a_move_within_a_file_system(top: Path, source_content: dict[str, Content]) -> None:
    def make() -> Order:
        cleared(top / "target")
        make_things(top / "source")
        return anew(top, "mv", top / "target", top / "source")

    def right() -> None:
        assert (contents(top / "target"), contents(top / "source")) == (source_content, {})
        receipt = json.loads((top.parent / "job" / "receipt.json").read_text())
        assert receipt["message"].startswith("Files were successfully moved: 1 files")

    def never_wrong() -> None:
        assert sorted((len(contents(top / "source")), len(contents(top / "target")))) == [0, len(source_content)]

    assert at_every_change(make, right, never_wrong) >= 3


def test_a_move_to_another_file_system(top: Path, elsewhere: Path, source_content: dict[str, Content]) -> None:
    def make() -> Order:
        cleared(elsewhere / "target")
        make_things(cleared(top / "source"))
        return anew(top, "mv", elsewhere / "target", top / "source", root="/")

    def right() -> None:
        assert (contents(elsewhere / "target"), contents(top / "source")) == (source_content, {})
        receipt = json.loads((top.parent / "job" / "receipt.json").read_text())
        assert (receipt["files_done"], receipt["size_bytes"]) == (len(source_content), SIZE_BYTES)
        assert hidden_below(elsewhere) == []

    def never_wrong() -> None:
        copy = contents(elsewhere / "target")
        assert copy in ({}, source_content)
        assert copy == source_content or contents(top / "source") == source_content

    assert at_every_change(make, right, never_wrong) > 60


def test_a_removal(top: Path, source_content: dict[str, Content]) -> None:
    def make() -> Order:
        make_things(cleared(top / "tree"))
        return anew(top, "rm", top / "tree", None)

    def right() -> None:
        assert contents(top / "tree") == {}

    def never_wrong() -> None:
        assert contents(top / "tree").items() <= source_content.items()

    assert at_every_change(make, right, never_wrong) > 12


def test_packing(top: Path) -> None:
    (top / "source").mkdir()
    (top / "source" / "file").write_bytes(b"content")

    def make() -> Order:
        (top / "archive").write_bytes(b"old")
        return anew(top, "compress", top / "archive", top / "source")

    def right() -> None:
        cleared(top / "out").mkdir()
        order = anew(top, "extract", top / "out", top / "archive", merges=True)
        order.done()
        assert picture(top / "out" / "source") == picture(top / "source")

    def never_wrong() -> None:
        archive = (top / "archive").read_bytes()
        assert archive == b"old" or len(archive) > 50

    assert at_every_change(make, right, never_wrong) >= 5


def test_unpacking_into_what_stands_there(top: Path, source_content: dict[str, Content]) -> None:
    make_things(top / "source")
    anew(top, "compress", top / "archive", top / "source", from_inside=True).done()

    def make() -> Order:
        there = cleared(top / "there")
        (there / "a dir").mkdir(parents=True)
        (there / "a dir" / "kept").write_bytes(b"kept")
        (there / "-rf").write_bytes(b"old")
        return anew(top, "extract", there, top / "archive", merges=True)

    def right() -> None:
        assert contents(top / "there") == {**source_content, "a dir/kept": ("file", b"kept")}
        assert stat.S_IMODE((top / "there" / "closed").stat().st_mode) == 0o500
        assert hidden_below(top) == []

    def never_wrong() -> None:
        seen = {name: one for name, one in contents(top / "there").items() if not name.startswith(".stagecoach-")}
        old = {"-rf": ("file", b"old"), "a dir/kept": ("file", b"kept")}
        assert all(one in (source_content.get(name), old.get(name)) for name, one in seen.items())

    assert at_every_change(make, right, never_wrong) > 50
