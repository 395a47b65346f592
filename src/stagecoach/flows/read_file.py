"""Reads a file of a system, or a part of it, piece by piece: counted in bytes, from one open handle, no more than may be.

A line is what ends in a newline, and what is left behind the last one; as for ``head`` and ``tail``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from stagecoach.core.access import Caller
from stagecoach.core.errors import FileTooLarge, InvalidRequest, SystemUnavailable
from stagecoach.flows.find_file import find_regular_file
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.ports.files import OpenFile

PIECE_BYTES = 1024 * 1024
DEFAULT_LINES = 10
Unit = Literal["bytes", "lines"]


@dataclass(frozen=True, slots=True)
class Slice:
    """The first or last ``count`` ``unit`` of a file; with ``skipped`` all but them (from the ``count``-th on, at the end)."""

    end: Literal["head", "tail"]
    unit: Unit = "lines"
    count: int = DEFAULT_LINES
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """``size_bytes`` from ``offset`` on; None: all that is there."""

    offset: int = 0
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """What comes, and how many bytes that will be. Ends in SystemUnavailable where the file has shrunk meanwhile."""

    size_bytes: int
    pieces: AsyncIterator[bytes]


def make_slice(end: Literal["head", "tail"], size_bytes: int | None, lines: int | None, *, skipped: bool) -> Slice:
    """From what a request says. Raises InvalidRequest where it contradicts itself."""
    if size_bytes is not None and lines is not None:
        raise InvalidRequest("Give bytes or lines, not both.")
    if size_bytes is None and lines is None:
        if skipped:
            raise InvalidRequest("What is to be skipped must be said in bytes or lines.")
        return Slice(end)
    return Slice(end, "bytes", size_bytes, skipped) if size_bytes is not None else Slice(end, "lines", lines or 0, skipped)


@asynccontextmanager
async def open_download(tools: Toolbox, caller: Caller, system_name: str, path: str) -> AsyncIterator[Content]:
    """All of a file that is small enough to be given directly.

    Raises:
        PathRefused, FileMissing, NotAFile, PermissionRefused, FileTooLarge, SystemNotFound, SystemUnavailable
    """
    system = tools.system_for(caller.username, system_name)
    found = await find_regular_file(system, caller.username, path)
    _require_direct(tools, found.plain, found.status.size_bytes)
    async with _opened(system, caller, found.real_path) as file:
        _require_direct(tools, found.plain, file.size_bytes)
        yield Content(file.size_bytes, _pieces(file, 0, file.size_bytes))


@asynccontextmanager
async def open_text(
    tools: Toolbox, caller: Caller, system_name: str, path: str, wanted: Slice | Window
) -> AsyncIterator[Content]:
    """A part of a file, or all of it where it is no larger than one view may be. Raises as :func:`open_download`."""
    system = tools.system_for(caller.username, system_name)
    found = await find_regular_file(system, caller.username, path)
    limit = tools.settings.server.max_view_bytes
    async with _opened(system, caller, found.real_path) as file:
        if isinstance(wanted, Window):
            start = min(wanted.offset, file.size_bytes)
            rest = file.size_bytes - start
            end = start + (rest if wanted.size_bytes is None else min(wanted.size_bytes, rest))
        else:
            start, end = await _bounds(file, wanted, limit)
        if end - start > limit:
            raise FileTooLarge(
                f"{found.plain!r}: these are more bytes than the {limit} that one view gives. Ask for a part of it (size"
                " and offset, bytes), or download it by a transfer.",
                data={"limit_bytes": limit} | ({} if _is_lines(wanted) else {"size_bytes": end - start}),
            )
        yield Content(end - start, _pieces(file, start, end))


def _require_direct(tools: Toolbox, plain: str, size_bytes: int) -> None:
    limit = tools.settings.server.max_direct_file_bytes
    if size_bytes > limit:
        raise FileTooLarge(
            f"{plain!r} has {size_bytes} bytes; a direct download gives {limit} at most. Download it by a transfer "
            "(transfer/download), which takes any size.",
            data={"limit_bytes": limit, "size_bytes": size_bytes},
        )


@asynccontextmanager
async def _opened(system: System, caller: Caller, real_path: str) -> AsyncIterator[OpenFile]:
    seconds = float(system.settings.limits.max_operation_seconds)
    async with system.files.open_file(caller.username, real_path, timeout_seconds=seconds) as file:
        yield file


async def _pieces(file: OpenFile, start: int, end: int) -> AsyncIterator[bytes]:
    while start < end:
        piece = await file.read_at(start, min(PIECE_BYTES, end - start))
        if not piece:
            raise SystemUnavailable("The file became shorter while it was read.")
        start += len(piece)
        yield piece


def _is_lines(wanted: Slice | Window) -> bool:
    """Of lines that are too long nobody has seen the end."""
    return isinstance(wanted, Slice) and wanted.unit == "lines"


async def _bounds(file: OpenFile, wanted: Slice, limit: int) -> tuple[int, int]:
    """Where the part begins and ends. What is larger than ``limit`` in any case is not looked through to its end."""
    size, count = file.size_bytes, wanted.count
    if wanted.unit == "bytes":
        if wanted.end == "head":
            return (0, max(size - count, 0)) if wanted.skipped else (0, min(count, size))
        return (min(max(count - 1, 0), size), size) if wanted.skipped else (max(size - count, 0), size)
    if wanted.end == "head":
        return (0, await _last_lines(file, count, size)) if wanted.skipped else (0, await _after_lines(file, count, limit))
    if wanted.skipped:
        return await _after_lines(file, max(count - 1, 0), size), size
    return await _last_lines(file, count, limit), size


async def _after_lines(file: OpenFile, count: int, most_bytes: int) -> int:
    """Where the line behind the first ``count`` begins; somewhere behind ``most_bytes`` where it is not before."""
    position = 0
    while count and position < file.size_bytes and position <= most_bytes:
        piece = await file.read_at(position, min(PIECE_BYTES, file.size_bytes - position))
        if not piece:
            break
        newlines = piece.count(b"\n")
        if newlines < count:
            count, position = count - newlines, position + len(piece)
            continue
        within = -1
        for _ in range(count):
            within = piece.index(b"\n", within + 1)
        return position + within + 1
    return position


async def _last_lines(file: OpenFile, count: int, most_bytes: int) -> int:
    """Where the last ``count`` lines begin; farther than ``most_bytes`` from the end where they are longer."""
    if not count:
        return file.size_bytes
    end = file.size_bytes
    # The newline that ends the file ends its last line, and begins none.
    missing = count + (1 if end and await file.read_at(end - 1, 1) == b"\n" else 0)
    while end and file.size_bytes - end <= most_bytes:
        start = max(end - PIECE_BYTES, 0)
        piece = await file.read_at(start, end - start)
        newlines = piece.count(b"\n")
        if newlines < missing:
            missing, end = missing - newlines, start
            continue
        within = len(piece)
        for _ in range(missing):
            within = piece.rindex(b"\n", 0, within)
        return start + within + 1
    return end
