"""Looks at both ends of an operation on the system, as the user, before anything is made; decides as ``cp`` and ``mv`` do."""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from stagecoach.core.errors import FileMissing, NotADirectory, NotAFile, PathRefused, PermissionRefused, TargetExists
from stagecoach.core.operations import Operation, OperationOptions
from stagecoach.core.paths import checked_directory_path, checked_file_path, checked_path, expanded_roots, is_inside
from stagecoach.flows.look_at_files import (
    in_its_directory,
    is_same_file,
    look_at_source,
    look_at_target,
    require_inside,
    require_no_root,
    require_readable,
    require_room,
)
from stagecoach.flows.toolbox import System
from stagecoach.ports.files import FileKind, FileStatus


@dataclass(frozen=True, slots=True)
class OperationEnds:
    """``path`` is the target, or what is removed. Real paths are resolved, inside the roots."""

    path: str
    real_path: str
    options: OperationOptions
    source_path: str | None = None
    real_source_path: str | None = None
    size_bytes: int | None = None
    """Of a source that is one file."""


@dataclass(frozen=True, slots=True)
class _Source:
    path: str
    real_path: str
    status: FileStatus

    @property
    def is_directory(self) -> bool:
        return self.status.kind is FileKind.DIRECTORY

    @property
    def size_bytes(self) -> int | None:
        return self.status.size_bytes if self.status.kind is FileKind.FILE else None


async def look_at_operation(
    system: System, username: str, operation: Operation, source: str | None, path: str, options: OperationOptions
) -> OperationEnds:
    """Everything that can be told before the job runs.

    Raises:
        PathRefused, FileMissing, NotAFile, NotADirectory, TargetExists, PermissionRefused, NoSpace, SystemUnavailable
    """
    return await _LOOKS[operation](system, username, source or "", path, options)


async def _look_at_removal(system: System, username: str, _source: str, path: str, options: OperationOptions) -> OperationEnds:
    thing = await _thing(system, username, path, follow=False)
    await _require_changeable(system, username, thing)
    return OperationEnds(thing.path, thing.real_path, options, size_bytes=thing.size_bytes)


async def _look_at_move(system: System, username: str, source: str, path: str, options: OperationOptions) -> OperationEnds:
    thing = await _thing(system, username, source, follow=False)
    await _require_changeable(system, username, thing)
    plain = await _final_path(system, username, thing, path)
    real_path = await in_its_directory(system, username, plain)
    await _require_other_place(system, username, thing, real_path)
    there = await system.files.status(username, plain, follow_symlinks=False)
    if there is not None:
        await _require_not_its_end(system, username, thing, real_path)
        is_directory = there.kind is FileKind.DIRECTORY
        if thing.is_directory and not is_directory:
            raise TargetExists(f"{plain} exists and is no directory; {thing.path}, which is one, cannot take its place.")
        if thing.is_directory and not await system.files.is_empty(username, plain):
            raise TargetExists(f"{plain} exists and is not empty (Directory not empty); name another place.")
        if is_directory and not thing.is_directory:
            raise NotAFile(f"{plain} is a directory; {thing.path}, which is none, cannot take its place.")
    # Within a file system nothing needs room; whether it is one, the job will see.
    await require_room(system, username, real_path, 0)
    return OperationEnds(plain, real_path, options, thing.path, thing.real_path, thing.size_bytes)


async def _look_at_copy(system: System, username: str, source: str, path: str, options: OperationOptions) -> OperationEnds:
    thing = await _thing(system, username, source, follow=options.dereference)
    if thing.status.kind is not FileKind.SYMLINK:
        await require_readable(system, username, thing.path, thing.real_path)
    plain = await _final_path(system, username, thing, path)
    there = await system.files.status(username, plain, follow_symlinks=True)
    if not thing.is_directory:
        if there is not None and there.kind is FileKind.DIRECTORY:
            raise NotAFile(f"{plain} is a directory; {thing.path}, which is none, cannot take its place.")
        end = await look_at_target(system, username, plain, thing.size_bytes or 0)
        await _require_other_place(system, username, thing, end.real_path)
        if there is not None:
            await _require_not_its_end(system, username, thing, end.real_path)
            if await is_same_file(system, username, thing.real_path, end.real_path):
                raise PathRefused(f"Source and target are the same file ({thing.path}), by two names.")
        return OperationEnds(plain, end.real_path, options, thing.path, thing.real_path, thing.size_bytes)
    if there is None:
        real_path = await in_its_directory(system, username, plain)
        await _require_other_place(system, username, thing, real_path)
        await require_room(system, username, real_path, 0)
        return OperationEnds(plain, real_path, options, thing.path, thing.real_path)
    if there.kind is not FileKind.DIRECTORY:
        raise TargetExists(f"{plain} exists and is no directory; {thing.path}, which is one, cannot take its place.")
    real_path = await system.files.real_path(username, plain)
    await _require_other_place(system, username, thing, real_path)
    await require_room(system, username, posixpath.join(real_path, "any"), 0)
    return OperationEnds(plain, real_path, replace(options, merges=True), thing.path, thing.real_path)


