"""``/filesystem/{system}/ops``: what is in a file (head, tail, view, download), and a small file that comes in (upload)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from stagecoach.api.access import FilesReader, FilesWriter, Tools
from stagecoach.api.audit_trail import CurrentTrail
from stagecoach.api.content_response import ContentResponse, TextResponse
from stagecoach.api.firecrest.filesystem import ExactPath, shown
from stagecoach.api.firecrest.transfer import SystemName
from stagecoach.api.form_upload import FIELD, read_form_file
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.core.audit_log import Act
from stagecoach.flows.change_files import upload_file
from stagecoach.flows.read_file import PIECE_BYTES, Content, Slice, Window, make_slice, open_download, open_text
from stagecoach.flows.view_file import open_view
from stagecoach.wire import filesystem as wire

router = APIRouter(prefix="/filesystem/{system}/ops", tags=["filesystem"], responses=PROBLEM_ANSWERS)
MAX_COUNT = 2**53 - 1
Count = Annotated[int | None, Query(ge=0, le=MAX_COUNT)]

_FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD.decode()],
                "properties": {FIELD.decode(): {"type": "string", "format": "binary", "maxLength": 2**30}},
            }
        }
    },
}
_BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}


@router.get("/head", summary="Show the beginning of a file", response_model=wire.ContentAnswer)
async def get_head(
    system: SystemName,
    caller: FilesReader,
    tools: Tools,
    path: ExactPath,
    size_bytes: Annotated[Count, Query(alias="bytes", description="So many bytes.")] = None,
    lines: Annotated[Count, Query(description="So many lines; 10 where nothing is said.")] = None,
    skip_trailing: Annotated[bool, Query(alias="skipTrailing", description="All but so many at the end.")] = False,
) -> Response:
    """As the command `head` shows it."""
    wanted = make_slice("head", size_bytes, lines, skipped=skip_trailing)
    end = -wanted.count if wanted.skipped else wanted.count
    return _text(open_text(tools, caller, system, path, wanted), wanted, 0, end)


@router.get("/tail", summary="Show the end of a file", response_model=wire.ContentAnswer)
async def get_tail(
    system: SystemName,
    caller: FilesReader,
    tools: Tools,
    path: ExactPath,
    size_bytes: Annotated[Count, Query(alias="bytes", description="So many bytes.")] = None,
    lines: Annotated[Count, Query(description="So many lines; 10 where nothing is said.")] = None,
    skip_heading: Annotated[bool, Query(alias="skipHeading", description="From the one of this number on.")] = False,
) -> Response:
    """As the command `tail` shows it."""
    wanted = make_slice("tail", size_bytes, lines, skipped=skip_heading)
    start = wanted.count if wanted.skipped else -wanted.count
    return _text(open_text(tools, caller, system, path, wanted), wanted, start, -1)


@router.get("/view", summary="Show a text file", response_model=wire.TextAnswer)
async def get_view(
    system: SystemName,
    caller: FilesReader,
    tools: Tools,
    path: ExactPath,
    size: Annotated[Count, Query(description="So many bytes; all of them where nothing is said.")] = None,
    offset: Annotated[int, Query(ge=0, le=MAX_COUNT, description="From this byte on.")] = 0,
) -> Response:
    """All of it, or 413 where one answer cannot hold it. Bytes that are not UTF-8 are shown as U+FFFD.

    The `outputLog` of a transfer can be seen also when the transfer is over and the file gone."""
    return TextResponse(open_view(tools, caller, system, path, Window(offset, size)), '{"output":', "}")


@router.get(
    "/download",
    summary="Download a small file",
    response_class=Response,
    responses={200: {"description": "The bytes of the file.", **_BYTES}},
)
async def get_direct_download(
    system: SystemName, caller: FilesReader, tools: Tools, path: ExactPath, trail: CurrentTrail
) -> Response:
    """The bytes as they are; larger files go by `transfer/download`."""

    @asynccontextmanager
    async def recorded() -> AsyncIterator[Content]:
        # Around the sending: what is refused, or cut off, is no download.
        async with (
            trail.of(Act.FILE_DOWNLOADED, system, path=shown(path)) as noted,
            open_download(tools, caller, system, path) as content,
        ):
            noted.detail["bytes"] = content.size_bytes
            yield content

    return ContentResponse(recorded())


@router.post("/upload", status_code=204, summary="Upload a small file", openapi_extra={"requestBody": _FORM})
async def post_direct_upload(
    request: Request, system: SystemName, caller: FilesWriter, tools: Tools, path: ExactPath, trail: CurrentTrail
) -> None:
    """Into the directory `path`, under the filename of the form's part `file`; it takes its place when it is whole.

    What stood there is replaced. Larger files go by `transfer/upload`.
    """
    async with trail.of(Act.FILE_UPLOADED, system, path=shown(path)) as noted:
        form_file = await read_form_file(request, tools.settings.server.max_direct_file_bytes)
        noted.detail["name"] = shown(form_file.name)
        size, waiting = 0, bytearray()
        async with upload_file(tools, caller, system, path, form_file.name) as new:
            async for piece in form_file.pieces:
                size += len(piece)
                waiting += piece
                # Fewer, larger writes: each is a round trip to the system.
                if len(waiting) >= PIECE_BYTES:
                    await new.write(bytes(waiting))
                    waiting.clear()
            await new.write(bytes(waiting))
        noted.detail["bytes"] = size


def _text(opening: AbstractAsyncContextManager[Content], wanted: Slice, start: int, end: int) -> Response:
    rest = {"contentType": wanted.unit, "startPosition": start, "endPosition": end}
    return TextResponse(opening, '{"output":{"content":', "," + json.dumps(rest)[1:] + "}")
