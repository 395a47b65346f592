"""cp and mv: whole at their place with all that they were, or not there; the source of a move goes last."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from tests.unit.operations.orders import Order, hidden_below, make_things, picture

from stagecoach.mover import stagecoach_copying as copying
from stagecoach.mover import stagecoach_removing as removing


def test_a_tree_is_copied_with_all_that_it_is(top: Path) -> None:
    source = make_things(top / "source")
    before = picture(source)
    receipt = Order(top, "cp", top / "target", source).done()
    assert picture(top / "target") == before == picture(source)
    assert os.path.samefile(top / "target" / "-rf", top / "target" / "twin")
    assert not os.path.samefile(top / "target" / "-rf", source / "twin")
    assert os.stat(top / "target" / "holes").st_blocks * 512 < 2_000_000
    files = sum(1 for _ in source.rglob("*")) + 1
    assert (receipt["files_done"], hidden_below(top)) == (files, [])
    assert receipt["size_bytes"] == sum(one.stat().st_size for one in source.rglob("*") if one.is_file() and not one.is_symlink())


def test_a_file_is_copied_over_another_at_one_stroke(top: Path) -> None:
    (top / "source").write_bytes(b"new" * 1000)
    (top / "source").chmod(0o640)
    os.utime(top / "source", ns=(1, 1_500_000_000_123_456_789))
    (top / "target").write_bytes(b"old")
    with (top / "target").open("rb") as open_all_the_while:
        receipt = Order(top, "cp", top / "target", top / "source").done()
        assert open_all_the_while.read() == b"old"
    assert picture(top / "target") == picture(top / "source")
    assert receipt["proved"] == [{"how": "size", "value": "3000"}, {"how": "read_again", "value": "crc32"}]


def test_a_link_is_copied_as_a_link_or_as_what_it_leads_to(top: Path) -> None:
    (top / "real").write_bytes(b"content")
    (top / "tree").mkdir()
    (top / "tree" / "link").symlink_to("../real")
    Order(top, "cp", top / "kept", top / "tree").done()
    assert (top / "kept" / "link").readlink() == Path("../real")
    followed = Order(top, "cp", top / "followed", top / "tree", dereference=True)
    followed.forget()
    followed.done()
    assert not (top / "followed" / "link").is_symlink()
    assert (top / "followed" / "link").read_bytes() == b"content"
    alone = Order(top, "cp", top / "alone", top / "tree" / "link")
    alone.forget()
    alone.done()
    assert (top / "alone").readlink() == Path("../real")


def test_no_link_is_followed_out_of_the_file_systems(top: Path) -> None:
    (top.parent / "secret").write_bytes(b"secret")
    (top / "tree").mkdir()
    (top / "tree" / "link").symlink_to("../../secret")
    message = Order(top, "cp", top / "target", top / "tree", dereference=True).failed("source_outside")
    assert "outside the file systems" in message
    assert (picture(top / "target"), hidden_below(top)) == ({}, [])


def test_a_link_that_leads_back_is_not_followed_for_ever(top: Path) -> None:
    (top / "tree" / "inner").mkdir(parents=True)
    (top / "tree" / "inner" / "back").symlink_to("..")
    assert "leads back" in Order(top, "cp", top / "target", top / "tree", dereference=True).failed("source_outside")


def test_a_tree_is_added_to_one_that_stands_there(top: Path) -> None:
    source = make_things(top / "source")
    there = top / "there"
    (there / "a dir").mkdir(parents=True)
    (there / "a dir" / "kept").write_bytes(b"kept")
    (there / "-rf").write_bytes(b"replaced")
    Order(top, "cp", there, source, merges=True).done()
    expected = {name: seen for name, seen in picture(source).items() if name not in {"", "a dir"}}
    found = picture(there)
    assert found.pop("a dir/kept")[-1] == b"kept"
    assert {name: seen for name, seen in found.items() if name not in {"", "a dir"}} == expected
    assert hidden_below(top) == []


def test_nothing_is_added_where_one_thing_cannot_be(top: Path) -> None:
    make_things(top / "source")
    (top / "there" / "-rf").mkdir(parents=True)
    before = picture(top / "there")
    assert "nothing was changed" in Order(top, "cp", top / "there", top / "source", merges=True).failed("target_exists")
    assert {**picture(top / "there"), "": before[""]} == before
    assert hidden_below(top) == []


def test_a_socket_or_a_pipe_ends_it_before_anything_is_made(top: Path) -> None:
    (top / "source").mkdir()
    os.mkfifo(top / "source" / "pipe")
    Order(top, "cp", top / "target", top / "source").failed("source_special_file")
    assert (picture(top / "target"), hidden_below(top)) == ({}, [])


def test_what_changes_while_it_is_copied_is_told(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (top / "source").write_bytes(b"x" * 5000)
    real = copying.write_all

    def and_meanwhile(descriptor: int, data: bytes, offset: int) -> None:
        real(descriptor, data, offset)
        (top / "source").write_bytes(b"y" * 5000)

    monkeypatch.setattr(copying, "write_all", and_meanwhile)
    Order(top, "cp", top / "target", top / "source").failed("source_changed")
    assert (picture(top / "target"), hidden_below(top)) == ({}, [])


def test_a_disk_that_writes_something_else_is_caught(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (top / "source").write_bytes(b"x" * 5000)
    (top / "target").write_bytes(b"old")
    real = copying.write_all
    monkeypatch.setattr(copying, "write_all", lambda descriptor, data, at: real(descriptor, b"z" + data[1:], at))
    Order(top, "cp", top / "target", top / "source").failed("digest_mismatch")
    assert ((top / "target").read_bytes(), hidden_below(top)) == (b"old", [])


def test_the_word_to_stop_ends_it_and_leaves_the_target_alone(top: Path) -> None:
    make_things(top / "source")
    stop = threading.Event()
    stop.set()
    order = Order(top, "cp", top / "target", top / "source")
    assert order.carry_out(stop)["code"] == "interrupted"
    assert picture(top / "target") == {}
    order.done()
    assert picture(top / "target") == picture(top / "source")


@pytest.mark.parametrize("is_tree", [True, False])
def test_a_move_within_a_file_system_is_a_rename(top: Path, is_tree: bool) -> None:
    source = make_things(top / "source") if is_tree else top / "source"
    if not is_tree:
        source.write_bytes(b"content")
    before, number = picture(source), os.stat(source).st_ino
    receipt = Order(top, "mv", top / "target", source).done()
    assert (picture(top / "target"), os.stat(top / "target").st_ino, picture(source)) == (before, number, {})
    assert receipt["proved"] == [{"how": "renamed", "value": "within one file system"}]


def test_two_names_of_one_file_become_one(top: Path) -> None:
    (top / "source").write_bytes(b"content")
    os.link(top / "source", top / "target")
    Order(top, "mv", top / "target", top / "source").done()
    assert sorted(path.name for path in top.iterdir()) == ["target"]


def test_a_move_to_another_file_system_takes_all_and_leaves_nothing(top: Path, elsewhere: Path) -> None:
    source = make_things(top / "source")
    before = picture(source)
    Order(top, "mv", elsewhere / "target", source, root="/").done()
    assert picture(elsewhere / "target") == before
    assert (picture(source), hidden_below(top), hidden_below(elsewhere)) == ({}, [], [])


@pytest.mark.parametrize("kind", ["file", "link"])
def test_single_things_move_to_another_file_system(top: Path, elsewhere: Path, kind: str) -> None:
    source = top / "source"
    source.symlink_to("nowhere") if kind == "link" else source.write_bytes(b"content" * 1000)
    before = picture(source)
    Order(top, "mv", elsewhere / "target", source, root="/").done()
    assert (picture(elsewhere / "target"), picture(source)) == (before, {})


def test_what_comes_or_changes_during_a_move_stays_and_is_told(
    top: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_things(top / "source")
    real = removing.remove_copied

    def and_before(*arguments: object) -> None:
        (source / "a dir" / "new").write_bytes(b"new")
        (source / "-rf").write_bytes(b"changed")
        real(*arguments)

    monkeypatch.setattr(removing, "remove_copied", and_before)
    message = Order(top, "mv", elsewhere / "target", source, root="/").failed("source_changed")
    assert "'a dir/new'" in message
    left = {name: seen[-1] for name, seen in picture(source).items() if seen[0] == "file"}
    assert left == {"a dir/new": b"new", "-rf": b"changed", "twin": b"changed"}
    assert (elsewhere / "target" / "-rf").read_bytes() == b""


def test_a_move_onto_what_cannot_be_replaced_changes_nothing(top: Path) -> None:
    make_things(top / "source")
    (top / "target" / "full").mkdir(parents=True)
    before = picture(top / "source")
    Order(top, "mv", top / "target", top / "source").failed("target_exists")
    assert picture(top / "source") == before


@pytest.mark.parametrize("kind", ["cp", "mv"])
def test_a_directory_that_became_a_link_since_is_not_written_through(top: Path, kind: str) -> None:
    (top / "source").write_bytes(b"content")
    (top.parent / "outside").mkdir()
    (top / "place").symlink_to(top.parent / "outside")
    Order(top, kind, top / "place" / "target", top / "source").failed("target_missing_directory")
    assert picture(top.parent / "outside").keys() == {""}
    assert (top / "source").exists()
