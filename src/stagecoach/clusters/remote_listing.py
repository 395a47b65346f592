"""Lists a directory over SFTP: page by page up to a limit, then what its symlinks say, many questions at once."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

import asyncssh

from stagecoach.clusters.remote_status import kind_of, status_of, text_of
from stagecoach.ports.files import DirectoryEntry, FileKind, FollowedLink, Listing

# Questions under way on one session; the server works them off one by one.
QUESTIONS_AT_ONCE = 64

_GONE = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)


async def list_directory(sftp: asyncssh.SFTPClient, path: str, limit: int, follow_symlinks: bool) -> Listing:
    """At most ``limit`` entries. SFTP's own errors pass through."""
    entries: list[DirectoryEntry] = []
    asking: list[str] = []
    is_whole = True
    # Closed before it ends, it gives its handle back to the server.
    async with aclosing(cast(AsyncGenerator[asyncssh.SFTPName, None], sftp.scandir(path))) as found:
        async for one in found:
            name = text_of(one.filename)
            if name in {".", ".."}:
                continue
            if len(entries) + len(asking) == limit:
                is_whole = False
                break
            mode = one.attrs.permissions
            # The protocol lets a server leave attributes out of a listing.
            if mode is None or kind_of(mode) is FileKind.SYMLINK:
                asking.append(name)
            else:
                entries.append(DirectoryEntry(name, status_of(one.attrs)))
    for start in range(0, len(asking), QUESTIONS_AT_ONCE):
        now = asking[start : start + QUESTIONS_AT_ONCE]
        answers = await asyncio.gather(*(_entry(sftp, path, name, follow_symlinks) for name in now))
        entries += [entry for entry in answers if entry is not None]
    return Listing(tuple(entries), is_whole)


async def _entry(sftp: asyncssh.SFTPClient, directory: str, name: str, follow_symlinks: bool) -> DirectoryEntry | None:
    path = posixpath.join(directory, name)
    try:
        status = status_of(await sftp.lstat(path))
        if status.kind is not FileKind.SYMLINK:
            return DirectoryEntry(name, status)
        target = text_of(await sftp.readlink(path))
    except _GONE:
        return None  # it went away since it was listed
    return DirectoryEntry(name, status, target, await _followed(sftp, path) if follow_symlinks else None)


async def _followed(sftp: asyncssh.SFTPClient, path: str) -> FollowedLink | None:
    try:
        status = status_of(await sftp.stat(path))
        return FollowedLink(text_of(await sftp.realpath(path)), status)
    except (*_GONE, asyncssh.SFTPPermissionDenied, asyncssh.SFTPFailure):
        # Dangling, behind a closed door, or circular (for which version 3 has no word but Failure).
        return None
