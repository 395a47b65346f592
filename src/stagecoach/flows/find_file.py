"""Finds what a path names, as the user: inside the system's file systems, with every symbolic link resolved first."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from stagecoach.core.errors import FileMissing, NotADirectory, NotAFile, PathRefused
from stagecoach.core.paths import checked_path, expanded_roots, is_inside
from stagecoach.flows.look_at_files import resolved_roots
from stagecoach.flows.toolbox import System
from stagecoach.ports.files import FileKind, FileStatus


@dataclass(frozen=True, slots=True)
class FoundFile:
    """``plain`` is the path as it was asked for, ``real_path`` what it leads to. May hold surrogate escapes."""

    plain: str
    real_path: str
    status: FileStatus


@dataclass(frozen=True, slots=True)
class Place:
    """A name in a directory that exists; ``status`` (of the name itself, no link followed) is None where nothing is."""

    plain: str
    real_path: str
    status: FileStatus | None


async def find_file(system: System, username: str, path: str) -> FoundFile:
    """What a path leads to, whatever kind it is.

    Raises:
        PathRefused, FileMissing, PermissionRefused, SystemUnavailable
    """
    roots = expanded_roots(system.settings.roots, username)
    plain = checked_path(path, roots, any_bytes=True)
    status = await system.files.status(username, plain, follow_symlinks=True)
    if status is None:
        raise FileMissing(f"{plain!r}: No such file or directory.")
    real_path = await system.files.real_path(username, plain)
    await require_inside(system, username, real_path)
    if path.endswith("/") and status.kind is not FileKind.DIRECTORY:
        raise NotADirectory(f"{plain!r}: Not a directory.")
    return FoundFile(plain, real_path, status)


async def find_regular_file(system: System, username: str, path: str) -> FoundFile:
    """Raises as :func:`find_file`, and NotAFile."""
    found = await find_file(system, username, path)
    if found.status.kind is FileKind.DIRECTORY:
        raise NotAFile(f"{found.plain!r}: Is a directory.")
    if found.status.kind is not FileKind.FILE:
        raise NotAFile(f"{found.plain!r} is not a regular file.")
    return found


async def find_directory(system: System, username: str, path: str) -> FoundFile:
    """Raises as :func:`find_file`, and NotADirectory."""
    found = await find_file(system, username, path)
    if found.status.kind is not FileKind.DIRECTORY:
        raise NotADirectory(f"{found.plain!r}: Not a directory.")
    return found


async def find_place(system: System, username: str, path: str) -> Place:
    """A name that may not exist yet, or a link itself; its directory is resolved.

    Raises:
        PathRefused: also for a whole file system. FileMissing, NotADirectory: the directory. PermissionRefused,
        SystemUnavailable
    """
    roots = expanded_roots(system.settings.roots, username)
    plain = checked_path(path, roots, any_bytes=True)
    if is_root(system, username, plain):
        raise PathRefused("The path is a whole file system; give the path of something in it.")
    parent, name = posixpath.split(plain)
    directory = await system.files.status(username, parent, follow_symlinks=True)
    if directory is None:
        raise FileMissing(f"{plain!r}: No such file or directory: {parent!r} does not exist.")
    if directory.kind is not FileKind.DIRECTORY:
        raise NotADirectory(f"{parent!r}: Not a directory.")
    real_path = posixpath.join(await system.files.real_path(username, parent), name)
    await require_inside(system, username, real_path)
    return Place(plain, real_path, await system.files.status(username, plain, follow_symlinks=False))


def is_root(system: System, username: str, path: str) -> bool:
    """Whether a path is a whole file system."""
    roots = expanded_roots(system.settings.roots, username)
    return posixpath.normpath("/" + path.lstrip("/")) in {posixpath.normpath(root) for root in roots}


async def require_inside(system: System, username: str, real_path: str) -> None:
    """A root may itself be a symlink, so the resolved path may be inside the resolved roots instead. Raises PathRefused."""
    roots = expanded_roots(system.settings.roots, username)
    if not is_inside(real_path, roots) and not is_inside(real_path, await resolved_roots(system, username, roots)):
        raise PathRefused("The path leads, through a symbolic link, outside this system's file systems.")
