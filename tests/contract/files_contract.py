"""What every plug behind ``ports/files.py`` must do. A plug's test file subclasses ``FilesContract``."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from dataclasses import dataclass

import pytest

from stagecoach.core.errors import FileMissing, InvalidRequest, NotADirectory, NotAFile, PathRefused
from stagecoach.ports.files import DirectoryEntry, FileKind, Files

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
        await files.remove_tree(user, path)
        await files.remove_tree(user, path)
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

    async def test_a_directory_is_listed_whatever_its_names(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        assert (await files.list_directory(user, top, limit=1, follow_symlinks=False)).entries == ()
        for number, name in enumerate([*ODD_NAMES, ".hidden"]):
            with open(os.fsencode(f"{top}/{name}"), "wb") as file:
                file.write(b"x" * number)
                os.fchmod(file.fileno(), 0o600 + number % 8)
            os.utime(os.fsencode(f"{top}/{name}"), (1, 1_000_000_000 + number))
        listing = await files.list_directory(user, top, limit=100, follow_symlinks=False)
        assert listing.is_whole
        found = {entry.name: entry for entry in listing.entries}
        assert sorted(found) == sorted([*ODD_NAMES, ".hidden"])
        for number, name in enumerate([*ODD_NAMES, ".hidden"]):
            status, really = found[name].status, os.lstat(os.fsencode(f"{top}/{name}"))
            assert (status.kind, status.type_letter, status.size_bytes) == (FileKind.FILE, "-", number)
            assert (status.mode, status.mtime_epoch_seconds) == (0o600 + number % 8, 1_000_000_000 + number)
            assert (status.uid, status.gid) == (really.st_uid, really.st_gid)
            assert (found[name].link_target, found[name].followed) == (None, None)

    async def test_every_kind_is_listed_as_what_it_is(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        os.mkdir(f"{top}/directory")
        os.chmod(f"{top}/directory", 0o1775)
        os.mkfifo(f"{top}/fifo")
        with socket.socket(socket.AF_UNIX) as door:
            directory = os.open(top, os.O_RDONLY)
            door.bind(f"/proc/self/fd/{directory}/socket")  # the path of a socket may have 107 bytes only
            os.close(directory)
        os.symlink("/dev/null", f"{top}/device")
        listing = await files.list_directory(user, top, limit=100, follow_symlinks=False)
        letters = {entry.name: (entry.status.type_letter, entry.status.kind) for entry in listing.entries}
        assert letters == {
            "directory": ("d", FileKind.DIRECTORY),
            "fifo": ("p", FileKind.OTHER),
            "socket": ("s", FileKind.OTHER),
            "device": ("l", FileKind.SYMLINK),
        }
        modes = {entry.name: entry.status.mode for entry in listing.entries}
        assert modes["directory"] == 0o1775
        null = await files.status(user, f"{top}/device", follow_symlinks=True)
        assert null is not None
        assert null.type_letter == "c"

    async def test_listed_symlinks(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        os.mkdir(f"{top}/real")
        os.chmod(f"{top}/real", 0o777)
        os.mkdir(f"{top}/links")
        os.chmod(f"{top}/links", 0o777)
        await files.write_file(user, f"{top}/real/f", b"12345", 0o640)
        targets = {"file": "../real/f", "directory": f"{top}/real", "dangling": "new\nline \udcff", "circle": "circle"}
        for name, target in targets.items():
            os.symlink(os.fsencode(target), f"{top}/links/{name}")

        async def listed(*, follow: bool) -> dict[str, DirectoryEntry]:
            listing = await files.list_directory(user, f"{top}/links", limit=100, follow_symlinks=follow)
            return {entry.name: entry for entry in listing.entries}

        for follow in (False, True):
            found = await listed(follow=follow)
            assert {name: entry.link_target for name, entry in found.items()} == targets
            assert {entry.status.kind for entry in found.values()} == {FileKind.SYMLINK}
            for name, target in targets.items():
                assert await files.read_link(user, f"{top}/links/{name}") == target
        assert {entry.followed for entry in (await listed(follow=False)).values()} == {None}
        followed = {name: entry.followed for name, entry in found.items() if entry.followed is not None}
        assert {name: link.real_path for name, link in followed.items()} == {"file": f"{top}/real/f", "directory": f"{top}/real"}
        assert (followed["file"].status.size_bytes, followed["file"].status.mode) == (5, 0o640)
        assert followed["directory"].status.kind is FileKind.DIRECTORY
        through_link = await files.list_directory(user, f"{top}/links/directory", limit=9, follow_symlinks=False)
        assert [entry.name for entry in through_link.entries] == ["f"]

    async def test_a_large_directory_is_listed_up_to_the_limit(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        for number in range(1000):
            os.symlink(f"to {number}", f"{top}/{number}")
        some = await files.list_directory(user, top, limit=999, follow_symlinks=False)
        assert (len(some.entries), some.is_whole) == (999, False)
        every = await files.list_directory(user, top, limit=1000, follow_symlinks=True)
        assert every.is_whole
        assert {entry.name: entry.link_target for entry in every.entries} == {str(n): f"to {n}" for n in range(1000)}

    async def test_what_is_no_directory_is_not_listed(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        await files.write_file(user, f"{top}/f", b"x", 0o600)
        with pytest.raises(NotADirectory):
            await files.list_directory(user, f"{top}/f", limit=9, follow_symlinks=False)
        with pytest.raises(FileMissing):
            await files.list_directory(user, f"{top}/missing", limit=9, follow_symlinks=False)
        with pytest.raises(FileMissing):
            await files.read_link(user, f"{top}/missing")

    async def test_a_user_has_numbers(self, under_test: FilesUnderTest) -> None:
        numbers = await under_test.files.account_numbers(under_test.username)
        await under_test.files.make_directory(under_test.username, under_test.directory)
        await under_test.files.write_file(under_test.username, f"{under_test.directory}/mine", b"", 0o600)
        status = await under_test.files.status(under_test.username, f"{under_test.directory}/mine", follow_symlinks=True)
        assert status is not None
        assert (numbers.uid, numbers.gids[0]) == (status.uid, status.gid)
        assert len(set(numbers.gids)) == len(numbers.gids)

    async def test_names_of_accounts(self, under_test: FilesUnderTest) -> None:
        names = await under_test.files.account_names(under_test.username, {0, 2_000_000_123, -1, 2**63}, {0, 2_000_000_124})
        assert (names.users, names.groups) == ({0: "root"}, {0: "root"})
        nobody = await under_test.files.account_names(under_test.username, (), ())
        assert (nobody.users, nobody.groups) == ({}, {})
        again = await under_test.files.account_names(under_test.username, [0], [])
        assert again.users == {0: "root"}

    async def test_a_tree_with_a_closed_directory_is_removed(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        await files.make_directory(user, f"{top}/tree/closed")
        await files.write_file(user, f"{top}/tree/closed/f", b"", 0o400)
        os.chmod(f"{top}/tree/closed", 0)
        await files.remove_tree(user, f"{top}/tree")
        assert os.listdir(top) == []

    async def test_a_tree_that_is_closed_in_many_ways_is_removed(self, under_test: FilesUnderTest) -> None:
        top = f"{under_test.directory}/tree"
        for name, mode in (("r", 0o400), ("rx", 0o500), ("x", 0o100), ("wx", 0o300), ("none", 0)):
            await under_test.files.make_directory(under_test.username, f"{top}/{name}/{name}")
            await under_test.files.write_file(under_test.username, f"{top}/{name}/{name}/f", b"x", 0)
            os.symlink("/", f"{top}/{name}/link")
            os.chmod(f"{top}/{name}/{name}", mode)
            os.chmod(f"{top}/{name}", mode)
        os.chmod(top, 0o500)
        await under_test.files.remove_tree(under_test.username, top)
        assert os.listdir(under_test.directory) == []

    async def test_a_tree_of_many_files_is_removed(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, f"{under_test.directory}/tree"
        await files.make_directory(user, f"{top}/inner")
        os.chmod(f"{top}/inner", 0o777)
        for number in range(300):
            os.symlink("/nowhere", f"{top}/inner/{number}")
        await files.remove_tree(user, top)
        assert os.listdir(under_test.directory) == []

    async def test_a_tree_deeper_than_a_path_can_name_is_removed(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, f"{under_test.directory}/tree"
        await files.make_directory(user, top)
        here = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        owner = os.stat(top)
        for _ in range(60):
            os.mkdir("d" * 100, 0o700, dir_fd=here)
            os.chown("d" * 100, owner.st_uid, owner.st_gid, dir_fd=here)
            deeper = os.open("d" * 100, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = deeper
        os.close(here)
        await files.remove_tree(user, top)
        assert os.listdir(under_test.directory) == []

    async def test_whether_a_directory_is_empty(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        assert await files.is_empty(user, top)
        await files.write_file(user, f"{top}/.hidden", b"", 0o600)
        assert not await files.is_empty(user, top)
        with pytest.raises(NotADirectory):
            await files.is_empty(user, f"{top}/.hidden")
        with pytest.raises(FileMissing):
            await files.is_empty(user, f"{top}/missing")

    async def test_a_directory_where_a_file_is(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        await files.write_file(user, f"{top}/f", b"", 0o600)
        with pytest.raises(InvalidRequest):
            await files.make_directory(user, f"{top}/f")
        with pytest.raises((InvalidRequest, FileMissing)):
            await files.make_directory(user, f"{top}/f/below")
        assert await files.status(user, f"{top}/f/below", follow_symlinks=True) is None

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
