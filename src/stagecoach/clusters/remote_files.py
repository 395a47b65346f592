"""The Files port over SFTP, as the user; by commands (``commanded_files``, rights, names of accounts) where SFTP has no word."""

from __future__ import annotations

import asyncio
import posixpath
import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager, suppress

import asyncssh

from stagecoach.clusters.account_names import AccountBook
from stagecoach.clusters.commanded_files import CommandedFiles
from stagecoach.clusters.remote_listing import list_directory
from stagecoach.clusters.remote_open import RemoteNewFile, RemoteOpenFile, create_file, open_file, require_same_directory
from stagecoach.clusters.remote_status import kind_of, status_of, text_of
from stagecoach.clusters.remote_trouble import explained, refuse_odd
from stagecoach.clusters.ssh_pool import AnswerLate, CommandResult, SshPool
from stagecoach.core.anchored_commands import REPLACED
from stagecoach.core.errors import (
    FileExists,
    FileMissing,
    NotADirectory,
    NotAFile,
    OperationTooLong,
    PathRefused,
    SystemUnavailable,
)
from stagecoach.ports.files import AccountNames, AccountNumbers, FileKind, FileStatus, Listing
from stagecoach.settings import SystemSettings

# A tree, or a directory of many names, is many round trips.
TREE_TIMEOUTS = 6
REMOVED_AT_ONCE = 64
DEEP_PATH_BYTES = 1024


