"""``/filesystem/{system}/ops``: questions about files: a listing, what stat says, the kind of content, the digest."""

from __future__ import annotations

import asyncio
import base64
import stat
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Query, Request, Response

from stagecoach.api.access import FilesReader, Tools
from stagecoach.api.firecrest.transfer import SystemName
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.flows.inspect_file import digest_file, show_file_type, show_status
from stagecoach.flows.list_directory import ListedFile, ListingOptions, list_directory
from stagecoach.wire import filesystem as wire

router = APIRouter(prefix="/filesystem/{system}/ops", tags=["filesystem"], responses=PROBLEM_ANSWERS)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The years that the format can hold.
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799


def exact_path(request: Request, path: Annotated[str, Query(min_length=1, max_length=4096, description="Absolute path.")]) -> str:
    """The bytes that were sent, which the framework shows as U+FFFD where they are not UTF-8; as surrogate escapes."""
    if "\N{REPLACEMENT CHARACTER}" not in path:
        return path
    query: bytes = request.scope["query_string"]
    sent = parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="surrogateescape")
    return next(value for name, value in reversed(sent) if name == "path")


ExactPath = Annotated[str, Depends(exact_path)]


@router.get("/ls", summary="List a directory", response_model=wire.ListingAnswer)
async def get_ls(
    system: SystemName,
    caller: FilesReader,
    tools: Tools,
    path: ExactPath,
    show_hidden: Annotated[bool, Query(alias="showHidden", description="Names that begin with a dot as well.")] = False,
    recursive: Annotated[bool, Query(description="Also what is below; symbolic links are not walked through.")] = False,
    numeric_uid: Annotated[bool, Query(alias="numericUid", description="Numbers of users and groups, not names.")] = False,
    dereference: Annotated[bool, Query(description="Show what symbolic links lead to, inside the file systems.")] = False,
) -> Response:
    """All of the directory, or 413 where one answer cannot hold it: a listing is never cut off.

    A symbolic link is listed itself, unless its path ends in a slash or links are dereferenced.
    """
    options = ListingOptions(show_hidden, recursive, numeric_uid, dereference)
    listed = await list_directory(tools, caller, system, path, options)
    # A long listing takes its time to write down; others are served meanwhile.
    return Response(await asyncio.to_thread(_written, listed), media_type="application/json")


@router.get("/stat", summary="Show what stat says of a file")
async def get_stat(
    system: SystemName,
    caller: FilesReader,
    tools: Tools,
    path: ExactPath,
    dereference: Annotated[bool, Query(description="Of what a symbolic link leads to, not of the link.")] = False,
) -> wire.StatAnswer:
    """Numbers of the system call."""
    found = await show_status(tools, caller, system, path, follow_symlinks=dereference)
    output = wire.FileStat(
        mode=found.mode,
        ino=found.inode,
        dev=found.device,
        nlink=found.links,
        uid=found.uid,
        gid=found.gid,
        size=found.size_bytes,
        atime=found.atime_epoch_seconds,
        ctime=found.ctime_epoch_seconds,
        mtime=found.mtime_epoch_seconds,
    )
    return wire.StatAnswer(output=output)


@router.get("/file", summary="Show what kind of content a file has")
async def get_file_type(system: SystemName, caller: FilesReader, tools: Tools, path: ExactPath) -> wire.TextAnswer:
    """What the command `file` says; of a symbolic link, that it is one."""
    return wire.TextAnswer(output=shown(await show_file_type(tools, caller, system, path)))


@router.get("/checksum", summary="Calculate the SHA-256 of a file")
async def get_checksum(system: SystemName, caller: FilesReader, tools: Tools, path: ExactPath) -> wire.ChecksumAnswer:
    """Large files take their time; one that takes longer than a request may gets 408."""
    return wire.ChecksumAnswer(output=wire.Checksum(checksum=await digest_file(tools, caller, system, path)))


def _written(listed: Sequence[ListedFile]) -> str:
    return wire.ListingAnswer(output=[wire_file(one) for one in listed]).model_dump_json(by_alias=True)


def wire_file(listed: ListedFile) -> wire.File:
    """One line of a listing."""
    name, status = shown(listed.name), listed.status
    return wire.File(
        name=name,
        type=status.type_letter,
        link_target=None if listed.link_target is None else shown(listed.link_target),
        user=listed.user,
        group=listed.group,
        permissions=stat.filemode(status.mode)[1:],
        last_modified=_time(status.mtime_epoch_seconds),
        size=str(status.size_bytes),
        name_base64=None if name == listed.name else base64.b64encode(listed.name.encode("utf-8", "surrogateescape")).decode(),
    )


def _time(epoch_seconds: float) -> str:
    # Whatever a file claims; some claim years that no calendar of ours has.
    seconds = min(max(int(epoch_seconds // 1), FIRST_SECOND), LAST_SECOND)
    return (EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat(timespec="seconds")


def shown(name: str) -> str:
    """As text, whatever its bytes are."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
