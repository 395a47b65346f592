"""Looks at a transfer's end on the system, as the user, before anything is made: exists, allowed, fits.

A directory that travels as an archive is never written into: it is made beside its place and takes it when it is whole.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from stagecoach.core.errors import (
    FileMissing,
    NoSpace,
    NotADirectory,
    NotAFile,
    PathRefused,
    PermissionRefused,
    TargetExists,
)
from stagecoach.core.names import temporary_name
from stagecoach.core.paths import (
    MAX_PATH_BYTES,
    checked_directory_path,
    checked_file_path,
    checked_path,
    expanded_roots,
    is_inside,
)
from stagecoach.flows.toolbox import System
from stagecoach.ports.files import FileKind, FileStatus


@dataclass(frozen=True, slots=True)
class End:
    """A file or directory as it will be opened: symlinks resolved, inside the roots. A directory's size is not known."""

    path: str
    real_path: str
    size_bytes: int | None


async def look_at_target(system: System, username: str, path: str, size_bytes: int) -> End:
    """Where an upload goes. The directory exists and may be written, the file fits, an existing target is a file.

    Raises:
        PathRefused, FileMissing, NotAFile, PermissionRefused, NoSpace, SystemUnavailable
    """
    roots = expanded_roots(system.settings.roots, username)
    plain = checked_file_path(path, roots)
    files = system.files
    target = await files.status(username, plain, follow_symlinks=False)
    if target is not None and target.kind is FileKind.SYMLINK:
        pointed = await files.status(username, plain, follow_symlinks=True)
        if pointed is None:
            raise NotAFile("The target is a symbolic link to nothing; remove it or name the file it should be.")
        real_path, target = await files.real_path(username, plain), pointed
    else:
        real_path = await in_its_directory(system, username, plain)
    await require_inside(system, username, real_path, roots)
    if target is not None and target.kind is not FileKind.FILE:
        raise NotAFile("The target is a directory or a special file; name a file.")
    await require_room(system, username, real_path, size_bytes)
    return End(plain, real_path, size_bytes)


async def look_at_new_directory(system: System, username: str, path: str, size_bytes: int) -> End:
    """Where an upload's archive goes: its parent exists and may be written, and nothing but an empty directory is there.

    Raises:
        PathRefused, FileMissing, NotAFile, TargetExists, PermissionRefused, NoSpace, SystemUnavailable
    """
    roots = expanded_roots(system.settings.roots, username)
    plain = checked_directory_path(path, roots)
    real_path = await in_its_directory(system, username, plain)
    await require_inside(system, username, real_path, roots)
    target = await system.files.status(username, plain, follow_symlinks=False)
    if target is not None and target.kind is not FileKind.DIRECTORY:
        raise TargetExists(f"{plain} exists and is no directory; name a directory that does not exist yet.")
    if target is not None and not await system.files.is_empty(username, plain):
        raise TargetExists(f"The directory {plain} exists and is not empty; name one that does not exist yet.")
    await require_room(system, username, real_path, size_bytes)
    return End(plain, real_path, size_bytes)


async def in_its_directory(system: System, username: str, plain: str) -> str:
    """The real path of a name that may not exist yet; its directory does."""
    parent = posixpath.dirname(plain)
    status = await system.files.status(username, parent, follow_symlinks=True)
    if status is None:
        raise FileMissing(f"The directory {parent} does not exist (No such file or directory); make it first.")
    if status.kind is not FileKind.DIRECTORY:
        raise NotAFile(f"{parent} is not a directory.")
    return posixpath.join(await system.files.real_path(username, parent), posixpath.basename(plain))


async def require_room(system: System, username: str, real_path: str, size_bytes: int) -> None:
    """Beside ``real_path`` the user may write, and so many bytes fit."""
    files, directory = system.files, posixpath.dirname(real_path)
    if len(f"{directory}/{temporary_name('x' * 26)}".encode()) > MAX_PATH_BYTES:
        raise PathRefused("The directory's path is so long that no hidden file fits beside the target; use a shorter one.")
    if not await files.may(username, directory, "w"):
        raise PermissionRefused(f"Permission denied: you may not write in {directory}.")
    free = await files.free_bytes(username, directory)
    if free is not None and free < size_bytes:
        raise NoSpace(
            f"The upload has {size_bytes} bytes but only {free} are free in {directory}; make room or choose another place."
        )


