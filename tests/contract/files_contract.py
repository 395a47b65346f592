"""What every plug behind ``ports/files.py`` must do. A plug's test file subclasses ``FilesContract``."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass

import pytest

from stagecoach.core.errors import FileMissing, InvalidRequest, NotAFile, PathRefused, PermissionRefused
from stagecoach.ports.files import FileKind, Files

ODD_NAMES = [
    "with space",
    "it's",
    '"quoted"',
    "$(touch pwned)",
    "`touch pwned`",
    "new\nline",
    "é",
    "日本",
    "-rf",
    "*",
    "a\\b",
    "a;b|c&d",
    "x" * 255,
    "é" * 127 + "x",
    "not-utf8-\udcff",
]


@dataclass
class FilesUnderTest:
    """A plug, the user, and a directory of the user's that is fresh for this test."""

    files: Files
    username: str
    directory: str


class FilesContract:
    """Subclasses give a fixture ``under_test``. The same disk is looked at directly: these are real files."""

    async def test_home_is_a_directory(self, under_test: FilesUnderTest) -> None:
        home = await under_test.files.home(under_test.username)
        assert home.startswith("/")
        status = await under_test.files.status(under_test.username, home, follow_symlinks=True)
        assert status is not None
        assert status.kind is FileKind.DIRECTORY

    @pytest.mark.parametrize("name", ODD_NAMES)
    async def test_a_file_of_any_name(self, under_test: FilesUnderTest, name: str) -> None:
        files, user, path = under_test.files, under_test.username, f"{under_test.directory}/{name}"
        assert await files.status(user, path, follow_symlinks=True) is None
        assert await files.read_file(user, path, 10) is None
        content = bytes(range(256)) * 3
        await files.write_file(user, path, content, 0o640)
        status = await files.status(user, path, follow_symlinks=False)
        assert status is not None
        assert (status.kind, status.size_bytes, status.mode) == (FileKind.FILE, len(content), 0o640)
        assert abs(status.mtime_epoch_seconds - time.time()) < 60
        assert await files.read_file(user, path, 10_000) == content
        assert await files.read_file(user, path, 5) == content[:5]
        assert await files.real_path(user, path) == path
        assert await files.may(user, path, "r")
        assert await files.may(user, path, "rw")
        assert os.listdir(os.fsencode(under_test.directory)) == [os.fsencode(name)]
        await files.remove_file(user, path)
        await files.remove_file(user, path)
        assert os.listdir(under_test.directory) == []

    @pytest.mark.parametrize("name", ODD_NAMES)
    async def test_a_directory_of_any_name(self, under_test: FilesUnderTest, name: str) -> None:
        files, user, path = under_test.files, under_test.username, f"{under_test.directory}/{name}"
        await files.make_directory(user, f"{path}/inner/{name}")
        await files.make_directory(user, f"{path}/inner/{name}")
        for made in (path, f"{path}/inner", f"{path}/inner/{name}"):
            status = await files.status(user, made, follow_symlinks=False)
            assert status is not None
            assert (status.kind, status.mode) == (FileKind.DIRECTORY, 0o700)
        await files.write_file(user, f"{path}/inner/{name}/{name}", b"x", 0o600)
        await files.remove_tree(user, path)
        await files.remove_tree(user, path)
        assert os.listdir(under_test.directory) == []

    async def test_writing_replaces_atomically(self, under_test: FilesUnderTest) -> None:
        files, user, path = under_test.files, under_test.username, f"{under_test.directory}/f"
        await files.write_file(user, path, b"", 0o600)
        assert await files.read_file(user, path, 10) == b""
        with open(path, "rb") as before:
            await files.write_file(user, path, b"new", 0o644)
            assert before.read() == b""
        assert await files.read_file(user, path, 10) == b"new"
        big = os.urandom(300_000)
        await files.write_file(user, path, big, 0o600)
        assert await files.read_file(user, path, 1_000_000) == big
        assert os.listdir(under_test.directory) == ["f"]

    async def test_writing_where_it_cannot_be(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        with pytest.raises(FileMissing):
            await files.write_file(user, f"{top}/missing/f", b"", 0o600)
        os.mkdir(f"{top}/taken")
        os.chmod(f"{top}/taken", 0o777)
        with pytest.raises(NotAFile):
            await files.write_file(user, f"{top}/taken", b"", 0o600)
        with pytest.raises(PathRefused):
            await files.write_file(user, f"{top}/{'x' * 256}", b"", 0o600)
        assert os.listdir(top) == ["taken"]

    async def test_reading_what_is_not_a_file(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        os.mkfifo(f"{top}/fifo")
        with pytest.raises(NotAFile):
            await files.read_file(user, f"{top}/fifo", 10)
        with pytest.raises(NotAFile):
            await files.read_file(user, top, 10)
        status = await files.status(user, f"{top}/fifo", follow_symlinks=True)
        assert status is not None
        assert status.kind is FileKind.OTHER

    async def test_symlinks(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        await files.make_directory(user, f"{top}/kept/deep")
        await files.write_file(user, f"{top}/kept/deep/f", b"precious", 0o600)
        await files.make_directory(user, f"{top}/tree/sub")
        os.symlink(f"{top}/kept", f"{top}/tree/link")
        os.symlink("/nowhere", f"{top}/tree/sub/dangling")
        os.symlink(f"{top}/kept/deep", f"{top}/alias")
        link = await files.status(user, f"{top}/tree/link", follow_symlinks=False)
        followed = await files.status(user, f"{top}/tree/link", follow_symlinks=True)
        assert link is not None
        assert followed is not None
        assert (link.kind, followed.kind) == (FileKind.SYMLINK, FileKind.DIRECTORY)
        assert await files.status(user, f"{top}/tree/sub/dangling", follow_symlinks=True) is None
        assert await files.real_path(user, f"{top}/tree/link/deep/f") == f"{top}/kept/deep/f"
        with pytest.raises(FileMissing):
            await files.real_path(user, f"{top}/tree/sub/dangling")
        with pytest.raises(FileMissing):
            await files.real_path(user, f"{top}/missing")
        await files.remove_tree(user, f"{top}/tree")
        await files.remove_tree(user, f"{top}/alias")
        assert os.listdir(top) == ["kept"]
        assert await files.read_file(user, f"{top}/kept/deep/f", 100) == b"precious"

    async def test_a_tree_with_a_closed_directory_is_removed(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        await files.make_directory(user, f"{top}/tree/closed")
        await files.write_file(user, f"{top}/tree/closed/f", b"", 0o400)
        os.chmod(f"{top}/tree/closed", 0)
        await files.remove_tree(user, f"{top}/tree")
        assert os.listdir(top) == []

    async def test_a_directory_where_a_file_is(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        await files.write_file(user, f"{top}/f", b"", 0o600)
        with pytest.raises(InvalidRequest):
            await files.make_directory(user, f"{top}/f")
        with pytest.raises((InvalidRequest, FileMissing)):
            await files.make_directory(user, f"{top}/f/below")
        assert await files.status(user, f"{top}/f/below", follow_symlinks=True) is None

    async def test_removing_a_directory_as_a_file_is_refused(self, under_test: FilesUnderTest) -> None:
        os.mkdir(f"{under_test.directory}/d")
        os.chmod(f"{under_test.directory}/d", 0o777)
        with pytest.raises((NotAFile, PermissionRefused)):
            await under_test.files.remove_file(under_test.username, f"{under_test.directory}/d")
        assert os.listdir(under_test.directory) == ["d"]

    async def test_free_space(self, under_test: FilesUnderTest) -> None:
        free = await under_test.files.free_bytes(under_test.username, f"{under_test.directory}/not/yet/there")
        space = os.statvfs(under_test.directory)
        assert free is not None
        assert abs(free - space.f_bavail * space.f_frsize) < 2_000_000_000

    @pytest.mark.parametrize("path", ["", "/tmp/a\0b", "/tmp/\ud800"])
    async def test_paths_that_cannot_be(self, under_test: FilesUnderTest, path: str) -> None:
        files, user = under_test.files, under_test.username
        for refused in (
            files.status(user, path, follow_symlinks=True),
            files.write_file(user, path, b"", 0o600),
            files.may(user, path, "r"),
            files.remove_tree(user, path),
        ):
            with pytest.raises(PathRefused):
                await refused

    async def test_a_whole_file_system_is_not_removed(self, under_test: FilesUnderTest) -> None:
        with pytest.raises(PathRefused):
            await under_test.files.remove_tree(under_test.username, "//")

    async def test_many_at_once(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        await asyncio.gather(*(files.write_file(user, f"{top}/{n}", str(n).encode(), 0o600) for n in range(30)))
        read = await asyncio.gather(*(files.read_file(user, f"{top}/{n}", 10) for n in range(30)))
        assert read == [str(n).encode() for n in range(30)]
        await asyncio.gather(*(files.make_directory(user, f"{top}/same/path") for _ in range(10)))
