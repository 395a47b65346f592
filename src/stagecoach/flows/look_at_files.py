"""Looks at a transfer's end on the system, as the user, before anything is made: exists, allowed, fits."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from stagecoach.core.errors import FileMissing, NoSpace, NotAFile, PathRefused, PermissionRefused
from stagecoach.core.names import temporary_name
from stagecoach.core.paths import MAX_PATH_BYTES, checked_file_path, expanded_roots, is_inside
from stagecoach.flows.toolbox import System
from stagecoach.ports.files import FileKind


@dataclass(frozen=True, slots=True)
class End:
    """A file as it will be opened: symlinks resolved, inside the roots."""

    path: str
    real_path: str
    size_bytes: int


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
        parent = posixpath.dirname(plain)
        parent_status = await files.status(username, parent, follow_symlinks=True)
        if parent_status is None:
            raise FileMissing(f"The directory {parent} does not exist (No such file or directory); make it first.")
        if parent_status.kind is not FileKind.DIRECTORY:
            raise NotAFile(f"{parent} is not a directory.")
        real_path = posixpath.join(await files.real_path(username, parent), posixpath.basename(plain))
    await _require_inside(system, username, real_path, roots)
    if target is not None and target.kind is not FileKind.FILE:
        raise NotAFile("The target is a directory or a special file; name a file.")
    directory = posixpath.dirname(real_path)
    if len(f"{directory}/{temporary_name('x' * 26)}".encode()) > MAX_PATH_BYTES:
        raise PathRefused("The directory's path is so long that no hidden file fits beside the target; use a shorter one.")
    if not await files.may(username, directory, "w"):
        raise PermissionRefused(f"Permission denied: you may not write in {directory}.")
    free = await files.free_bytes(username, directory)
    if free is not None and free < size_bytes:
        raise NoSpace(
            f"The file has {size_bytes} bytes but only {free} are free in {directory}; make room or choose another place."
        )
    return End(plain, real_path, size_bytes)


async def look_at_source(system: System, username: str, path: str) -> End:
    """What a download reads: a regular file that the user may read.

    Raises:
        PathRefused, FileMissing, NotAFile, PermissionRefused, SystemUnavailable
    """
    roots = expanded_roots(system.settings.roots, username)
    plain = checked_file_path(path, roots)
    status = await system.files.status(username, plain, follow_symlinks=True)
    if status is None:
        raise FileMissing(f"{plain}: No such file or directory.")
    real_path = await system.files.real_path(username, plain)
    await _require_inside(system, username, real_path, roots)
    if status.kind is FileKind.DIRECTORY:
        raise NotAFile(f"{plain} is a directory; name a file.")
    if status.kind is not FileKind.FILE:
        raise NotAFile(f"{plain} is not a regular file.")
    if not await system.files.may(username, real_path, "r"):
        raise PermissionRefused(f"Permission denied: you may not read {plain}.")
    return End(plain, real_path, status.size_bytes)


async def _require_inside(system: System, username: str, real_path: str, roots: tuple[str, ...]) -> None:
    """A root may itself be a symlink, so the resolved path may be inside the resolved roots instead."""
    try:
        real_path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PathRefused(
            "The path leads, through a symbolic link, to a name that is not valid UTF-8; give the link another target."
        ) from error
    if is_inside(real_path, roots):
        return
    resolved = []
    for root in roots:
        if await system.files.status(username, root, follow_symlinks=True) is not None:
            resolved.append(await system.files.real_path(username, root))
    if not is_inside(real_path, resolved):
        raise PathRefused("The path leads, through a symbolic link, outside this system's file systems.")