class RemoteFiles(CommandedFiles):
    """The files of one system."""

    def __init__(self, settings: SystemSettings, pool: SshPool) -> None:
        self._settings = settings
        self._pool = pool
        self._accounts = AccountBook(pool)

    async def home(self, username: str) -> str:
        async with self._session(username, ".") as sftp:
            return text_of(await sftp.realpath("."))

    async def status(self, username: str, path: str, *, follow_symlinks: bool) -> FileStatus | None:
        async with self._session(username, path) as sftp:
            with suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
                return status_of(await sftp.stat(path, follow_symlinks=follow_symlinks))
            return None

    async def real_path(self, username: str, path: str) -> str:
        async with self._session(username, path) as sftp:
            # The server resolves a last name that is not there without a complaint.
            await sftp.stat(path)
            return text_of(await sftp.realpath(path))

    async def read_link(self, username: str, path: str) -> str:
        async with self._session(username, path) as sftp:
            return text_of(await sftp.readlink(path))

    async def list_directory(self, username: str, path: str, *, limit: int, follow_symlinks: bool) -> Listing:
        async with self._session(username, path, timeouts=TREE_TIMEOUTS) as sftp:
            try:
                return await list_directory(sftp, path, limit, follow_symlinks)
            except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPFailure):
                # What is said of a file that is no directory, depends on the server.
                if kind_of((await sftp.stat(path)).permissions or 0) is not FileKind.DIRECTORY:
                    raise NotADirectory(f"{path!r} is not a directory.") from None
                raise

    async def account_numbers(self, username: str) -> AccountNumbers:
        return await self._accounts.numbers(username)

    async def account_names(self, username: str, uids: Collection[int], gids: Collection[int]) -> AccountNames:
        return await self._accounts.names(username, uids, gids)

    async def may(self, username: str, path: str, access: str) -> bool:
        refuse_odd(path)
        if not access or set(access) - {"r", "w"}:
            raise ValueError(f"access is made of r and w, not {access!r}")
        for letter in access:
            result = await self._pool.run(username, ["test", f"-{letter}", path])
            if result.exit_status not in {0, 1}:
                raise SystemUnavailable(f"{self._settings.name} could not tell the rights on {path!r}.")
            if result.exit_status == 1:
                return False
        return True

    async def is_empty(self, username: str, path: str) -> bool:
        async with self._session(username, path) as sftp:
            if kind_of((await sftp.stat(path)).permissions or 0) is not FileKind.DIRECTORY:
                raise NotADirectory(f"{path!r} is not a directory.")
            async with aclosing(sftp.scandir(path)) as entries:  # type: ignore[type-var]
                async for entry in entries:
                    if text_of(entry.filename) not in {".", ".."}:
                        return False
            return True

    async def free_bytes(self, username: str, path: str) -> int | None:
        async with self._session(username, path) as sftp:
            while True:
                try:
                    space = await sftp.statvfs(path)
                    return int(space.bavail) * int(space.frsize)
                except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
                    if path == (parent := posixpath.dirname(path)):
                        raise
                    path = parent
                except asyncssh.SFTPOpUnsupported:
                    return None

    async def make_directory(self, username: str, path: str) -> None:
        async with self._session(username, path) as sftp:
            missing = []
            while True:
                try:
                    if kind_of((await sftp.stat(path)).permissions or 0) is not FileKind.DIRECTORY:
                        raise PathRefused(f"{path!r} is there and is not a directory.")
                    break
                except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
                    missing.append(path)
                    if path == (parent := posixpath.dirname(path)):
                        raise
                    path = parent
            for each in reversed(missing):
                try:
                    await sftp.mkdir(each, asyncssh.SFTPAttrs(permissions=0o700))
                except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists) as error:
                    # Somebody else made it in between? Generic failures are explained by looking.
                    attributes = await sftp.stat(each) if await sftp.lexists(each) else None
                    if attributes is None or kind_of(attributes.permissions or 0) is not FileKind.DIRECTORY:
                        raise await explained(sftp, error, each, self._settings.name, needed_bytes=1) from error

    async def write_file(self, username: str, path: str, content: bytes, mode: int) -> None:
        # Its length does not depend on the target's name, which may have all of the 255 bytes already.
        beside = posixpath.join(posixpath.dirname(path), f".stagecoach-{secrets.token_hex(8)}.new")
        async with self._session(username, path) as sftp:
            try:
                async with sftp.open(beside, "xb", asyncssh.SFTPAttrs(permissions=mode & 0o777)) as file:
                    await file.write(content)
                    # The user's umask may have taken something from the mode.
                    await file.chmod(mode & 0o777)
                    with suppress(asyncssh.SFTPOpUnsupported):
                        await file.fsync()
                await sftp.posix_rename(beside, path)
            except BaseException as error:
                trouble = None
                if isinstance(error, asyncssh.SFTPFailure):
                    # Looked into before the unfinished file is removed: then there would be space again.
                    trouble = await explained(sftp, error, path, self._settings.name, needed_bytes=len(content))
                with suppress(OSError, asyncssh.Error):
                    await sftp.remove(beside)
                if trouble is not None:
                    raise trouble from error
                raise

    async def read_file(self, username: str, path: str, limit_bytes: int) -> bytes | None:
        async with self._session(username, path) as sftp:
            try:
                # Looked at first: opening a FIFO would wait for its writer.
                attributes = await sftp.stat(path)
                if kind_of(attributes.permissions or 0) is not FileKind.FILE:
                    raise NotAFile(f"{path!r} is not a regular file.")
                async with sftp.open(path, "rb") as file:
                    content = await file.read(max(limit_bytes, 0))
                    return content if isinstance(content, bytes) else content.encode()
            except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
                return None

    async def remove_tree(self, username: str, path: str) -> None:
        if posixpath.normpath(path) in {"/", ".", "//"}:
            raise PathRefused("A whole file system is not removed.")
        async with self._session(username, path, timeouts=TREE_TIMEOUTS) as sftp:
            await _remove_tree(sftp, path)

    @asynccontextmanager
    async def open_file(self, username: str, path: str, *, timeout_seconds: float) -> AsyncIterator[RemoteOpenFile]:
        async with self._session(username, path, timeout_seconds=timeout_seconds) as sftp, open_file(sftp, path) as file:
            yield file

    @asynccontextmanager
    async def create_file(self, username: str, path: str, *, timeout_seconds: float) -> AsyncIterator[RemoteNewFile]:
        async with (
            self._session(username, path, timeout_seconds=timeout_seconds) as sftp,
            create_file(sftp, path, self._settings.name) as file,
        ):
            yield file

    async def create_directory(self, username: str, path: str) -> None:
        async with self._making(username, path) as sftp:
            await sftp.mkdir(path)

    async def create_symlink(self, username: str, path: str, target: str) -> None:
        refuse_odd(target)
        async with self._making(username, path) as sftp:
            await sftp.symlink(target, path)

    async def change_mode(self, username: str, path: str, mode: int) -> None:
        async with self._session(username, path) as sftp:
            await require_same_directory(sftp, path)
            if kind_of((await sftp.lstat(path)).permissions or 0) is FileKind.SYMLINK:
                raise PathRefused(f"{path!r} {REPLACED}.")
            await sftp.chmod(path, mode & 0o7777)

    async def _run(self, username: str, words: Sequence[str], timeout_seconds: float) -> CommandResult:
        try:
            return await self._pool.run(username, words, timeout_seconds=timeout_seconds)
        except AnswerLate as error:
            raise OperationTooLong(f"{error.message} Have it done by a job (transfer, compute).") from error

    @asynccontextmanager
    async def _making(self, username: str, path: str) -> AsyncIterator[asyncssh.SFTPClient]:
        async with self._session(username, path) as sftp:
            await require_same_directory(sftp, path)
            try:
                yield sftp
            except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists) as error:
                if await sftp.lexists(path):
                    raise FileExists(f"{path!r}: File exists.") from error
                raise

    @asynccontextmanager
    async def _session(
        self, username: str, path: str, *, timeouts: int = 1, timeout_seconds: float | None = None
    ) -> AsyncIterator[asyncssh.SFTPClient]:
        refuse_odd(path)
        assert self._settings.ssh is not None  # noqa: S101 - the settings check it for this kind of system
        limit = timeout_seconds or timeouts * self._settings.ssh.command_timeout_seconds
        async with self._pool.sftp(username, timeout_seconds=limit) as sftp:
            try:
                yield sftp
            except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection):
                raise  # the pool's to explain
            except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath) as error:
                raise FileMissing(f"There is no {path!r} on {self._settings.name}.") from error
            except asyncssh.SFTPError as error:
                raise await explained(sftp, error, path, self._settings.name) from error