async def _look_at_compression(system: System, username: str, source: str, path: str, options: OperationOptions) -> OperationEnds:
    roots = expanded_roots(system.settings.roots, username)
    plain = checked_path(source, roots)
    # With a slash at its end, or as a whole file system, it is what is in it, without a name of its own.
    from_inside = source.endswith(("/", "/.")) or plain in map(posixpath.normpath, roots)
    thing = await _thing(system, username, source, follow=from_inside, may_be_root=True)
    if from_inside and not thing.is_directory:
        raise NotADirectory(f"{thing.path} is not a directory.")
    if thing.status.kind is FileKind.SYMLINK and options.dereference:
        await require_inside(system, username, await system.files.real_path(username, thing.path), roots)
    if thing.status.kind is not FileKind.SYMLINK:
        await require_readable(system, username, thing.path, thing.real_path)
    end = await look_at_target(system, username, checked_file_path(path, roots), 0)
    if await system.files.status(username, end.real_path, follow_symlinks=False) is not None:
        await _require_not_its_end(system, username, thing, end.real_path)
        if await is_same_file(system, username, thing.real_path, end.real_path):
            raise PathRefused("The archive and what goes into it are the same file; name another archive.")
        if thing.is_directory and is_inside(end.real_path, [thing.real_path]):
            raise PathRefused(
                f"{end.path} exists in the directory that is packed, and would be replaced without being in the archive;"
                " name one that does not exist yet, or another place."
            )
    return OperationEnds(end.path, end.real_path, replace(options, from_inside=from_inside), thing.path, thing.real_path)


async def _look_at_extraction(system: System, username: str, source: str, path: str, options: OperationOptions) -> OperationEnds:
    archive = await look_at_source(system, username, source)
    roots = expanded_roots(system.settings.roots, username)
    plain = checked_path(path, roots)
    there = await system.files.status(username, plain, follow_symlinks=True)
    if there is None:
        raise FileMissing(f"The directory {plain} does not exist (No such file or directory); make it first.")
    if there.kind is not FileKind.DIRECTORY:
        raise NotADirectory(f"{plain} is not a directory.")
    real_path = await system.files.real_path(username, plain)
    await require_inside(system, username, real_path, roots)
    await require_room(system, username, posixpath.join(real_path, "any"), archive.size_bytes or 0)
    return OperationEnds(plain, real_path, replace(options, merges=True), archive.path, archive.real_path)


async def _thing(system: System, username: str, path: str, *, follow: bool, may_be_root: bool = False) -> _Source:
    """What is there: a symbolic link itself, unless links are followed."""
    roots = expanded_roots(system.settings.roots, username)
    plain = (checked_path if may_be_root else checked_directory_path)(path, roots)
    status = await system.files.status(username, plain, follow_symlinks=follow)
    if status is None:
        raise FileMissing(f"{plain}: No such file or directory.")
    if status.kind is FileKind.SYMLINK:
        real_path = await in_its_directory(system, username, plain)
    else:
        real_path = await system.files.real_path(username, plain)
    await require_inside(system, username, real_path, roots)
    if status.kind is FileKind.OTHER:
        raise NotAFile(f"{plain} is a socket, a pipe or a device; only files, directories and links are worked on.")
    return _Source(plain, real_path, status)


async def _final_path(system: System, username: str, thing: _Source, path: str) -> str:
    """``path``, or below it by the source's own name where it is a directory."""
    plain = checked_path(path, expanded_roots(system.settings.roots, username))
    there = await system.files.status(username, plain, follow_symlinks=True)
    if there is not None and there.kind is FileKind.DIRECTORY:
        plain = checked_path(posixpath.join(plain, posixpath.basename(thing.path)), [plain])
    elif path.endswith(("/", "/.")) and not thing.is_directory:
        raise FileMissing(f"The directory {plain} does not exist (No such file or directory); make it first.")
    return plain


async def _require_other_place(system: System, username: str, thing: _Source, real_path: str) -> None:
    await require_inside(system, username, real_path, expanded_roots(system.settings.roots, username))
    if real_path == thing.real_path:
        raise PathRefused(f"Source and target are the same file ({thing.path}).")
    if thing.is_directory and is_inside(real_path, [thing.real_path]):
        raise PathRefused(f"The target is inside the source ({thing.path}); name a place outside of it.")


async def _require_not_its_end(system: System, username: str, thing: _Source, real_path: str) -> None:
    """A link that takes the place of what it leads to would lead to itself, and the file would be lost."""
    if thing.status.kind is not FileKind.SYMLINK:
        return
    if await system.files.status(username, thing.path, follow_symlinks=True) is None:
        return
    if await is_same_file(system, username, await system.files.real_path(username, thing.path), real_path):
        raise PathRefused(f"Source and target are the same file: {thing.path} is a link that leads to it.")


async def _require_changeable(system: System, username: str, thing: _Source) -> None:
    await require_no_root(system, username, thing.real_path)
    directory = posixpath.dirname(thing.real_path)
    if not await system.files.may(username, directory, "w"):
        raise PermissionRefused(f"Permission denied: you may not change {directory}, where {thing.path} is.")


_Look = Callable[[System, str, str, str, OperationOptions], Awaitable[OperationEnds]]
_LOOKS: Mapping[Operation, _Look] = {
    Operation.MOVE: _look_at_move,
    Operation.COPY: _look_at_copy,
    Operation.REMOVE: _look_at_removal,
    Operation.COMPRESS: _look_at_compression,
    Operation.EXTRACT: _look_at_extraction,
}
