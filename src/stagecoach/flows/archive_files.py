"""Packs files of a system into a tar archive there, and unpacks one, as the user."""

from __future__ import annotations

from dataclasses import dataclass

from stagecoach.core.access import Caller
from stagecoach.core.errors import NotAFile, PathRefused
from stagecoach.core.file_commands import Compression
from stagecoach.core.paths import is_inside
from stagecoach.flows.find_file import find_directory, find_file, find_place, find_regular_file, is_root, require_inside
from stagecoach.flows.look_at_files import is_same_file
from stagecoach.flows.operate_long import long_operation
from stagecoach.flows.toolbox import Toolbox
from stagecoach.ports.files import ArchiveOrder, FileKind


@dataclass(frozen=True, slots=True)
class ArchiveRequest:
    """``pattern``: only the regular files whose whole name, from ``./`` on, it matches (as ``find -regex``)."""

    source: str
    target: str
    compression: Compression
    dereference: bool = False
    pattern: str | None = None


async def archive_files(tools: Toolbox, caller: Caller, system_name: str, request: ArchiveRequest) -> None:
    """The archive takes its place, and another's, when it is whole. Names in it begin with the source's own.

    Raises:
        PathRefused, FileMissing, NotAFile, NotADirectory, PermissionRefused, NoSpace, CommandFailed, OperationTooLong,
        SystemNotFound, SystemUnavailable. PathRefused also where the archive would be one of the things that it holds, and
        where links are followed out of the file systems.
    """
    system, username = tools.system_for(caller.username, system_name), caller.username
    source = await find_file(system, username, request.source)
    if request.source.endswith("/") or is_root(system, username, request.source):
        itself = source.real_path
    else:
        # The name in the archive is the one that was asked for, not that of what a link leads to.
        itself = (await find_place(system, username, request.source)).real_path
    target = await find_place(system, username, request.target)
    real_target = target.real_path
    if target.status is not None and target.status.kind is FileKind.SYMLINK:
        real_target = (await find_file(system, username, request.target)).real_path
    elif target.status is not None and target.status.kind is not FileKind.FILE:
        raise NotAFile(f"{target.plain!r} is a directory or a special file; name the archive.")
    order = ArchiveOrder(
        itself, request.compression, request.dereference, request.pattern, from_inside=request.source.endswith("/")
    )
    if target.status is not None and await is_same_file(system, username, source.real_path, real_target):
        raise PathRefused("The archive and what goes into it are the same file; name another archive.")
    packed = source.real_path if request.dereference else itself
    if request.pattern is None and source.status.kind is FileKind.DIRECTORY and is_inside(real_target, [packed]):
        raise PathRefused(
            f"The archive would be inside the directory that goes into it ({source.plain!r}); name a place outside of it, or"
            " have it done by a job (transfer), which leaves the archive out."
        )
    async with long_operation(system, username, f"Packing {source.plain!r}") as seconds_left:
        if request.dereference:
            for link in await system.files.links_below(username, itself, timeout_seconds=seconds_left):
                await require_inside(system, username, link)
    async with long_operation(system, username, f"Packing {source.plain!r}") as seconds_left:
        await system.files.archive(username, order, real_target, timeout_seconds=seconds_left)


async def extract_files(
    tools: Toolbox, caller: Caller, system_name: str, source: str, target: str, compression: Compression
) -> None:
    """Into a directory that exists. Raises as :func:`archive_files`, and TargetExists; until all is unpacked nothing is there."""
    system, username = tools.system_for(caller.username, system_name), caller.username
    archive = await find_regular_file(system, username, source)
    directory = await find_directory(system, username, target)
    async with long_operation(system, username, f"Unpacking {archive.plain!r}") as seconds_left:
        await system.files.extract(username, archive.real_path, directory.real_path, compression, timeout_seconds=seconds_left)
