"""The part of ``ports/files.py`` behind FirecREST's file operations: what every plug must do with real files."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile

import pytest
from tests.contract.files_contract import ODD_NAMES, FilesUnderTest

from stagecoach.core.errors import (
    CommandFailed,
    FileExists,
    FileMissing,
    InvalidRequest,
    NotAFile,
    OperationTooLong,
    PathRefused,
)
from stagecoach.core.file_commands import Compression
from stagecoach.ports.files import ArchiveOrder

SECONDS = 60.0
CONTENT = os.urandom(3_000_001)


class Interrupted(Exception):
    """Whatever may go wrong while a file is written."""


async def write(under_test: FilesUnderTest, path: str, *pieces: bytes) -> None:
    async with under_test.files.create_file(under_test.username, path, timeout_seconds=SECONDS) as file:
        for piece in pieces:
            await file.write(piece)


class FileOperationsContract:
    """Subclasses give a fixture ``under_test``, as for ``FilesContract``."""

    @pytest.mark.parametrize("name", ODD_NAMES)
    async def test_every_operation_takes_any_name(self, under_test: FilesUnderTest, name: str) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        path, raw = f"{top}/{name}", os.fsencode(f"{top}/{name}")
        await write(under_test, path, b"con", b"tent")
        with open(raw, "rb") as file:
            assert file.read() == b"content"
        async with files.open_file(user, path, timeout_seconds=SECONDS) as opened:
            assert (opened.size_bytes, await opened.read_at(3, 100)) == (7, b"tent")
        assert await files.checksum(user, path, timeout_seconds=SECONDS) == hashlib.sha256(b"content").hexdigest()
        assert await files.file_type(user, path) == "ASCII text, with no line terminators"
        await files.change_mode(user, path, 0o640)
        status, really = await files.full_status(user, path, follow_symlinks=True), os.stat(raw)
        assert (status.mode, status.inode, status.device) == (0o100640, really.st_ino, really.st_dev)
        assert (status.links, status.uid, status.gid, status.size_bytes) == (1, really.st_uid, really.st_gid, 7)
        assert status.mtime_epoch_seconds == int(really.st_mtime)
        assert (status.atime_epoch_seconds, status.ctime_epoch_seconds) == (int(really.st_atime), int(really.st_ctime))
        await files.change_owner(user, path, str(really.st_uid), "")
        await files.change_owner(user, path, "", str(really.st_gid))
        assert (os.stat(raw).st_uid, os.stat(raw).st_gid) == (really.st_uid, really.st_gid)
        await files.create_directory(user, f"{top}/d")
        await files.create_symlink(user, f"{top}/d/{name}", path)
        assert os.readlink(os.fsencode(f"{top}/d/{name}")) == raw
        for from_inside, pattern in ((False, None), (False, "[^Z]*"), (True, r"\./[^Z]*")):
            order = ArchiveOrder(f"{top}/d", Compression.GZIP, dereference=True, pattern=pattern, from_inside=from_inside)
            await files.archive(user, order, f"{top}/a.tgz", timeout_seconds=SECONDS)
            await files.create_directory(user, f"{top}/out")
            await files.extract(user, f"{top}/a.tgz", f"{top}/out", Compression.GZIP, timeout_seconds=SECONDS)
            with open(os.fsencode(f"{top}/out/{name}" if from_inside else f"{top}/out/d/{name}"), "rb") as file:
                assert file.read() == b"content"
            shutil.rmtree(f"{top}/out")
        assert sorted(os.listdir(os.fsencode(top))) == sorted([os.fsencode(name), b"a.tgz", b"d"])

    async def test_a_file_is_read_and_written_in_pieces_and_replaced_as_a_whole(self, under_test: FilesUnderTest) -> None:
        path = f"{under_test.directory}/f"
        await write(under_test, path)
        assert os.path.getsize(path) == 0
        os.chmod(path, 0o604)
        with open(path, "rb") as before:
            await write(under_test, path, CONTENT[:1_000_000], b"", CONTENT[1_000_000:])
            assert before.read() == b""
        async with under_test.files.open_file(under_test.username, path, timeout_seconds=SECONDS) as file:
            assert file.size_bytes == len(CONTENT)
            assert await file.read_at(0, len(CONTENT) + 1) == CONTENT
            assert await file.read_at(len(CONTENT) - 1, 10) == CONTENT[-1:]
            assert await file.read_at(len(CONTENT), 10) == b""
            os.replace(path, f"{path}-moved")
            assert await file.read_at(2_000_000, 70_000) == CONTENT[2_000_000:2_070_000], "an open file has no name"
        assert os.stat(f"{path}-moved").st_mode & 0o7777 == 0o604
        assert os.stat(f"{path}-moved").st_uid == os.stat(under_test.directory).st_uid

    async def test_what_is_written_in_part_is_never_there(self, under_test: FilesUnderTest) -> None:
        path = f"{under_test.directory}/f"
        for existing in (None, b"precious"):
            if existing is not None:
                await write(under_test, path, existing)
            with pytest.raises(Interrupted):
                async with under_test.files.create_file(under_test.username, path, timeout_seconds=SECONDS) as file:
                    await file.write(CONTENT)
                    assert os.path.exists(path) == (existing is not None)
                    raise Interrupted
            assert os.listdir(under_test.directory) == ([] if existing is None else ["f"])
        with open(path, "rb") as after:
            assert after.read() == b"precious"

    async def test_what_is_no_regular_file_is_not_opened(self, under_test: FilesUnderTest) -> None:
        top = under_test.directory
        os.mkfifo(f"{top}/fifo")
        os.mkdir(f"{top}/directory")
        os.chmod(f"{top}/directory", 0o777)
        for name in ("fifo", "directory"):
            with pytest.raises(NotAFile):
                async with under_test.files.open_file(under_test.username, f"{top}/{name}", timeout_seconds=SECONDS):
                    pass
            with pytest.raises(NotAFile):
                await write(under_test, f"{top}/{name}", b"x")
        with pytest.raises(FileMissing):
            async with under_test.files.open_file(under_test.username, f"{top}/missing", timeout_seconds=SECONDS):
                pass
        with pytest.raises(FileMissing):
            await write(under_test, f"{top}/missing/f", b"x")
        for path in ("", f"{top}/a\0b", f"{top}/\ud800"):
            with pytest.raises(PathRefused):
                await write(under_test, path, b"x")
        assert sorted(os.listdir(top)) == ["directory", "fifo"]

    async def test_what_exists_is_not_made_again(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        await files.create_directory(user, f"{top}/d")
        await files.create_symlink(user, f"{top}/l", "/nowhere")
        for path in (f"{top}/d", f"{top}/l"):
            with pytest.raises(FileExists, match="File exists"):
                await files.create_directory(user, path)
            with pytest.raises(FileExists, match="File exists"):
                await files.create_symlink(user, path, "/elsewhere")
        for making in (files.create_directory(user, f"{top}/no/d"), files.create_symlink(user, f"{top}/no/l", "/x")):
            with pytest.raises(FileMissing):
                await making
        assert os.readlink(f"{top}/l") == "/nowhere"

    async def test_links_are_followed_or_not(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        await write(under_test, f"{top}/f", b"12345")
        await files.create_symlink(user, f"{top}/l", "f")
        link = await files.full_status(user, f"{top}/l", follow_symlinks=False)
        assert (oct(link.mode), link.size_bytes) == ("0o120777", 1)
        assert (await files.full_status(user, f"{top}/l", follow_symlinks=True)).size_bytes == 5
        assert await files.file_type(user, f"{top}/l") == "symbolic link to f"
        assert await files.file_type(user, top) == "directory"
        await files.change_mode(user, f"{top}/f", 0o4711)
        with pytest.raises(PathRefused):
            await files.change_mode(user, f"{top}/l", 0o777)
        assert os.stat(f"{top}/f").st_mode & 0o7777 == 0o4711

    async def test_what_commands_refuse_is_said_in_their_words(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        missing = f"{top}/missing"
        words = rf"exit status:1 and error message:stat: cannot statx '{missing}': No such file or directory"
        with pytest.raises(FileMissing, match=words):
            await files.full_status(user, missing, follow_symlinks=True)
        for asking in (
            files.checksum(user, missing, timeout_seconds=SECONDS),
            files.change_mode(user, missing, 0o600),
            files.change_owner(user, missing, user if user == "alice" else "", "0" if user != "alice" else ""),
        ):
            with pytest.raises(FileMissing):
                await asking
        await write(under_test, f"{top}/f", b"no archive")
        with pytest.raises(InvalidRequest, match="invalid user"):
            await files.change_owner(user, f"{top}/f", "nobody-has-this-name", "")
        with pytest.raises(InvalidRequest, match="invalid group"):
            await files.change_owner(user, f"{top}/f", "", "nobody-has-this-name")
        for compression in (Compression.NONE, Compression.GZIP):
            with pytest.raises(CommandFailed, match="exit status:2 and error message:"):
                await files.extract(user, f"{top}/f", top, compression, timeout_seconds=SECONDS)
        assert os.listdir(top) == ["f"]

    @pytest.mark.parametrize("compression", Compression)
    async def test_a_tree_travels_in_an_archive(self, under_test: FilesUnderTest, compression: Compression) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        await files.make_directory(user, f"{top}/tree/sub")
        await write(under_test, f"{top}/tree/sub/f.txt", CONTENT)
        await write(under_test, f"{top}/tree/g.dat", b"g")
        await files.create_symlink(user, f"{top}/tree/link", "sub/f.txt")
        archive = f"{top}/tree.tar"
        await write(under_test, archive, b"an older one")
        await files.archive(user, ArchiveOrder(f"{top}/tree", compression), archive, timeout_seconds=SECONDS)
        with tarfile.open(archive) as opened:
            assert sorted(opened.getnames()) == ["tree", "tree/g.dat", "tree/link", "tree/sub", "tree/sub/f.txt"]
        listing = subprocess.run(["file", "-b", archive], capture_output=True, text=True, check=True).stdout
        assert {"none": "tar", "gzip": "gzip", "bzip2": "bzip2", "xz": "XZ"}[compression] in listing
        await files.create_directory(user, f"{top}/out")
        await files.extract(user, archive, f"{top}/out", compression, timeout_seconds=SECONDS)
        assert os.readlink(f"{top}/out/tree/link") == "sub/f.txt"
        with open(f"{top}/out/tree/sub/f.txt", "rb") as file:
            assert file.read() == CONTENT
        some = ArchiveOrder(f"{top}/tree", compression, dereference=True, pattern=r"\./tree/.*\(txt\|link\)")
        await files.archive(user, some, archive, timeout_seconds=SECONDS)
        with tarfile.open(archive) as opened:
            members = {member.name: (member.isreg(), member.size) for member in opened.getmembers()}
        whole = (True, len(CONTENT))
        # Two names of one file: tar stores what is the same once.
        assert members.pop("./tree/sub/f.txt") in {whole, (False, 0)}
        assert members.pop("./tree/link") in {whole, (False, 0)}
        assert members == {}
        nothing = ArchiveOrder(f"{top}/tree", compression, pattern="no such name")
        await files.archive(user, nothing, archive, timeout_seconds=SECONDS)
        with tarfile.open(archive) as opened:
            assert opened.getnames() == []
        assert sorted(os.listdir(top)) == ["out", "tree", "tree.tar"]

    async def test_an_archive_that_fails_leaves_what_was(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        await write(under_test, f"{top}/a.tar", b"precious")
        for pattern in (None, ".*"):
            order = ArchiveOrder(f"{top}/missing", Compression.NONE, pattern=pattern)
            with pytest.raises(FileMissing):
                await files.archive(user, order, f"{top}/a.tar", timeout_seconds=SECONDS)
        with open(f"{top}/a.tar", "rb") as file:
            assert file.read() == b"precious"
        assert os.listdir(top) == ["a.tar"]

    async def test_what_takes_too_long_is_ended_on_the_system_itself(self, under_test: FilesUnderTest) -> None:
        files, user, top = under_test.files, under_test.username, under_test.directory
        await write(under_test, f"{top}/sparse", b"")
        os.truncate(f"{top}/sparse", 1024**4)
        with pytest.raises(OperationTooLong):
            await files.checksum(user, f"{top}/sparse", timeout_seconds=1)
        order = ArchiveOrder(f"{top}/sparse", Compression.XZ)
        with pytest.raises(OperationTooLong):
            await files.archive(user, order, f"{top}/a.tar.xz", timeout_seconds=1)
        assert os.listdir(top) == ["sparse"]
        open_now = subprocess.run(["pgrep", "-fa", "sparse"], capture_output=True, text=True, check=False).stdout
        assert top not in open_now
