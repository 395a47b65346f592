"""Makes, changes and removes files and directories of a system, as the user, one request at a time."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stagecoach.core.access import Caller
from stagecoach.core.errors import FileExists, FileMissing, InvalidRequest, NotADirectory, NotAFile, PathRefused, StagecoachError
from stagecoach.core.paths import checked_path, expanded_roots
from stagecoach.flows.find_file import FoundFile, find_directory, find_file, find_place, require_inside
from stagecoach.flows.list_directory import ListedFile
from stagecoach.flows.look_at_files import require_no_root
from stagecoach.flows.operate_long import long_operation
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.ports.files import FileKind, NewFile

PLAIN_DIGITS = 4


async def change_mode(tools: Toolbox, caller: Caller, system_name: str, path: str, mode: str) -> ListedFile:
    """``mode`` is octal. As with ``chmod``, a directory keeps its set-id bits unless the mode has more than four digits.

    Raises:
        PathRefused, FileMissing, PermissionRefused, SystemNotFound, SystemUnavailable
    """
    system = tools.system_for(caller.username, system_name)
    found = await find_file(system, caller.username, path)
    bits = int(mode, 8)
    if found.status.kind is FileKind.DIRECTORY and len(mode) <= PLAIN_DIGITS:
        bits |= found.status.mode & (stat.S_ISUID | stat.S_ISGID)
    await system.files.change_mode(caller.username, found.real_path, bits)
    return await _shown(system, caller, found.plain, found.real_path)


async def change_owner(tools: Toolbox, caller: Caller, system_name: str, path: str, owner: str, group: str) -> ListedFile:
    """Either may be "". Raises as :func:`change_mode`, and InvalidRequest for a name that the system has not."""
    if not owner and not group:
        raise InvalidRequest("Give an owner, a group, or both.")
    system = tools.system_for(caller.username, system_name)
    found = await find_file(system, caller.username, path)
    await system.files.change_owner(caller.username, found.real_path, owner, group)
    return await _shown(system, caller, found.plain, found.real_path)


async def make_symlink(tools: Toolbox, caller: Caller, system_name: str, target: str, path: str) -> ListedFile:
    """``path`` leads to ``target``, which need not exist, and lies inside the file systems as well.

    Raises:
        as :func:`change_mode`; FileExists
    """
    system = tools.system_for(caller.username, system_name)
    plain_target = checked_path(target, expanded_roots(system.settings.roots, caller.username), any_bytes=True)
    if await system.files.status(caller.username, plain_target, follow_symlinks=True) is not None:
        await require_inside(system, caller.username, await system.files.real_path(caller.username, plain_target))
    place = await find_place(system, caller.username, path)
    await system.files.create_symlink(caller.username, place.real_path, plain_target)
    return await _shown(system, caller, place.plain, place.real_path)


async def make_directory(tools: Toolbox, caller: Caller, system_name: str, path: str, *, parents: bool) -> ListedFile:
    """With ``parents`` all that is missing above it, and one that is there is fine.

    Raises:
        as :func:`change_mode`; FileExists, NotADirectory
    """
    system, username = tools.system_for(caller.username, system_name), caller.username
    if not parents:
        place = await find_place(system, username, path)
        await system.files.create_directory(username, place.real_path)
        return await _shown(system, caller, place.plain, place.real_path)
    plain = checked_path(path, expanded_roots(system.settings.roots, username), any_bytes=True)
    missing: list[str] = []
    above = plain
    while (status := await system.files.status(username, above, follow_symlinks=True)) is None:
        if await system.files.status(username, above, follow_symlinks=False) is not None:
            raise FileExists(f"{above!r}: File exists, and is a symbolic link to nothing.")
        above, name = posixpath.split(above)
        missing.insert(0, name)
    if status.kind is not FileKind.DIRECTORY:
        raise NotADirectory(f"{above!r}: Not a directory.") if missing else FileExists(f"{above!r}: File exists.")
    real_path = await system.files.real_path(username, above)
    await require_inside(system, username, posixpath.join(real_path, *missing))
    for name in missing:
        real_path = posixpath.join(real_path, name)
        try:
            await system.files.create_directory(username, real_path)
        except FileExists:
            # Somebody else made it in between; what it is, the next step says.
            made = await system.files.status(username, real_path, follow_symlinks=False)
            if made is None or made.kind is not FileKind.DIRECTORY:
                raise
    return await _shown(system, caller, plain, real_path)


async def remove_file(tools: Toolbox, caller: Caller, system_name: str, path: str) -> None:
    """A file, a link itself, or a directory with all below it.

    Raises:
        as :func:`change_mode`; OperationTooLong: part of a large tree may be gone.
    """
    system = tools.system_for(caller.username, system_name)
    place = await find_place(system, caller.username, path)
    if place.status is None:
        raise FileMissing(f"{place.plain!r}: No such file or directory.")
    await require_no_root(system, caller.username, place.real_path)
    async with long_operation(system, caller.username, f"Removing {place.plain!r}") as seconds_left:
        await system.files.remove(caller.username, place.real_path, timeout_seconds=seconds_left)


@asynccontextmanager
async def upload_file(tools: Toolbox, caller: Caller, system_name: str, directory: str, name: str) -> AsyncIterator[NewFile]:
    """A file of that name in a directory: whole once the inside has ended, all at once; else nothing has changed.

    A link of that name is written through, inside the file systems.

    Raises:
        as :func:`change_mode`; NotADirectory, NotAFile, NoSpace
    """
    if "/" in name or name in {"", ".", ".."}:
        raise PathRefused("The name of the uploaded file is a plain name, without '/'.")
    system, username = tools.system_for(caller.username, system_name), caller.username
    await find_directory(system, username, directory)
    place = await find_place(system, username, posixpath.join(directory, name))
    real_path = place.real_path
    if place.status is not None and place.status.kind is FileKind.SYMLINK:
        real_path = (await _through_link(system, username, place.plain)).real_path
    seconds = float(system.settings.limits.max_operation_seconds)
    async with system.files.create_file(username, real_path, timeout_seconds=seconds) as file:
        yield file


async def _through_link(system: System, username: str, plain: str) -> FoundFile:
    try:
        return await find_file(system, username, plain)
    except FileMissing as error:
        raise NotAFile("The target is a symbolic link to nothing; remove it or name the file it should be.") from error


async def _shown(system: System, caller: Caller, plain: str, real_path: str) -> ListedFile:
    """The file itself as a listing has it, under the name that was asked for."""
    files, username = system.files, caller.username
    status = await files.status(username, real_path, follow_symlinks=False)
    if status is None:
        raise FileMissing(f"{plain!r}: No such file or directory: it was removed a moment ago.")
    target = await files.read_link(username, real_path) if status.kind is FileKind.SYMLINK else None
    try:
        names = await files.account_names(username, {status.uid}, {status.gid})
        user, group = names.users.get(status.uid), names.groups.get(status.gid)
    except StagecoachError:
        # It is done; that the names could not be asked makes it no failure.
        user = group = None
    return ListedFile(plain, status, target, user or str(status.uid), group or str(status.gid))
