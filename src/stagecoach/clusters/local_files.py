"""The Files port on this machine's own disk, as the account this service runs under, for the embedded mode."""

from __future__ import annotations

import asyncio
import errno
import grp
import os
import posixpath
import pwd
import secrets
import stat
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from stagecoach.clusters import local_anchors
from stagecoach.clusters.commanded_files import CommandedFiles
from stagecoach.clusters.local_commands import run_locally
from stagecoach.clusters.local_open import LocalNewFile, LocalOpenFile, create_file, open_file
from stagecoach.clusters.remote_trouble import refuse_odd
from stagecoach.clusters.ssh_pool import CommandResult
from stagecoach.core.errors import (
    FileExists,
    FileMissing,
    NoSpace,
    NotADirectory,
    NotAFile,
    OperationTooLong,
    PathRefused,
    PermissionRefused,
    SystemUnavailable,
)
from stagecoach.ports.files import AccountNames, AccountNumbers, DirectoryEntry, FileKind, FileStatus, FollowedLink, Listing

DEEP_PATH_BYTES = 1024
_Result = TypeVar("_Result")
_KINDS = {stat.S_IFREG: FileKind.FILE, stat.S_IFDIR: FileKind.DIRECTORY, stat.S_IFLNK: FileKind.SYMLINK}


class LocalFiles(CommandedFiles):
    """Every user is the one account this service has: the embedded mode serves one person."""

    async def home(self, username: str) -> str:
        return str(Path.home())

    async def status(self, username: str, path: str, *, follow_symlinks: bool) -> FileStatus | None:
        return await _off_loop(path, lambda: _status(path, follow_symlinks))

    async def real_path(self, username: str, path: str) -> str:
        return await _off_loop(path, lambda: os.path.realpath(path, strict=True))

    async def read_link(self, username: str, path: str) -> str:
        return await _off_loop(path, lambda: os.readlink(path))

    async def list_directory(self, username: str, path: str, *, limit: int, follow_symlinks: bool) -> Listing:
        return await _off_loop(path, lambda: _list_directory(path, limit, follow_symlinks))

    async def account_names(self, username: str, uids: Collection[int], gids: Collection[int]) -> AccountNames:
        return await asyncio.to_thread(_account_names, uids, gids)

    async def account_numbers(self, username: str) -> AccountNumbers:
        primary = os.getgid()
        return AccountNumbers(os.getuid(), (primary, *sorted(set(os.getgroups()) - {primary})))

    async def may(self, username: str, path: str, access: str) -> bool:
        if not access or set(access) - {"r", "w"}:
            raise ValueError(f"access is made of r and w, not {access!r}")
        wanted = (os.R_OK if "r" in access else 0) | (os.W_OK if "w" in access else 0)
        return await _off_loop(path, lambda: os.access(path, wanted))

    async def is_empty(self, username: str, path: str) -> bool:
        return await _off_loop(path, lambda: _is_empty(path))

    async def free_bytes(self, username: str, path: str) -> int | None:
        return await _off_loop(path, lambda: _free_bytes(path))

    async def make_directory(self, username: str, path: str) -> None:
        await _off_loop(path, lambda: _make_directory(path))

    async def write_file(self, username: str, path: str, content: bytes, mode: int) -> None:
        await _off_loop(path, lambda: _write_file(path, content, mode & 0o777))

    async def read_file(self, username: str, path: str, limit_bytes: int) -> bytes | None:
        return await _off_loop(path, lambda: _read_file(path, limit_bytes))

    async def remove_tree(self, username: str, path: str) -> None:
        if posixpath.normpath(path) in {"/", ".", "//"}:
            raise PathRefused("A whole file system is not removed.")
        await _off_loop(path, lambda: _remove_tree(path))

    @asynccontextmanager
    async def open_file(self, username: str, path: str, *, timeout_seconds: float) -> AsyncIterator[LocalOpenFile]:
        async with _within(path, timeout_seconds), open_file(path) as file:
            yield file

    @asynccontextmanager
    async def create_file(self, username: str, path: str, *, timeout_seconds: float) -> AsyncIterator[LocalNewFile]:
        async with _within(path, timeout_seconds), create_file(path) as file:
            yield file

    async def create_directory(self, username: str, path: str) -> None:
        await _off_loop(path, lambda: local_anchors.make_directory(path))

    async def create_symlink(self, username: str, path: str, target: str) -> None:
        refuse_odd(target)
        await _off_loop(path, lambda: local_anchors.make_symlink(path, target))

    async def change_mode(self, username: str, path: str, mode: int) -> None:
        await _off_loop(path, lambda: local_anchors.change_mode(path, mode & 0o7777))

    async def _run(self, username: str, words: Sequence[str], timeout_seconds: float) -> CommandResult:
        return await run_locally(words, timeout_seconds)


