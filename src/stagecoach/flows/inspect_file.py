"""Answers small questions about one file: what stat says, what kind of content, which digest."""

from __future__ import annotations

from stagecoach.core.access import Caller
from stagecoach.core.errors import CommandFailed, FileMissing
from stagecoach.core.file_commands import FullStatus
from stagecoach.flows.find_file import find_file, find_place, find_regular_file, is_root
from stagecoach.flows.operate_long import long_operation
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.ports.files import FileKind


async def show_status(tools: Toolbox, caller: Caller, system_name: str, path: str, *, follow_symlinks: bool) -> FullStatus:
    """Of a symbolic link itself, unless links are followed.

    Raises:
        PathRefused, FileMissing, PermissionRefused, SystemNotFound, SystemUnavailable
    """
    system = tools.system_for(caller.username, system_name)
    try:
        real_path = await _itself(system, caller.username, path, follow_symlinks=follow_symlinks)
    except FileMissing as error:
        # As the command says it: FirecREST's clients look for these words.
        said = f"stat: cannot statx {_as_said(path)}: No such file or directory"
        raise FileMissing(CommandFailed.words(1, said)) from error
    return await system.files.full_status(caller.username, real_path, follow_symlinks=False)


async def show_file_type(tools: Toolbox, caller: Caller, system_name: str, path: str) -> str:
    """What the command ``file`` says. Raises as :func:`show_status`."""
    system = tools.system_for(caller.username, system_name)
    real_path = await _itself(system, caller.username, path, follow_symlinks=False)
    return await system.files.file_type(caller.username, real_path)


async def digest_file(tools: Toolbox, caller: Caller, system_name: str, path: str) -> str:
    """The SHA-256, in hexadecimal. Raises as :func:`show_status`, NotAFile, OperationTooLong."""
    system = tools.system_for(caller.username, system_name)
    found = await find_regular_file(system, caller.username, path)
    async with long_operation(system, caller.username, f"The checksum of {found.plain!r}") as seconds_left:
        return await system.files.checksum(caller.username, found.real_path, timeout_seconds=seconds_left)


async def _itself(system: System, username: str, path: str, *, follow_symlinks: bool) -> str:
    """Where a path is: as ``lstat`` finds it, or all links resolved, as those of a file system's root always are."""
    if not follow_symlinks and not path.endswith("/") and not is_root(system, username, path):
        place = await find_place(system, username, path)
        if place.status is None:
            raise FileMissing(f"{place.plain!r}: No such file or directory.")
        if place.status.kind is FileKind.SYMLINK:
            return place.real_path
    return (await find_file(system, username, path)).real_path


def _as_said(path: str) -> str:
    return "'" + path.encode("utf-8", "surrogateescape").decode("utf-8", "replace").replace("\n", "\\n") + "'"
