"""The Files port over SFTP, as the user. Only ``may`` needs a command: SFTP has no word for it."""

from __future__ import annotations

import posixpath
import secrets
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncssh

from stagecoach.clusters.remote_trouble import explained, refuse_odd
from stagecoach.clusters.ssh_pool import SshPool
from stagecoach.core.errors import FileMissing, NotAFile, PathRefused, SystemUnavailable
from stagecoach.ports.files import FileKind, FileStatus
from stagecoach.settings import SystemSettings

# A tree is many round trips.
TREE_TIMEOUTS = 6
_KINDS = {stat.S_IFREG: FileKind.FILE, stat.S_IFDIR: FileKind.DIRECTORY, stat.S_IFLNK: FileKind.SYMLINK}


def kind_of(mode: int) -> FileKind:
    """What a mode's file type bits name."""
    return _KINDS.get(stat.S_IFMT(mode), FileKind.OTHER)


class RemoteFiles:
    """The files of one system."""

    def __init__(self, settings: SystemSettings, pool: SshPool) -> None:
        self._settings = settings
        self._pool = pool

    async def home(self, username: str) -> str:
        async with self._session(username, ".") as sftp:
            return _text(await sftp.realpath("."))

    async def status(self, username: str, path: str, *, follow_symlinks: bool) -> FileStatus | None:
        async with self._session(username, path) as sftp:
            with suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
                return _status(await sftp.stat(path, follow_symlinks=follow_symlinks))
            return None

    async def real_path(self, username: str, path: str) -> str:
        async with self._session(username, path) as sftp:
            # The server resolves a last name that is not there without a complaint.
            await sftp.stat(path)
            return _text(await sftp.realpath(path))

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
                except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):
                    # Somebody else made it in between? Generic failures are explained by looking.
                    attributes = await sftp.stat(each) if await sftp.lexists(each) else None
                    if attributes is None or kind_of(attributes.permissions or 0) is not FileKind.DIRECTORY:
                        raise

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

    async def remove_file(self, username: str, path: str) -> None:
        async with self._session(username, path) as sftp:
            with suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
                await sftp.remove(path)

    async def remove_tree(self, username: str, path: str) -> None:
        if posixpath.normpath(path) in {"/", ".", "//"}:
            raise PathRefused("A whole file system is not removed.")
        async with self._session(username, path, timeouts=TREE_TIMEOUTS) as sftp:
            await _remove_tree(sftp, path)

    @asynccontextmanager
    async def _session(self, username: str, path: str, *, timeouts: int = 1) -> AsyncIterator[asyncssh.SFTPClient]:
        refuse_odd(path)
        assert self._settings.ssh is not None  # noqa: S101 - the settings check it for this kind of system
        limit = timeouts * self._settings.ssh.command_timeout_seconds
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
    # Depth first without recursion: a directory is seen once to list it and once, empty, to remove it.
    try:
        attributes = await sftp.lstat(top)
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        return
    waiting = [(top, kind_of(attributes.permissions or 0) is FileKind.DIRECTORY, False)]
    while waiting:
        path, is_directory, is_empty = waiting.pop()
        with suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            if not is_directory:
                await sftp.remove(path)
            elif is_empty:
                await sftp.rmdir(path)
            else:
                waiting.append((path, True, True))
                for entry in await _entries(sftp, path):
                    name = _text(entry.filename)
                    if name not in {".", ".."}:
                        mode = entry.attrs.permissions
                        if mode is None:
                            mode = (await sftp.lstat(posixpath.join(path, name))).permissions or 0
                        # The listing shows links as links, so a link to a directory is removed, not entered.
                        waiting.append((posixpath.join(path, name), kind_of(mode) is FileKind.DIRECTORY, False))


async def _entries(sftp: asyncssh.SFTPClient, path: str) -> list[asyncssh.SFTPName]:
    try:
        return list(await sftp.readdir(path))
    except asyncssh.SFTPPermissionDenied:
        # A directory of the user's own may be closed even to its owner.
        await sftp.chmod(path, 0o700, follow_symlinks=False)
        return list(await sftp.readdir(path))


def _status(attributes: asyncssh.SFTPAttrs) -> FileStatus:
    mode = attributes.permissions or 0
    return FileStatus(
        kind=kind_of(mode),
        size_bytes=attributes.size or 0,
        mode=stat.S_IMODE(mode),
        uid=attributes.uid if attributes.uid is not None else -1,
        gid=attributes.gid if attributes.gid is not None else -1,
        mtime_epoch_seconds=float(attributes.mtime or 0),
    )


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
