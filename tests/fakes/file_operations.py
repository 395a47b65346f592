"""FirecREST's file operations on the files in memory. An archive is a tar archive, whatever its compression is called."""

from __future__ import annotations

import hashlib
import io
import posixpath
import re
import stat
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from stagecoach.core.errors import CommandFailed, FileExists, FileMissing, InvalidRequest, NotAFile, PermissionRefused
from stagecoach.core.file_commands import Compression, FullStatus
from stagecoach.ports.files import ArchiveOrder, FileKind, NewFile, OpenFile

if TYPE_CHECKING:
    from tests.fakes.systems import Entry, MemoryFiles

_TYPE_BITS = {FileKind.FILE: stat.S_IFREG, FileKind.DIRECTORY: stat.S_IFDIR, FileKind.SYMLINK: stat.S_IFLNK}


class MemoryOpenFile:
    """What the file held when it was opened."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size_bytes = len(content)

    async def read_at(self, offset: int, size_bytes: int) -> bytes:
        return self._content[offset : offset + size_bytes]


class MemoryNewFile:
    """What was written so far."""

    def __init__(self) -> None:
        self.content = b""

    async def write(self, content: bytes) -> None:
        self.content += content


class MemoryFileOperations:
    """The rest of ``MemoryFiles``."""

    @asynccontextmanager
    async def open_file(self: MemoryFiles, username: str, path: str, *, timeout_seconds: float) -> AsyncIterator[OpenFile]:
        content = await self.read_file(username, path, 2**40)
        if content is None:
            raise FileMissing(f"{path}: No such file or directory.")
        yield MemoryOpenFile(content)

    @asynccontextmanager
    async def create_file(self: MemoryFiles, username: str, path: str, *, timeout_seconds: float) -> AsyncIterator[NewFile]:
        found = self._find(username, path, follow=True)
        if found is not None and self.entries[found].kind is not FileKind.FILE:
            raise NotAFile(f"{path} is a directory or a special file.")
        new = MemoryNewFile()
        yield new
        await self.write_file(username, path, new.content, 0o644 if found is None else self.entries[found].mode)

    async def remove(self: MemoryFiles, username: str, path: str, *, timeout_seconds: float) -> None:
        await self.remove_tree(username, path)

    async def create_directory(self: MemoryFiles, username: str, path: str) -> None:
        self._make(username, path, FileKind.DIRECTORY, 0o755)

    async def create_symlink(self: MemoryFiles, username: str, path: str, target: str) -> None:
        self._make(username, path, FileKind.SYMLINK, 0o777, target)

    async def change_mode(self: MemoryFiles, username: str, path: str, mode: int) -> None:
        self._own(username, path).mode = mode & 0o7777

    async def change_owner(self: MemoryFiles, username: str, path: str, owner: str, group: str) -> None:
        entry = self._own(username, path)
        if owner and owner not in self.uids:
            raise InvalidRequest(f"chown: invalid user: '{owner}'")
        if owner and owner != entry.owner:
            raise PermissionRefused("chown: Operation not permitted")

    async def full_status(self: MemoryFiles, username: str, path: str, *, follow_symlinks: bool) -> FullStatus:
        found = self._existing(username, path, follow=follow_symlinks)
        status = self._status(found)
        mode = status.mode | _TYPE_BITS.get(status.kind, stat.S_IFIFO)
        return FullStatus(mode, list(self.entries).index(found), 1, 1, status.uid, status.gid, status.size_bytes, 1, 1, 1)

    async def file_type(self: MemoryFiles, username: str, path: str) -> str:
        return str(self.entries[self._existing(username, path, follow=False)].kind)

    async def checksum(self: MemoryFiles, username: str, path: str, *, timeout_seconds: float) -> str:
        return hashlib.sha256(await self.read_file(username, path, 2**40) or b"").hexdigest()

    async def links_below(self: MemoryFiles, username: str, path: str, *, timeout_seconds: float) -> list[str]:
        links = [name for name in (path, *self.below(path)) if self.entries[name].kind is FileKind.SYMLINK]
        return [await self.real_path(username, link) for link in links]

    async def archive(self: MemoryFiles, username: str, order: ArchiveOrder, path: str, *, timeout_seconds: float) -> None:
        source = self._existing(username, order.source, follow=True)
        above = order.source if order.from_inside else posixpath.dirname(order.source)
        if order.pattern is not None:
            try:
                re.compile(order.pattern)
            except re.error as error:
                raise CommandFailed("find: invalid regular expression") from error
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name in sorted({source, *self.below(source)}):
                entry, member = self.entries[name], tarfile.TarInfo(posixpath.relpath(name, above))
                if entry.kind is FileKind.FILE and (order.pattern is None or re.fullmatch(order.pattern, f"./{member.name}")):
                    member.size = len(entry.content)
                    archive.addfile(member, io.BytesIO(entry.content))
        await self.write_file(username, path, packed.getvalue(), 0o644)

    async def extract(
        self: MemoryFiles, username: str, path: str, directory: str, compression: Compression, *, timeout_seconds: float
    ) -> None:
        try:
            with tarfile.open(fileobj=io.BytesIO(await self.read_file(username, path, 2**40) or b"")) as archive:
                for member in archive.getmembers():
                    target = posixpath.join(directory, member.name)
                    await self.make_directory(username, posixpath.dirname(target))
                    content = archive.extractfile(member)
                    await self.write_file(username, target, content.read() if content is not None else b"", 0o644)
        except tarfile.TarError as error:
            raise CommandFailed("tar: This does not look like a tar archive") from error

    def _make(self: MemoryFiles, username: str, path: str, kind: FileKind, mode: int, target: str = "") -> None:
        from tests.fakes.systems import Entry

        self._check_up()
        if self._find(username, path, follow=False) is not None:
            raise FileExists(f"{path!r}: File exists.")
        content = target.encode("utf-8", "surrogateescape")
        self._put(username, path, Entry(kind, username, mode, content, target))

    def _own(self: MemoryFiles, username: str, path: str) -> Entry:
        entry = self.entries[self._existing(username, path, follow=True)]
        if entry.owner != username:
            raise PermissionRefused(f"Operation not permitted: {path}.")
        return entry

    def _existing(self: MemoryFiles, username: str, path: str, *, follow: bool) -> str:
        self._check_up()
        found = self._find(username, path, follow=follow)
        if found is None:
            raise FileMissing(f"{path}: No such file or directory.")
        return found