@asynccontextmanager
async def _within(path: str, timeout_seconds: float) -> AsyncIterator[None]:
    refuse_odd(path)
    try:
        async with asyncio.timeout(timeout_seconds):
            with _explained(path):
                yield
    except TimeoutError as error:
        raise OperationTooLong(f"Reading or writing {path!r} took longer than {timeout_seconds:g} s.") from error


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
            raise NoSpace(f"The file system of {path!r} is full, or your quota there is used up. Free space there.") from error
        if error.errno in {errno.ENAMETOOLONG, errno.EINVAL}:
            raise PathRefused(f"The file system takes no such name: {path[:200]!r}.") from error
        if error.errno == errno.EEXIST:
            raise FileExists(f"{path!r}: File exists.") from error
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
    return _status_of(found)


def _status_of(found: os.stat_result) -> FileStatus:
    return FileStatus(
        kind=_KINDS.get(stat.S_IFMT(found.st_mode), FileKind.OTHER),
        size_bytes=found.st_size,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        mtime_epoch_seconds=found.st_mtime,
        type_letter=stat.filemode(found.st_mode)[0],
    )


def _list_directory(path: str, limit: int, follow_symlinks: bool) -> Listing:
    if not stat.S_ISDIR(os.stat(path).st_mode):
        raise NotADirectory(f"{path!r} is not a directory.")
    entries: list[DirectoryEntry] = []
    with os.scandir(path) as found:
        for one in found:
            if len(entries) == limit:
                return Listing(tuple(entries), is_whole=False)
            # What goes away meanwhile is not there.
            with suppress(FileNotFoundError):
                status = _status_of(one.stat(follow_symlinks=False))
                is_link = status.kind is FileKind.SYMLINK
                followed = _followed(one.path) if is_link and follow_symlinks else None
                entries.append(DirectoryEntry(one.name, status, os.readlink(one.path) if is_link else None, followed))
    return Listing(tuple(entries), is_whole=True)


def _followed(path: str) -> FollowedLink | None:
    # Dangling, circular, or behind a closed door.
    with suppress(OSError):
        return FollowedLink(os.path.realpath(path, strict=True), _status_of(os.stat(path)))
    return None


def _account_names(uids: Collection[int], gids: Collection[int]) -> AccountNames:
    users, groups = {}, {}
    for uid in uids:
        with suppress(KeyError, OverflowError):
            users[uid] = pwd.getpwuid(uid).pw_name
    for gid in gids:
        with suppress(KeyError, OverflowError):
            groups[gid] = grp.getgrgid(gid).gr_name
    return AccountNames(users, groups)


def _is_empty(path: str) -> bool:
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is None
    except NotADirectoryError as error:
        raise NotADirectory(f"{path!r} is not a directory.") from error


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
    # What is there is looked at after each mkdir, never before: another may make the directory between two looks.
    with suppress(FileExistsError):
        try:
            os.mkdir(path, 0o700)
        except (FileNotFoundError, NotADirectoryError):
            _make_directory(os.path.dirname(path.rstrip("/")))
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


def _remove_tree(top: str) -> None:
    # Depth first without recursion, which a deep tree would exhaust: a directory is seen once to empty it and once,
    # empty, to remove it.
    waiting = [(top, False)]
    while waiting:
        path, is_empty = waiting.pop()
        with suppress(FileNotFoundError):
            if is_empty:
                os.rmdir(path)
            elif os.path.islink(path) or not os.path.isdir(path):
                os.unlink(path)
            else:
                waiting.append((path, True))
                waiting += ((inner, False) for inner in _emptied_of_files(path, top))


def _emptied_of_files(path: str, top: str) -> list[str]:
    """The directories in it. A directory of one's own may be closed even to oneself, or not to be written."""
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        with suppress(PermissionError):
            os.chmod(path, 0o700)
    directories = []
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
            elif len(os.fsencode(entry.path)) < len(os.fsencode(top)) + DEEP_PATH_BYTES:
                directories.append(entry.path)
            else:
                # Before it is too deep for a path to name: what is left of it goes on at the top.
                with suppress(PermissionError):
                    os.chmod(entry.path, 0o700)
                nearer = os.path.join(top, f".stagecoach-{secrets.token_hex(8)}.deep")
                os.rename(entry.path, nearer)
                directories.append(nearer)
    return directories
