"""compress and extract: an archive that other programs read, read again before it counts; nothing half, nothing outside."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.unit.operations.orders import Order, hidden_below, make_things, picture

from stagecoach.mover import stagecoach_archiving as archiving

OPTION = {"none": [], "gzip": ["-z"], "bzip2": ["-j"], "xz": ["-J"]}


def order(top: Path, kind: str, target: Path, source: Path, **options: Any) -> Order:
    """Anew."""
    made = Order(top, kind, target, source, **options)
    made.forget()
    return made


def in_whole_seconds(path: Path) -> dict[str, Any]:
    """What plain tar keeps."""
    seen = picture(path).items()
    return {name: one if one[0] == "link" else (*one[:2], one[2] // 10**9, *one[3:]) for name, one in seen}


def names_in(archive: Path) -> list[str]:
    with tarfile.open(archive) as opened:
        return sorted(os.path.normpath(member.name) for member in opened)


@pytest.mark.parametrize("compression", OPTION)
def test_there_and_back_again(top: Path, compression: str) -> None:
    source = make_things(top / "source")
    receipt = order(top, "compress", top / "archive", source, compression=compression).done()
    assert receipt["files_done"] == sum(1 for _ in source.rglob("*")) + 1
    (top / "out").mkdir()
    order(top, "extract", top / "out", top / "archive", compression=compression, merges=True).done()
    assert picture(top / "out" / "source") == picture(source)
    assert hidden_below(top) == []


@pytest.mark.parametrize("compression", OPTION)
def test_tar_itself_understands_it_and_is_understood(top: Path, compression: str) -> None:
    source = make_things(top / "source")
    order(top, "compress", top / "archive", source, compression=compression).done()
    (top / "by tar").mkdir()
    subprocess.run(["tar", "-x", *OPTION[compression], "-f", top / "archive", "-C", top / "by tar"], check=True)
    assert picture(top / "by tar" / "source") == picture(source)
    subprocess.run(["tar", "-c", *OPTION[compression], "-f", top / "tarred", "-C", top, "source"], check=True)
    (top / "out").mkdir()
    order(top, "extract", top / "out", top / "tarred", compression=compression, merges=True).done()
    assert in_whole_seconds(top / "out" / "source") == in_whole_seconds(source)


def test_the_archive_may_be_made_in_the_directory_itself(top: Path) -> None:
    (top / "source").mkdir()
    (top / "source" / "file").write_bytes(b"x")
    (top / "source" / "all.tar.gz").write_bytes(b"an earlier one")
    order(top, "compress", top / "source" / "all.tar.gz", top / "source").done()
    assert names_in(top / "source" / "all.tar.gz") == ["source", "source/file"]


def test_what_is_in_a_directory_is_packed_without_its_name(top: Path) -> None:
    make_things(top / "source")
    order(top, "compress", top / "archive", top / "source", from_inside=True).done()
    assert "a dir" in names_in(top / "archive")
    assert not any(name.startswith("source") for name in names_in(top / "archive"))


def test_only_what_matches_is_packed(top: Path) -> None:
    (top / "source" / "deep").mkdir(parents=True)
    for name in ("one.txt", "two.log", "deep/three.txt", "deep/txt"):
        (top / "source" / name).write_bytes(name.encode())
    (top / "other.txt").write_bytes(b"beside")
    order(top, "compress", top / "archive", top / "source", match_pattern=r".*\.\(txt\|md\)").done()
    assert names_in(top / "archive") == ["source/deep/three.txt", "source/one.txt"]
    order(top, "compress", top / "archive", top / "source", match_pattern="nothing").done()
    assert names_in(top / "archive") == []
    (top / "kept").write_bytes(b"old")
    order(top, "compress", top / "kept", top / "source", match_pattern="[").failed("find_failed")
    assert (top / "kept").read_bytes() == b"old"


def test_links_are_packed_as_links_or_as_what_they_lead_to(top: Path) -> None:
    (top / "source").mkdir()
    (top / "real").write_bytes(b"content")
    (top / "source" / "link").symlink_to("../real")
    order(top, "compress", top / "archive", top / "source").done()
    with tarfile.open(top / "archive") as opened:
        assert opened.getmember("source/link").linkname == "../real"
    order(top, "compress", top / "archive", top / "source", dereference=True).done()
    with tarfile.open(top / "archive") as opened:
        content = opened.extractfile("source/link")
        assert content is not None
        assert content.read() == b"content"


def test_an_archive_that_cannot_be_read_again_never_takes_its_place(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_things(top / "source")
    (top / "archive").write_bytes(b"old")
    monkeypatch.setattr(archiving, "pieces", lambda *_: iter([b"something else"]))
    order(top, "compress", top / "archive", top / "source").failed("digest_mismatch")
    assert ((top / "archive").read_bytes(), hidden_below(top)) == (b"old", [])


def archive_of(path: Path, *members: tarfile.TarInfo, content: bytes = b"bad") -> None:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content))


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "members",
    [
        [member("../outside")],
        [member("good"), member("a/../../outside")],
        [member("/outside")],
        [member("out", tarfile.SYMTYPE, ".."), member("out/outside")],
        [member("good"), member("hard", tarfile.LNKTYPE, "../kept")],
        [member("device", tarfile.CHRTYPE)],
        [member("pipe", tarfile.FIFOTYPE)],
    ],
    ids=["parent", "parent in the middle", "absolute", "through a link", "hard link", "device", "pipe"],
)
def test_an_archive_made_to_do_harm_leaves_nothing(top: Path, members: list[tarfile.TarInfo]) -> None:
    (top / "target").mkdir()
    (top / "target" / "there").write_bytes(b"there")
    (top / "kept").write_bytes(b"kept")
    archive_of(top / "archive", *members)
    order(top, "extract", top / "target", top / "archive", merges=True).failed("archive_unsafe")
    assert set(picture(top)) == {"", "target", "target/there", "kept", "archive"}
    assert (top / "kept").read_bytes() == b"kept"


def test_nothing_is_written_through_a_link_that_stands_in_the_target(top: Path) -> None:
    (top / "target").mkdir()
    (top / "outside").mkdir()
    (top / "target" / "dir").symlink_to("../outside")
    archive_of(top / "archive", member("dir", tarfile.DIRTYPE), member("dir/file"))
    order(top, "extract", top / "target", top / "archive", merges=True).failed("target_exists")
    assert picture(top / "outside").keys() == {""}


@pytest.mark.parametrize("cut", [10, -200, -6])
def test_an_archive_that_was_cut_off_leaves_nothing(top: Path, cut: int) -> None:
    (top / "target").mkdir()
    archive_of(top / "archive", member("one"), member("two"), content=os.urandom(20_000))
    whole = (top / "archive").read_bytes()
    (top / "archive").write_bytes(whole[:cut])
    order(top, "extract", top / "target", top / "archive", merges=True).failed("archive_unreadable")
    assert picture(top / "target").keys() == {""}


def test_a_spoiled_byte_in_the_middle_leaves_nothing(top: Path) -> None:
    (top / "target").mkdir()
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        one = member("one")
        one.size = 50_000
        archive.addfile(one, io.BytesIO(bytes(50_000)))
    packed = bytearray(gzip.compress(plain.getvalue()))
    packed[-7] ^= 1
    (top / "archive").write_bytes(packed)
    order(top, "extract", top / "target", top / "archive", merges=True).failed("archive_unreadable")
    assert picture(top / "target").keys() == {""}


def test_the_wrong_compression_is_named(top: Path) -> None:
    (top / "target").mkdir()
    archive_of(top / "archive", member("one"))
    said = order(top, "extract", top / "target", top / "archive", compression="xz", merges=True).failed("archive_unreadable")
    assert "looks like gzip" in said


@pytest.mark.parametrize("way", ["itself", "hard link", "link that is followed"])
def test_an_archive_never_takes_the_place_of_what_goes_into_it(top: Path, way: str) -> None:
    (top / "data").write_bytes(b"precious")
    source = top / ("data" if way == "itself" else "other name")
    if way == "hard link":
        os.link(top / "data", source)
    elif way != "itself":
        source.symlink_to("data")
    before = picture(top)
    said = order(top, "compress", top / "data", source, dereference=True).failed("target_exists")
    assert "are the same" in said
    assert picture(top).keys() == before.keys()
    assert (top / "data").read_bytes() == b"precious"


def test_modes_from_an_archive_do_no_harm(top: Path) -> None:
    (top / "target").mkdir()
    members = [member("setuid"), member("open", tarfile.DIRTYPE), member("closed", tarfile.DIRTYPE), member("closed/file")]
    for one, mode in zip(members, (0o6777, 0o7777, 0, 0), strict=True):
        one.mode = mode
    archive_of(top / "archive", *members)
    umask = os.umask(0o027)
    try:
        order(top, "extract", top / "target", top / "archive", merges=True).done()
    finally:
        os.umask(umask)
    modes = {name: seen[1] for name, seen in picture(top / "target").items()}
    assert {name: oct(modes[name]) for name in ("setuid", "open", "closed")} == {
        "setuid": "0o750",
        "open": "0o750",
        "closed": "0o0",
    }
    removal = Order(top, "rm", top / "target")
    removal.forget()
    removal.done()
    assert not (top / "target").exists()
