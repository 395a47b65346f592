"""Archives made to do harm, and archives of other hands: nothing is ever written outside, or anything left."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.mover.clocks import QuickClock, Stopper
from tests.unit.mover.faulty_store import FaultyStore, some_bytes
from tests.unit.mover.trees import fetch_ticket, make_tree, snapshot

from stagecoach.mover import stagecoach_mover
from stagecoach.mover.stagecoach_mover import Leg, current_umask, fetch

Made = Callable[[Path], bytes]


@pytest.fixture
def rgw() -> Iterator[FaultyStore]:
    with FaultyStore(part_size=5000).serving() as serving:
        yield serving


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(b"secret")
    return folder


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", target: str = "", **more: Any) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, len(data), target, 0o755
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + data + bytes(-len(data) % 512)


def archive(*members: bytes) -> bytes:
    data = b"".join(members) + bytes(1024)
    return data + bytes(-len(data) % 10240)


def unpack(store: FaultyStore, target: Path, data: bytes) -> dict[str, Any]:
    store.keep("object", data)
    return fetch(fetch_ticket(store, target), clock=QuickClock())


def symlink(name: str, target: str | Path) -> bytes:
    return member(name, tarfile.SYMTYPE, target=str(target))


def hard_link(name: str, target: str | Path) -> bytes:
    return member(name, tarfile.LNKTYPE, target=str(target))


def directory(name: str) -> bytes:
    return member(name, tarfile.DIRTYPE)


UNSAFE: dict[str, Made] = {
    "parent": lambda out: archive(member("../evil", data=b"x")),
    "parent inside": lambda out: archive(member("a/../../evil", data=b"x")),
    "parent that stays inside": lambda out: archive(member("a/../b", data=b"x")),
    "parent directory": lambda out: archive(directory("..")),
    "absolute": lambda out: archive(member(f"{out}/evil", data=b"x")),
    "absolute link": lambda out: archive(symlink(f"{out}/evil", "x")),
    "through a link": lambda out: archive(symlink("link", out), member("link/evil", data=b"x")),
    "directory through a link": lambda out: archive(symlink("link", out), directory("link/evil")),
    "link through a link": lambda out: archive(symlink("link", out), symlink("link/evil", "x")),
    "deep through a link": lambda out: archive(directory("a"), symlink("a/b", "../.."), member("a/b/outside/evil", data=b"x")),
    "link to dot": lambda out: archive(symlink("dot", "."), member("dot/evil", data=b"x")),
    "through a file": lambda out: archive(member("file", data=b"x"), member("file/evil", data=b"x")),
    "hard link to the outside": lambda out: archive(hard_link("link", f"{out}/secret")),
    "hard link to the parent": lambda out: archive(hard_link("link", "../outside/secret")),
    "hard link through a link": lambda out: archive(symlink("away", out), hard_link("link", "away/secret")),
    "hard link to a link": lambda out: archive(symlink("away", out / "secret"), hard_link("link", "away")),
    "hard link to nothing": lambda out: archive(hard_link("link", "a/later"), member("a/later")),
    "hard link to a directory": lambda out: archive(directory("a"), hard_link("link", "a")),
    "hard link to the root": lambda out: archive(hard_link("link", ".")),
    "hard link to itself": lambda out: archive(hard_link("link", "link")),
    "hard link then write": lambda out: archive(hard_link("link", out / "secret"), member("link", data=b"x")),
    "device": lambda out: archive(member("device", tarfile.CHRTYPE, devmajor=1, devminor=3)),
    "block device": lambda out: archive(member("device", tarfile.BLKTYPE, devmajor=8)),
    "pipe": lambda out: archive(member("pipe", tarfile.FIFOTYPE)),
    "unknown kind": lambda out: archive(member("what", b"Z")),
    "root as a file": lambda out: archive(member("./.", data=b"x")),
    "root as a link": lambda out: archive(symlink(".", out)),
    "file for a directory": lambda out: archive(directory("a"), member("a/b"), member("a", data=b"x")),
    "link for a directory": lambda out: archive(directory("a"), symlink("a", out), member("a/evil", data=b"x")),
    "zero in a name": lambda out: archive(member("x", pax_headers={"path": "a\0b"})),
    "zero in a target": lambda out: archive(member("x", tarfile.SYMTYPE, pax_headers={"linkpath": "a\0b"})),
    "no target": lambda out: archive(symlink("x", "")),
    "long name": lambda out: archive(member("n" * 256)),
    "very long path": lambda out: archive(member("n/" * 40_000 + "n")),
    "very many levels": lambda out: archive(member("n/" * 5_000 + "n")),
    "sparse": lambda out: archive(member("x", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.name": "x"})),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_an_archive_that_would_do_harm_is_refused_and_leaves_nothing(
    rgw: FaultyStore, tmp_path: Path, outside: Path, name: str
) -> None:
    before = snapshot(outside)
    receipt = unpack(
        rgw, tmp_path / "target", archive(directory("."), member("good", data=b"good"))[:-10240] + UNSAFE[name](outside)
    )
    assert receipt["code"] == "archive_unsafe", receipt
    assert os.listdir(tmp_path) == ["outside"]
    assert snapshot(outside) == before
    assert os.stat(outside / "secret").st_nlink == 1


def spoiled(data: bytes, at: int, by: bytes) -> bytes:
    return data[:at] + by + data[at + len(by) :]


GOOD = archive(directory("a"), member("a/file", data=some_bytes(12_000)), member("b", data=some_bytes(600)))
UNREADABLE: dict[str, bytes] = {
    "empty": b"",
    "short": b"x",
    "text": b"This is no archive.\n" * 1000,
    "noise": some_bytes(20_000),
    "gzip": gzip.compress(some_bytes(20_000)),
    "cut in a header": GOOD[:700],
    "cut in a file": GOOD[:9000],
    "cut before the end": GOOD[: 3 * 512 + 12_288 + 1024],
    "cut inside the end": GOOD[: 3 * 512 + 12_288 + 1024 + 512],
    "zeros in the middle": GOOD[:1024] + bytes(512) + GOOD[1024:],
    "garbage in the middle": spoiled(GOOD, 512, some_bytes(512)),
    "a flipped bit in a header": spoiled(GOOD, 512, b"A"),
    "two archives": GOOD + GOOD,
    "garbage after the end": GOOD + b"x" * 512,
    "pax size too large": archive(member("x", pax_headers={"size": str(2**62)})),
    "pax size no number": archive(member("x", pax_headers={"size": "-5"})),
    "base 256 size": archive(
        member("x", size=0) and tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT)[:124] + b"\x80" + b"\xff" * 11
    ),
    "huge pax header": archive(tarfile.TarInfo._create_header({"name": "x", "type": b"x", "size": 2**32}, 0, "utf-8", "strict")),  # type: ignore[attr-defined]
    "huge long name": archive(tarfile.TarInfo._create_header({"name": "x", "type": b"L", "size": 2**32}, 0, "utf-8", "strict")),  # type: ignore[attr-defined]
    "time no number": archive(member("x", pax_headers={"mtime": "nan"})),
    "time too far": archive(member("x", pax_headers={"mtime": "9" * 15})),
    "only extended": archive(member("x", pax_headers={"comment": "c"})[:1024]),
    "spoiled pax record": archive(member("x", pax_headers={"comment": "c"}).replace(b"13 comment=c", b"14 comment=c")),
    "pax record longer than its header": archive(
        member("x", pax_headers={"comment": "c"}).replace(b"13 comment=c", b"99 comment=c")
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_not_a_whole_archive_is_refused_and_leaves_nothing(rgw: FaultyStore, tmp_path: Path, name: str) -> None:
    receipt = unpack(rgw, tmp_path / "target", UNREADABLE[name])
    assert receipt["code"] == "archive_unreadable", receipt
    assert os.listdir(tmp_path) == []
    assert ("gzip" in receipt["message"]) == (name == "gzip")


def test_a_good_archive_cut_at_any_block_is_no_success(rgw: FaultyStore, tmp_path: Path) -> None:
    for end in range(512, 3 * 512 + 12_288 + 1024 + 1024, 512):
        assert unpack(rgw, tmp_path / "target", GOOD[:end])["code"] == "archive_unreadable", end
    assert os.listdir(tmp_path) == []
    assert unpack(rgw, tmp_path / "target", GOOD[: 3 * 512 + 12_288 + 1024 + 1024])["ok"]


def test_later_members_replace_earlier_ones_and_directories_merge(rgw: FaultyStore, tmp_path: Path, outside: Path) -> None:
    data = archive(
        member("a/implied/file", data=b"1"),
        member("file", data=b"first, and longer"),
        hard_link("other", "file"),
        member("file", data=b"second"),
        symlink("link", outside / "secret"),
        member("link", data=b"a file now"),
        symlink("away", outside),
        directory("away"),
        member("away/inside", data=b"2"),
        member("was-file"),
        symlink("was-file", "file"),
        member("a", tarfile.DIRTYPE, mode=0o700, mtime=5),
        member("a", tarfile.DIRTYPE, mode=0o500, mtime=7),
        member("a/implied/late", data=b"3"),
        hard_link("a/hard", "./a//implied/file"),
    )
    receipt = unpack(rgw, tmp_path / "target", data)
    assert receipt["ok"], receipt
    target = tmp_path / "target"
    found = {path: one[3:] if one[0] != "link" else one[3] for path, one in snapshot(target).items()}
    assert set(found) == {
        b"", b"/a", b"/a/implied", b"/a/implied/file", b"/a/implied/late", b"/a/hard",
        b"/file", b"/other", b"/link", b"/away", b"/away/inside", b"/was-file",
    }  # fmt: skip
    assert (target / "file").read_bytes() == b"second"
    assert (target / "other").read_bytes() == b"first, and longer"
    assert (target / "link").read_bytes() == b"a file now"
    assert found[b"/was-file"] == b"file"
    assert (target / "a/hard").stat().st_ino == (target / "a/implied/file").stat().st_ino
    assert (target / "a").stat().st_mode & 0o7777 == 0o500
    assert (target / "a").stat().st_mtime_ns == 7 * 10**9
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


@pytest.mark.parametrize("format", ["gnu", "oldgnu", "pax", "posix", "ustar", "v7"])
def test_archives_of_gnu_tar_are_unpacked(rgw: FaultyStore, tmp_path: Path, format: str) -> None:
    source = tmp_path / "source"
    if format in ("ustar", "v7"):
        source.mkdir()
        (source / "file").write_bytes(some_bytes(3000))
        (source / "sub").mkdir()
        (source / "link").symlink_to("file")
    else:
        make_tree(source, 100)
    if format != "v7":
        os.link(source / "file" if format == "ustar" else source / "large", source / "sub-link")
    made = subprocess.run(["tar", "-C", source, f"--format={format}", "-cf", "-", "."], capture_output=True, check=True)
    receipt = unpack(rgw, tmp_path / "target", made.stdout)
    assert receipt["ok"], receipt
    fine = format in ("pax", "posix")  # the others know whole seconds alone
    assert rounded(snapshot(tmp_path / "target"), fine) == rounded(snapshot(source), fine)


def rounded(found: dict[bytes, tuple[Any, ...]], fine: bool) -> dict[bytes, tuple[Any, ...]]:
    return found if fine else {path: (one[0], one[1], one[2] // 10**9, *one[3:]) for path, one in found.items()}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_the_standard_library_are_unpacked(rgw: FaultyStore, tmp_path: Path, format: int) -> None:
    data = io.BytesIO()
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(some_bytes(3000))
    with tarfile.open(fileobj=data, mode="w", format=format) as made:
        made.add(tmp_path / "source", "")
    assert unpack(rgw, tmp_path / "target", data.getvalue())["ok"]
    assert (tmp_path / "target" / "file").read_bytes() == some_bytes(3000)


@pytest.mark.parametrize(("text", "nanoseconds"), [
    (b"0", 0), (b"1", 10**9), (b"1.5", 1_500_000_000), (b"-1.5", -1_500_000_000), (b"1.0000000019", 1_000_000_001),
    (b"-0.000000001", -1), (b"12.", 12 * 10**9), (b"1700000000.123456789", 1_700_000_000_123_456_789),
])  # fmt: skip
def test_times_are_read_exactly(text: bytes, nanoseconds: int) -> None:
    assert stagecoach_mover.parse_seconds(text) == nanoseconds


def stopped_at(
    store: FaultyStore, target: Path, state: Path, part: int, once: Callable[[], bool] = lambda: True
) -> dict[str, Any]:
    """Stopped while it waits to ask for ``part`` again, as soon as the unpacking has come so far that ``once`` holds."""
    stop = threading.Event()
    store.fail("GET", "reset", part, times=2)  # the first is taken for an idle line that was closed
    return fetch(fetch_ticket(store, target), str(state), stop=stop, clock=Stopper(stop, once), concurrency=1)


def test_a_hard_link_is_to_what_its_file_was_even_when_a_run_goes_on_before_it(
    rgw: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = some_bytes(30_000), some_bytes(30_001)
    data = archive(
        member("file", data=b"first"),
        member("before", data=before),
        hard_link("other", "file"),
        member("file", data=b"second"),
        member("after", data=after),
    )
    rgw.keep("object", data)
    target, state = tmp_path / "target", tmp_path / "state"
    assert stopped_at(rgw, target, state, 5)["code"] == "interrupted"
    with monkeypatch.context() as patch:  # a run that goes far beyond the journal, and is killed
        patch.setattr(Leg, "save_journal", lambda leg: None)
        second = tmp_path / ".stagecoach-t1.part" / "file"
        stopped = stopped_at(rgw, target, state, 11, lambda: second.exists() and second.read_bytes() == b"second")
        assert stopped["code"] == "interrupted"
    assert second.read_bytes() == b"second"
    receipt = fetch(fetch_ticket(rgw, target), str(state), clock=QuickClock())
    assert receipt["ok"], receipt
    assert (target / "other").read_bytes() == b"first"
    assert (target / "file").read_bytes() == b"second"
    assert (target / "before").read_bytes() == before


def test_directories_that_no_member_names_have_the_usual_mode_after_an_interruption(
    rgw: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgw.keep("object", archive(member("before", data=some_bytes(30_000)), member("a/b/file", data=some_bytes(30_001))))
    target, state = tmp_path / "target", tmp_path / "state"
    assert stopped_at(rgw, target, state, 5)["code"] == "interrupted"
    with monkeypatch.context() as patch:
        patch.setattr(Leg, "save_journal", lambda leg: None)
        unnamed = tmp_path / ".stagecoach-t1.part" / "a" / "b"
        assert stopped_at(rgw, target, state, 10, unnamed.exists)["code"] == "interrupted"
    assert unnamed.exists()
    receipt = fetch(fetch_ticket(rgw, target), str(state), clock=QuickClock())
    assert receipt["ok"], receipt
    assert receipt["bytes_resumed"] > 0
    assert (target / "a").stat().st_mode & 0o777 == (target / "a" / "b").stat().st_mode & 0o777 == 0o777 & ~current_umask()
