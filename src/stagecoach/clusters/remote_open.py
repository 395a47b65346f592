"""Files that are read and written piece by piece over SFTP: read from one open handle, written hidden and renamed when whole."""

from __future__ import annotations

import posixpath
import secrets
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncssh

from stagecoach.clusters.remote_status import kind_of, text_of
from stagecoach.clusters.remote_trouble import explained
from stagecoach.core.anchored_commands import REPLACED
from stagecoach.core.errors import NotAFile, PathRefused
from stagecoach.ports.files import FileKind

_GONE = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)


class RemoteOpenFile:
    """One handle."""

    def __init__(self, file: asyncssh.SFTPClientFile, size_bytes: int) -> None:
        self._file = file
        self.size_bytes = size_bytes

    async def read_at(self, offset: int, size_bytes: int) -> bytes:
        """See the port."""
        content = await self._file.read(size_bytes, offset)
        return content if isinstance(content, bytes) else content.encode()


class RemoteNewFile:
    """One handle on the hidden file."""

    def __init__(self, file: asyncssh.SFTPClientFile) -> None:
        self._file = file
        self._written = 0

    async def write(self, content: bytes) -> None:
        """See the port."""
        await self._file.write(content, self._written)
        self._written += len(content)


async def require_same_directory(sftp: asyncssh.SFTPClient, path: str) -> None:
    """Of a resolved path: no link was put in the way since. SFTP knows no open directories, so this narrows a gap and
    cannot close it. Raises PathRefused."""
    directory = posixpath.dirname(path)
    if text_of(await sftp.realpath(directory)) != directory:
        raise PathRefused(f"{directory!r} {REPLACED}.")


@asynccontextmanager
async def open_file(sftp: asyncssh.SFTPClient, path: str) -> AsyncIterator[RemoteOpenFile]:
    """``path`` is resolved. SFTP's own errors pass through. Raises NotAFile, PathRefused."""
    # Looked at first: opening a FIFO would wait for its writer.
    if kind_of((await sftp.lstat(path)).permissions or 0) is not FileKind.FILE:
        raise NotAFile(f"{path!r} is not a regular file.")
    async with sftp.open(path, "rb") as file:
        await require_same_directory(sftp, path)
        yield RemoteOpenFile(file, (await file.stat()).size or 0)


@asynccontextmanager
async def create_file(sftp: asyncssh.SFTPClient, path: str, system_name: str) -> AsyncIterator[RemoteNewFile]:
    """``path`` is resolved. SFTP's own errors pass through where they say enough. Raises NotAFile, PathRefused."""
    attributes = asyncssh.SFTPAttrs()
    with suppress(*_GONE):
        mode = (await sftp.lstat(path)).permissions or 0
        if kind_of(mode) is not FileKind.FILE:
            raise NotAFile(f"{path!r} is a directory or a special file.")
        attributes = asyncssh.SFTPAttrs(permissions=stat.S_IMODE(mode) & 0o777)
    beside = posixpath.join(posixpath.dirname(path), f".stagecoach-{secrets.token_hex(8)}.new")
    try:
        async with sftp.open(beside, "xb", attributes) as file:
            new = RemoteNewFile(file)
            try:
                yield new
            except asyncssh.SFTPFailure as error:
                # Looked into before the unfinished file is removed: then there would be space again.
                raise await explained(sftp, error, path, system_name, needed_bytes=1) from error
            if attributes.permissions is not None:
                # The user's umask may have taken something from the mode.
                await file.chmod(attributes.permissions)
            with suppress(asyncssh.SFTPOpUnsupported):
                await file.fsync()
        await require_same_directory(sftp, path)
        await sftp.posix_rename(beside, path)
    except BaseException:
        with suppress(OSError, asyncssh.Error):
            await sftp.remove(beside)
        raise
