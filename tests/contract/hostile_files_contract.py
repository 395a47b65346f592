"""The part of ``ports/files.py`` that somebody may want to harm: links put in the way, archives made for it, odd names."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Awaitable, Callable

import pytest
from tests.contract.files_contract import ODD_NAMES, FilesUnderTest

from stagecoach.core.errors import (
    CommandFailed,
    FileMissing,
    InvalidRequest,
    NotAFile,
    PathRefused,
    PermissionRefused,
    StagecoachError,
    TargetExists,
)
from stagecoach.core.file_commands import Compression
from stagecoach.ports.files import ArchiveOrder

SECONDS = 60.0


def given(under_test: FilesUnderTest, *paths: str) -> None:
    """To the user; these tests may run as root."""
    owner = os.stat(under_test.directory)
    for path in paths:
        os.lchown(path, owner.st_uid, owner.st_gid)


def made(under_test: FilesUnderTest, *names: str) -> None:
    """A directory where the name ends in a slash, else a file that holds its name; below the directory under test."""
    for name in names:
        path = f"{under_test.directory}/{name}".rstrip("/")
        if name.endswith("/"):
            os.makedirs(path, exist_ok=True)
        else:
            with open(path, "w", encoding="utf-8") as file:
                file.write(name)
        given(under_test, path)


def picture(top: str) -> dict[str, object]:
    """All below, by relative names: the text of links, the content of files, None for directories."""
    seen: dict[str, object] = {}
    for directory, folders, files in os.walk(os.fsencode(top)):
        for name in (*folders, *files):
            path = os.path.join(directory, name)
            key = os.fsdecode(os.path.relpath(path, os.fsencode(top)))
            if os.path.islink(path):
                seen[key] = ("link", os.readlink(path))
            elif os.path.isdir(path):
                seen[key] = None
            else:
                with open(path, "rb") as file:
                    seen[key] = file.read()
    return seen


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info


def pack(under_test: FilesUnderTest, *members: tarfile.TarInfo, content: bytes = b"bad") -> str:
    """The path of the archive."""
    path = f"{under_test.directory}/a.tar"
    with tarfile.open(path, "w") as archive:
        for one in members:
            one.size = len(content) if one.isreg() else 0
            archive.addfile(one, io.BytesIO(content))
    given(under_test, path)
    return path


async def extracted(under_test: FilesUnderTest, path: str, target: str = "target") -> None:
    await under_test.files.extract(
        under_test.username, path, f"{under_test.directory}/{target}", Compression.NONE, timeout_seconds=SECONDS
    )


Acting = Callable[[FilesUnderTest, str], Awaitable[object]]


async def _write(under_test: FilesUnderTest, path: str) -> None:
    async with under_test.files.create_file(under_test.username, path, timeout_seconds=SECONDS) as file:
        await file.write(b"overwritten")


async def _read(under_test: FilesUnderTest, path: str) -> None:
    async with under_test.files.open_file(under_test.username, path, timeout_seconds=SECONDS) as file:
        await file.read_at(0, 100)


async def _pack(under_test: FilesUnderTest, source: str, target: str, pattern: str | None = None) -> None:
    order = ArchiveOrder(source, Compression.GZIP, pattern=pattern)
    await under_test.files.archive(under_test.username, order, target, timeout_seconds=SECONDS)


# What is done to a name in a directory that is no longer the one that was looked at.
ACTS: dict[str, Acting] = {
    "remove": lambda it, d: it.files.remove(it.username, f"{d}/tree", timeout_seconds=SECONDS),
    "remove file": lambda it, d: it.files.remove(it.username, f"{d}/file", timeout_seconds=SECONDS),
    "write": lambda it, d: _write(it, f"{d}/file"),
    "read": lambda it, d: _read(it, f"{d}/file"),
    "directory": lambda it, d: it.files.create_directory(it.username, f"{d}/new"),
    "symlink": lambda it, d: it.files.create_symlink(it.username, f"{d}/new", "/nowhere"),
    "mode": lambda it, d: it.files.change_mode(it.username, f"{d}/file", 0o777),
    "owner": lambda it, d: it.files.change_owner(
        it.username, f"{d}/file", str(os.stat(it.directory).st_uid), str(os.stat(it.directory).st_gid)
    ),
    "pack from there": lambda it, d: _pack(it, f"{d}/tree", f"{it.directory}/packed"),
    "pack what matches there": lambda it, d: _pack(it, f"{d}/tree", f"{it.directory}/packed", ".*"),
    "pack into it": lambda it, d: _pack(it, f"{it.directory}/other", f"{d}/file"),
    "unpack into it": lambda it, d: it.files.extract(
        it.username, f"{it.directory}/a.tar", f"{d}/tree", Compression.NONE, timeout_seconds=SECONDS
    ),
    "unpack from there": lambda it, d: it.files.extract(
        it.username, f"{d}/a.tar", f"{it.directory}/other", Compression.NONE, timeout_seconds=SECONDS
    ),
}


class HostileFilesContract:
    """Subclasses give a fixture ``under_test``, as for ``FilesContract``."""

    @pytest.mark.parametrize("act", ACTS)
    async def test_what_was_replaced_by_a_link_is_not_acted_in(self, under_test: FilesUnderTest, act: str) -> None:
        top = under_test.directory
        made(under_test, "in/", "in/dir/", "outside/", "outside/dir/", "outside/dir/tree/", "outside/dir/tree/file", "other/")
        made(under_test, "outside/dir/file", "other/file")
        os.rename(pack(under_test, member("bad")), f"{top}/outside/dir/a.tar")
        pack(under_test, member("bad"))
        os.rename(f"{top}/in", f"{top}/moved")
        os.symlink("outside", f"{top}/in")
        before = picture(top), os.stat(f"{top}/outside/dir/file").st_mode
        with pytest.raises(PathRefused, match="replaced"):
            await ACTS[act](under_test, f"{top}/in/dir")
        assert (picture(top), os.stat(f"{top}/outside/dir/file").st_mode) == before

    async def test_a_link_in_the_place_of_a_file_is_neither_read_nor_written(self, under_test: FilesUnderTest) -> None:
        made(under_test, "file")
        os.symlink("file", f"{under_test.directory}/link")
        for acting in (_read, _write):
            with pytest.raises((NotAFile, FileMissing)):
                await acting(under_test, f"{under_test.directory}/link")
        assert picture(under_test.directory) == {"file": b"file", "link": ("link", b"file")}

    @pytest.mark.parametrize("name", ODD_NAMES)
    async def test_anything_is_removed_whatever_its_name_and_mode(self, under_test: FilesUnderTest, name: str) -> None:
        top = under_test.directory
        made(under_test, "kept", "tree/", "tree/closed/", "tree/closed/file", "tree/read-only/", "tree/read-only/file")
        os.symlink("../kept", f"{top}/tree/link")
        for path, mode in ((f"{top}/tree/closed", 0), (f"{top}/tree/read-only", 0o500), (f"{top}/tree", 0o300)):
            os.chmod(path, mode)
        os.rename(os.fsencode(f"{top}/tree"), os.fsencode(f"{top}/{name}"))
        for _ in range(2):
            await under_test.files.remove(under_test.username, f"{top}/{name}", timeout_seconds=SECONDS)
            assert picture(top) == {"kept": b"kept"}
        os.symlink("kept", os.fsencode(f"{top}/{name}"))
        await under_test.files.remove(under_test.username, f"{top}/{name}", timeout_seconds=SECONDS)
        assert picture(top) == {"kept": b"kept"}
        with pytest.raises(PathRefused):
            await under_test.files.remove(under_test.username, "/", timeout_seconds=SECONDS)

    async def test_what_is_mounted_stays_and_is_told(self, under_test: FilesUnderTest) -> None:
        top = under_test.directory
        made(under_test, "tree/", "tree/file", "tree/mounted/")
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", f"{top}/tree/mounted"], capture_output=True, check=False).returncode:
            pytest.skip("may not mount here")
        try:
            made(under_test, "tree/mounted/", "tree/mounted/file")
            for path in (f"{top}/tree/mounted", f"{top}/tree"):
                with pytest.raises(PathRefused, match="mounted"):
                    await under_test.files.remove(under_test.username, path, timeout_seconds=SECONDS)
                assert picture(f"{top}/tree/mounted") == {"file": b"tree/mounted/file"}
        finally:
            subprocess.run(["umount", f"{top}/tree/mounted"], check=True)

    @pytest.mark.parametrize(
        ("members", "kind"),
        [
            ([member("good"), member("../outside/file")], CommandFailed),
            ([member("good"), member("a/../../outside/file")], CommandFailed),
            ([member("out", tarfile.SYMTYPE, "../outside"), member("out/file")], StagecoachError),
            ([member("out", tarfile.SYMTYPE, "/"), member("out/tmp/file")], StagecoachError),
            ([member("good"), member("hard", tarfile.LNKTYPE, "../outside/file")], StagecoachError),
            ([member("good"), member("there/new")], TargetExists),
            ([member("good"), member("there", tarfile.DIRTYPE), member("there/file")], TargetExists),
            ([member("good"), member("hard", tarfile.LNKTYPE, "there/file")], StagecoachError),
            ([member("good"), member("taken/x")], TargetExists),
            ([member("good"), member("full", mode=0o777)], TargetExists),
            ([member("good"), member("pipe", tarfile.FIFOTYPE)], CommandFailed),
            ([member("good"), member("zero", tarfile.CHRTYPE)], (CommandFailed, PermissionRefused)),
        ],
        ids=[
            *["parent", "parent in the middle", "through its own link", "through its own absolute link", "hard link"],
            *["through a link there", "over a link there", "hard link through a link there", "through a file there"],
            *["over a directory there", "pipe", "device"],
        ],
    )
    async def test_an_archive_made_to_do_harm_changes_nothing(
        self, under_test: FilesUnderTest, members: list[tarfile.TarInfo], kind: type[StagecoachError]
    ) -> None:
        made(under_test, "target/", "target/full/", "target/full/file", "target/taken", "outside/", "outside/file")
        os.symlink("../outside", f"{under_test.directory}/target/there")
        path = pack(under_test, *members)
        before = picture(under_test.directory)
        with pytest.raises(kind):
            await extracted(under_test, path)
        assert picture(under_test.directory) == before

    async def test_what_an_archive_links_to_is_not_written(self, under_test: FilesUnderTest) -> None:
        made(under_test, "target/", "outside/", "outside/file")
        outside = f"{under_test.directory}/outside/file"
        # An absolute name begins in the target; a link that leads out comes as a link, and is replaced and not followed.
        path = pack(under_test, member(outside), member("link", tarfile.SYMTYPE, outside))
        for _ in range(2):
            await extracted(under_test, path)
        path = pack(under_test, member("link"))
        await extracted(under_test, path)
        seen = picture(under_test.directory)
        assert seen["outside/file"] == b"outside/file"
        assert (seen[f"target{outside}"], seen["target/link"]) == (b"bad", b"bad")

    async def test_what_is_unpacked_joins_what_is_there(self, under_test: FilesUnderTest) -> None:
        top = under_test.directory
        made(under_test, "target/", "target/d/", "target/d/kept", "target/d/.old", "target/d/e/")
        names = [
            "d/.old",
            "d/new",
            "d/..twodots",
            "d/e/deep",
            "d/*",
            "d/-rf",
            "other/x",
            *(f"d/n{number}" for number in range(250)),
        ]
        await extracted(under_test, pack(under_test, *(member(name) for name in names), content=b"new"))
        expected = dict.fromkeys((f"target/{name}" for name in names), b"new")
        expected["target/d/kept"] = b"target/d/kept"
        assert {name: content for name, content in picture(top).items() if content is not None and name != "a.tar"} == expected
        assert not [name for name in picture(top) if ".stagecoach" in name]

    async def test_modes_from_an_archive_do_no_harm(self, under_test: FilesUnderTest) -> None:
        top = under_test.directory
        made(under_test, "target/", "target/there/")
        os.chmod(f"{top}/target", 0o750)
        closed = [member(name, tarfile.DIRTYPE, mode=0) for name in ("closed", "there", "closed/inner")]
        path = pack(
            under_test,
            member("./", tarfile.DIRTYPE, mode=0o7777),
            member("setuid", mode=0o6777),
            member("open", tarfile.DIRTYPE, mode=0o7777),
            *closed,
            member("closed/inner/file", mode=0),
            member("there/file"),
        )
        for _ in range(2):
            await extracted(under_test, path)
            await under_test.files.remove(under_test.username, f"{top}/target/closed", timeout_seconds=SECONDS)
        await extracted(under_test, path)

        def mode(name: str) -> int:
            return stat.S_IMODE(os.stat(f"{top}/target/{name}").st_mode)

        assert mode(".") == 0o750
        assert mode("closed") == 0
        assert mode("setuid") & 0o6022 == 0
        assert mode("open") & 0o7022 == 0
        assert mode("there") & 0o700 == 0o700
        assert sorted(os.listdir(f"{top}/target")) == ["closed", "open", "setuid", "there"]
        await under_test.files.remove(under_test.username, f"{top}/target", timeout_seconds=SECONDS)
        assert os.listdir(top) == ["a.tar"]

    async def test_names_of_owners_are_taken_as_they_are(self, under_test: FilesUnderTest) -> None:
        made(under_test, "file")
        path, user = f"{under_test.directory}/file", under_test.username
        found = os.stat(path)
        for owner, group in (
            (f"{found.st_uid}.{found.st_gid}", ""),
            (f"root.{found.st_gid}", ""),
            ("--reference=/", ""),
            ("", "--reference=/"),
            ("", f"{found.st_gid}.x"),
            ("no.body", str(found.st_gid)),
        ):
            with pytest.raises(InvalidRequest, match=r"invalid (user|group)"):
                await under_test.files.change_owner(user, path, owner, group)
        assert (os.stat(path).st_uid, os.stat(path).st_gid) == (found.st_uid, found.st_gid)
