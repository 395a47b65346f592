"""rm: what was there goes, nothing that a link leads to, and nothing that came by the same name later."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest
from tests.unit.operations.orders import Order, hidden_below, make_things, picture


def test_a_tree_goes_and_what_its_links_lead_to_stays(top: Path) -> None:
    make_things(top / "tree")
    (top / "outside").mkdir()
    (top / "outside" / "file").write_bytes(b"kept")
    (top / "tree" / "way out").symlink_to(top / "outside")
    receipt = Order(top, "rm", top / "tree").done()
    assert (picture(top / "tree"), hidden_below(top)) == ({}, [])
    assert (top / "outside" / "file").read_bytes() == b"kept"
    assert receipt["files_done"] == 14
    # Of a file with two names it is not known what is freed.
    assert receipt["size_bytes"] == 3_000_000 + 100_000 + 3 + 9 + 4


def test_a_link_goes_itself(top: Path) -> None:
    (top / "kept").mkdir()
    (top / "link").symlink_to("kept")
    Order(top, "rm", top / "link").done()
    assert sorted(path.name for path in top.iterdir()) == ["kept"]


def test_what_is_not_there_is_told_the_first_time_and_fine_the_second(top: Path) -> None:
    order = Order(top, "rm", top / "tree")
    assert "No such file or directory" in order.failed("source_missing")
    make_things(top / "tree")
    order.forget()
    order.done()
    (order.directory / "receipt.json").unlink()
    order.done()


def test_what_came_by_the_same_name_later_stays(top: Path) -> None:
    order = Order(top, "rm", top / "tree")
    make_things(top / "tree")
    order.done()
    (order.directory / "receipt.json").unlink()
    make_things(top / "tree")
    before = picture(top / "tree")
    order.done()
    assert picture(top / "tree") == before


def test_a_directory_so_deep_that_no_path_reaches_it_goes(top: Path) -> None:
    here = os.open(top, os.O_RDONLY)
    os.mkdir("tree", dir_fd=here)
    below = os.open("tree", os.O_RDONLY, dir_fd=here)
    for _ in range(150):
        os.mkdir("d" * 200, dir_fd=below)
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=below)
        os.close(below)
        below = deeper
    os.close(below)
    os.close(here)
    assert Order(top, "rm", top / "tree").done()["files_done"] == 151
    assert picture(top / "tree") == {}


def test_stopped_in_the_middle_the_rest_stays_where_it_is(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_things(top / "tree")
    stop, real = threading.Event(), os.unlink

    def and_stop(path: str, *, dir_fd: int | None = None) -> None:
        real(path, dir_fd=dir_fd)
        if path == b"-rf":
            stop.set()

    monkeypatch.setattr(os, "unlink", and_stop)
    order = Order(top, "rm", top / "tree")
    assert order.carry_out(stop)["code"] == "interrupted"
    left = set(picture(top / "tree"))
    assert "a dir" in left
    assert "-rf" not in left
    monkeypatch.undo()
    order.done()
    assert picture(top / "tree") == {}


@pytest.mark.parametrize("name", ["tree/mounted", "tree"])
def test_what_is_mounted_stays_and_is_told(top: Path, name: str) -> None:
    mounted = top / "tree" / "mounted"
    mounted.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mounted], capture_output=True, check=False).returncode:
        pytest.skip("may not mount here")
    try:
        (mounted / "file").write_bytes(b"kept")
        assert "mounted at" in Order(top, "rm", top / name).failed("source_outside")
        assert (mounted / "file").read_bytes() == b"kept"
    finally:
        subprocess.run(["umount", mounted], check=True)
