"""Files of this machine that are read and written piece by piece: written hidden and renamed when whole."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress

from stagecoach.clusters.local_anchors import directory_of
from stagecoach.core.errors import NotAFile


class LocalOpenFile:
    """One descriptor."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self._descriptor = descriptor
        self.size_bytes = size_bytes

    async def read_at(self, offset: int, size_bytes: int) -> bytes:
        """See the port."""
        return await asyncio.to_thread(self._read_at, offset, size_bytes)

    def _read_at(self, offset: int, size_bytes: int) -> bytes:
        pieces = []
        while size_bytes > 0 and (piece := os.pread(self._descriptor, size_bytes, offset)):
            pieces.append(piece)
            offset, size_bytes = offset + len(piece), size_bytes - len(piece)
        return b"".join(pieces)


class LocalNewFile:
    """One descriptor of the hidden file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def write(self, content: bytes) -> None:
        """See the port."""
        await asyncio.to_thread(self._write, content)

    def _write(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


@asynccontextmanager
async def open_file(path: str) -> AsyncIterator[LocalOpenFile]:
    """``path`` is resolved. OSErrors pass through. Raises NotAFile, PathRefused."""
    descriptor = await asyncio.to_thread(_open, path)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise NotAFile(f"{path!r} is not a regular file.")
        yield LocalOpenFile(descriptor, found.st_size)
    finally:
        os.close(descriptor)


@asynccontextmanager
async def create_file(path: str) -> AsyncIterator[LocalNewFile]:
    """``path`` is resolved. OSErrors pass through. Raises NotAFile, PathRefused."""
    with ExitStack() as opened:
        directory, name = await asyncio.to_thread(opened.enter_context, directory_of(path))
        mode = await asyncio.to_thread(_mode_of, path, name, directory)
        beside = f".stagecoach-{secrets.token_hex(8)}.new"
        descriptor = await asyncio.to_thread(_create, beside, directory, 0o666 if mode is None else mode)
        try:
            try:
                yield LocalNewFile(descriptor)
                if mode is not None:
                    # The umask may have taken something from it.
                    os.fchmod(descriptor, mode)
                await asyncio.to_thread(os.fsync, descriptor)
            finally:
                os.close(descriptor)
            await asyncio.to_thread(os.rename, beside, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(beside, dir_fd=directory)
            raise


def _open(path: str) -> int:
    with directory_of(path) as (directory, name):
        # O_NONBLOCK: opening a FIFO would wait for its writer.
        return os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)


def _create(name: str, directory: int, mode: int) -> int:
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=directory)


def _mode_of(path: str, name: str, directory: int) -> int | None:
    """Of the regular file that is there; None where nothing is."""
    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        raise NotAFile(f"{path!r} is a directory or a special file.")
    return stat.S_IMODE(mode) & 0o777
