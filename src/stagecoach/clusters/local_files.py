"""The Files port on this machine's own disk, as the account this service runs under, for the embedded mode."""

from __future__ import annotations

import asyncio
import errno
import os
import posixpath
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from stagecoach.clusters.remote_trouble import refuse_odd
from stagecoach.core.errors import (
    FileMissing,
    NoSpace,
    NotAFile,
    PathRefused,
    PermissionRefused,
    SystemUnavailable,
)
from stagecoach.ports.files import FileKind, FileStatus

_Result = TypeVar("_Result")
_KINDS = {stat.S_IFREG: FileKind.FILE, stat.S_IFDIR: FileKind.DIRECTORY, stat.S_IFLNK: FileKind.SYMLINK}


class LocalFiles:
    """Every user is the one account this service has: the embedded mode serves one person."""

    async def home(self, username: str) -> str:
        return str(Path.home())

    async def status(self, username: str, path: str, *, follow_symlinks: bool) -> FileStatus | None:
        return await _off_loop(path, lambda: _status(path, follow_symlinks))

    async def real_path(self, username: str, path: str) -> str:
        return await _off_loop(path, lambda: os.path.realpath(path, strict=True))

    async def may(self, username: str, path: str, access: str) -> bool:
        if not access or set(access) - {"r", "w"}:
            raise ValueError(f"access is made of r and w, not {access!r}")
        wanted = (os.R_OK if "r" in access else 0) | (os.W_OK if "w" in access else 0)
        return await _off_loop(path, lambda: os.access(path, wanted))

    async def free_bytes(self, username: str, path: str) -> int | None:
        return await _off_loop(path, lambda: _free_bytes(path))

    async def make_directory(self, username: str, path: str) -> None:
        await _off_loop(path, lambda: _make_directory(path))

    async def write_file(self, username: str, path: str, content: bytes, mode: int) -> None:
        await _off_loop(path, lambda: _write_file(path, content, mode & 0o777))

    async def read_file(self, username: str, path: str, limit_bytes: int) -> bytes | None:
        return await _off_loop(path, lambda: _read_file(path, limit_bytes))

    async def remove_file(self, username: str, path: str) -> None:
        await _off_loop(path, lambda: Path(path).unlink(missing_ok=True))

    async def remove_tree(self, username: str, path: str) -> None:
        if posixpath.normpath(path) in {"/", ".", "//"}:
            raise PathRefused("A whole file system is not removed.")
        await _off_loop(path, lambda: _remove_tree(path))


async def _off_loop(path: str, work: Callable[[], _Result]) -> _Result:
    refuse_odd(path)

    def explained() -> _Result:
        with _explained(path):
            return work()

    return await asyncio.to_thread(explained)


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            raise FileMissing(f"There is no {path!r}.") from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise PermissionRefused(f"This is not permitted on {path!r} ({error.strerror}).") from error
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpace(f"The file system of {path!r} is full, or the quota is used up.") from error
        if error.errno in {errno.ENAMETOOLONG, errno.EINVAL}:
            raise PathRefused(f"The file system takes no such name: {path[:200]!r}.") from error
        if error.errno == errno.EISDIR:
            raise NotAFile(f"{path!r} is a directory.") from error
        raise SystemUnavailable(f"The file system refused an operation on {path!r} ({error.strerror}).") from error


def _status(path: str, follow_symlinks: bool) -> FileStatus | None:
    try:
        found = os.stat(path, follow_symlinks=follow_symlinks)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            return None
        raise
    return FileStatus(
        kind=_KINDS.get(stat.S_IFMT(found.st_mode), FileKind.OTHER),
        size_bytes=found.st_size,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        mtime_epoch_seconds=found.st_mtime,
    )


def _free_bytes(path: str) -> int:
    while True:
        try:
            space = os.statvfs(path)
            return space.f_bavail * space.f_frsize
        except (FileNotFoundError, NotADirectoryError):
            if path == (parent := os.path.dirname(path)):
                raise
            path = parent


def _make_directory(path: str) -> None:
    # Path.mkdir(parents=True) would give the parents the default mode.
    if os.path.isdir(path):
        return
    if os.path.lexists(path) and not os.path.islink(path):
        raise PathRefused(f"{path!r} is there and is not a directory.")
    parent = os.path.dirname(path.rstrip("/"))
    if parent and parent != path:
        _make_directory(parent)
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    if not os.path.isdir(path):
        raise PathRefused(f"{path!r} is there and is not a directory.")


def _write_file(path: str, content: bytes, mode: int) -> None:
    directory = os.path.dirname(path)
    beside = os.path.join(directory, f".stagecoach-{secrets.token_hex(8)}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, mode)
            file.flush()
            os.fsync(descriptor)
        os.rename(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise


def _read_file(path: str, limit_bytes: int) -> bytes | None:
    # O_NONBLOCK: opening a FIFO would wait for its writer.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotAFile(f"{path!r} is not a regular file.")
        return file.read(max(limit_bytes, 0))


def _remove_tree(path: str) -> None:
    if os.path.islink(path) or not os.path.isdir(path):
        Path(path).unlink(missing_ok=True)
        return
    # A directory of one's own may be closed even to oneself.
    with suppress(OSError):
        for directory, names, _ in os.walk(path):
            for name in names:
                inner = os.path.join(directory, name)
                if not os.path.islink(inner) and not os.access(inner, os.R_OK | os.W_OK | os.X_OK):
                    os.chmod(inner, 0o700)
    shutil.rmtree(path)