async def look_at_source(system: System, username: str, path: str) -> End:
    """What a download reads: a regular file that the user may read.

    Raises:
        PathRefused, FileMissing, NotAFile, PermissionRefused, SystemUnavailable
    """
    roots = expanded_roots(system.settings.roots, username)
    plain = checked_file_path(path, roots)
    real_path, status = await _found(system, username, plain, roots)
    if status.kind is FileKind.DIRECTORY:
        raise NotAFile(f'{plain} is a directory; name a file, or ask for all of it with archive: "tar".')
    if status.kind is not FileKind.FILE:
        raise NotAFile(f"{plain} is not a regular file.")
    await require_readable(system, username, plain, real_path)
    return End(plain, real_path, status.size_bytes)


async def look_at_source_directory(system: System, username: str, path: str) -> End:
    """What a download with an archive reads: a directory that the user may read.

    Raises:
        PathRefused, FileMissing, NotADirectory, PermissionRefused, SystemUnavailable
    """
    roots = expanded_roots(system.settings.roots, username)
    plain = checked_path(path, roots)
    real_path, status = await _found(system, username, plain, roots)
    if status.kind is not FileKind.DIRECTORY:
        raise NotADirectory(f"{plain} is not a directory; ask for a file without archive.")
    await require_readable(system, username, plain, real_path)
    return End(plain, real_path, None)


async def _found(system: System, username: str, plain: str, roots: tuple[str, ...]) -> tuple[str, FileStatus]:
    status = await system.files.status(username, plain, follow_symlinks=True)
    if status is None:
        raise FileMissing(f"{plain}: No such file or directory.")
    real_path = await system.files.real_path(username, plain)
    await require_inside(system, username, real_path, roots)
    return real_path, status


async def require_readable(system: System, username: str, plain: str, real_path: str) -> None:
    if not await system.files.may(username, real_path, "r"):
        raise PermissionRefused(f"Permission denied: you may not read {plain}.")


async def require_inside(system: System, username: str, real_path: str, roots: tuple[str, ...]) -> None:
    """A root may itself be a symlink, so the resolved path may be inside the resolved roots instead."""
    try:
        real_path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PathRefused(
            "The path leads, through a symbolic link, to a name that is not valid UTF-8; give the link another target."
        ) from error
    if is_inside(real_path, roots):
        return
    if not is_inside(real_path, await resolved_roots(system, username, roots)):
        raise PathRefused("The path leads, through a symbolic link, outside this system's file systems.")


async def require_no_root(system: System, username: str, real_path: str) -> None:
    """What goes away neither is nor holds a whole file system, by whatever name. Raises PathRefused."""
    roots = expanded_roots(system.settings.roots, username)
    for root in (*map(posixpath.normpath, roots), *await resolved_roots(system, username, roots)):
        if is_inside(root, [real_path]):
            raise PathRefused("The path is, or holds, a whole file system; give the path of something in it.")


async def is_same_file(system: System, username: str, real_path: str, other: str) -> bool:
    """Whether two resolved paths, of things that exist, are names of one file."""
    one, two = [await system.files.full_status(username, each, follow_symlinks=False) for each in (real_path, other)]
    return real_path == other or (one.device, one.inode) == (two.device, two.inode)


async def resolved_roots(system: System, username: str, roots: tuple[str, ...]) -> list[str]:
    """Where the roots that exist really are."""
    resolved = []
    for root in roots:
        if await system.files.status(username, root, follow_symlinks=True) is not None:
            resolved.append(await system.files.real_path(username, root))
    return resolved


async def root_of(system: System, username: str, real_path: str) -> str | None:
    """The root that a resolved path is in: below it the job follows no link that came since. None: it is gone."""
    roots: Sequence[str] = expanded_roots(system.settings.roots, username)
    if not is_inside(real_path, roots):
        # A root that is itself a symlink: the path is inside what it leads to.
        roots = await resolved_roots(system, username, tuple(roots))
    return next((root for root in roots if is_inside(real_path, [root])), None)