async def _remove_tree(sftp: asyncssh.SFTPClient, top: str) -> None:
    # Depth first without recursion: a directory is seen once to empty it and once, empty, to remove it.
    try:
        mode = (await sftp.lstat(top)).permissions or 0
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        return
    if kind_of(mode) is not FileKind.DIRECTORY:
        with suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            await sftp.remove(top)
        return
    waiting = [(top, mode, False)]
    while waiting:
        path, mode, is_empty = waiting.pop()
        with suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            if is_empty:
                await sftp.rmdir(path)
            else:
                await _open_up(sftp, path, mode)
                waiting.append((path, mode, True))
                waiting += [(inner, mode, False) for inner, mode in await _emptied_of_files(sftp, path, top)]


async def _open_up(sftp: asyncssh.SFTPClient, path: str, mode: int) -> None:
    """A directory of the user's own may be closed even to its owner, or not to be written."""
    if mode & 0o700 != 0o700:
        with suppress(asyncssh.SFTPPermissionDenied):
            await sftp.chmod(path, 0o700, follow_symlinks=False)


async def _emptied_of_files(sftp: asyncssh.SFTPClient, path: str, top: str) -> list[tuple[str, int]]:
    """The directories in it, with their modes."""
    directories: list[tuple[str, int]] = []
    files: list[str] = []
    async with aclosing(sftp.scandir(path)) as entries:  # type: ignore[type-var]
        async for entry in entries:
            name = text_of(entry.filename)
            if name in {".", ".."}:
                continue
            inner, mode = posixpath.join(path, name), entry.attrs.permissions
            if mode is None:
                mode = (await sftp.lstat(inner)).permissions or 0
            # The listing shows links as links, so a link to a directory is removed, not entered.
            if kind_of(mode) is FileKind.DIRECTORY:
                directories.append((await _nearer(sftp, inner, mode, top), mode))
            else:
                files.append(inner)
            if len(files) == REMOVED_AT_ONCE:
                await _remove_all(sftp, files)
    await _remove_all(sftp, files)
    return directories


async def _nearer(sftp: asyncssh.SFTPClient, path: str, mode: int, top: str) -> str:
    """Moved to the top before it is too deep for a path to name."""
    if len(path.encode("utf-8", "surrogateescape")) < len(top.encode("utf-8", "surrogateescape")) + DEEP_PATH_BYTES:
        return path
    await _open_up(sftp, path, mode)
    nearer = posixpath.join(top, f".stagecoach-{secrets.token_hex(8)}.deep")
    await sftp.rename(path, nearer)
    return nearer


async def _remove_all(sftp: asyncssh.SFTPClient, files: list[str]) -> None:
    async def remove(path: str) -> None:
        with suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            await sftp.remove(path)

    # Many requests on their way together: a tree of small files costs its round trips otherwise.
    for removed in await asyncio.gather(*(remove(path) for path in files), return_exceptions=True):
        if removed is not None:
            raise removed
    files.clear()
