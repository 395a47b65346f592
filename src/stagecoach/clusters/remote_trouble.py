"""What an SFTP error means.

Version 3 says "Failure" to a full disk, a name that exists and a read-only file system alike: somebody has to look.
"""

from __future__ import annotations

import posixpath
import stat

import asyncssh

from stagecoach.core.errors import (
    NoSpace,
    NotAFile,
    PathRefused,
    PermissionRefused,
    StagecoachError,
    SystemUnavailable,
)

_READ_ONLY = 1  # SSH_FXE_STATVFS_ST_RDONLY
_A_LITTLE_BYTES = 64 * 1024


def refuse_odd(path: str) -> None:
    """Paths that cannot be carried unchanged. Raises PathRefused."""
    if not path or "\0" in path:
        raise PathRefused("The path is empty or has a NUL character in it.")
    try:
        path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise PathRefused("The path is not valid Unicode, so it cannot be carried unchanged.") from error


async def explained(
    sftp: asyncssh.SFTPClient, error: asyncssh.SFTPError, path: str, system_name: str, *, needed_bytes: int = 0
) -> StagecoachError:
    """The failure of an operation on ``path`` in our words; ``needed_bytes`` of one that writes."""
    if isinstance(error, asyncssh.SFTPPermissionDenied):
        return PermissionRefused(
            f"Permission denied: {system_name} does not permit this on {path!r}; give yourself the right to its directory and"
            " try again."
        )
    if isinstance(error, asyncssh.SFTPBadMessage):
        # OpenSSH's word for ENAMETOOLONG and EINVAL.
        return PathRefused(f"{system_name} takes no such name: {path[:200]!r}.")
    if isinstance(error, asyncssh.SFTPNoSpaceOnFilesystem | asyncssh.SFTPQuotaExceeded):
        return NoSpace(_no_space(path, system_name, "is full, or your quota there is used up"))
    if isinstance(error, asyncssh.SFTPOpUnsupported):
        return SystemUnavailable(f"The SFTP server of {system_name} lacks something that is needed ({error.reason}).")
    try:
        space = await sftp.statvfs(posixpath.dirname(path) or "/")
        if space.flags & _READ_ONLY:
            return PermissionRefused(
                f"The file system of {path!r} on {system_name} is read-only; try again when it can be written to."
            )
        if space.bavail * space.frsize < max(_A_LITTLE_BYTES, needed_bytes) or (space.files and not space.favail):
            return NoSpace(_no_space(path, system_name, "is full"))
        if await sftp.lexists(path) and stat.S_ISDIR((await sftp.lstat(path)).permissions or 0):
            return NotAFile(f"{path!r} is a directory.")
    except asyncssh.SFTPError:
        pass
    if needed_bytes:
        # Room there is, and writing is allowed: of what is left, only a quota is common.
        return NoSpace(_no_space(path, system_name, "takes nothing more, though it is not full: your quota there is used up"))
    return SystemUnavailable(
        f"The file system of {system_name} refused an operation on {path!r} without a reason; a used-up quota looks like this."
    )


def _no_space(path: str, system_name: str, what: str) -> str:
    return f"The file system of {path!r} on {system_name} {what}. Free space there and try again."
