"""Reads the one file of a form (multipart/form-data) while it arrives: never in memory or on disk as a whole."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fastapi import Request
from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from stagecoach.core.errors import FileTooLarge, InvalidRequest

FIELD = b"file"
# What stands around the file: boundaries, headers, other small fields.
MAX_FORM_OVERHEAD_BYTES = 64 * 1024
_OPTION = re.compile(rb';[ \t]*([A-Za-z0-9_]+\*?)=(?:"((?:\\.|[^"\\])*)"|([^;"]*))')
# What browsers and httpx write for the characters that cannot stand in quotes, and what curl does.
_ESCAPED = {b"%22": b'"', b"%0A": b"\n", b"%0D": b"\r", b"\\\\": b"\\", b'\\"': b'"'}


@dataclass
class FormFile:
    """``name`` as it was sent, with surrogate escapes; ``pieces`` are to be read once, to the end."""

    name: str
    pieces: AsyncIterator[bytes]


@dataclass
class _Part:
    """What the parser has seen of the parts so far."""

    header_name: bytes = b""
    header_value: bytes = b""
    disposition: bytes = b""
    is_file: bool = False
    name: bytes | None = None
    """Of the file."""
    content: list[bytes] = field(default_factory=list)
    is_ended: bool = False
    is_whole: bool = False


async def read_form_file(request: Request, limit_bytes: int) -> FormFile:
    """The part named ``file``, as soon as its head has come.

    Raises:
        InvalidRequest: it is no such form, here or while the pieces are read. FileTooLarge: while they are.
    """
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if content_type != b"multipart/form-data" or not boundary:
        raise InvalidRequest("Send the file as a form: multipart/form-data, with one part named 'file'.")
    part = _Part()
    try:
        parser = _parser(boundary, part)
    except FormParserError as error:
        raise InvalidRequest("The form's boundary is too long.") from error
    pieces = _pieces(request, parser, part, limit_bytes)
    # The first piece is empty: it says that the name is known.
    await anext(pieces)
    assert part.name is not None  # noqa: S101 - the piece before says so
    return FormFile(part.name.decode("utf-8", "surrogateescape"), pieces)


async def _pieces(request: Request, parser: MultipartParser, part: _Part, limit_bytes: int) -> AsyncIterator[bytes]:
    is_announced, size = False, 0
    try:
        async for chunk in request.stream():
            parser.write(chunk)
            if part.name is not None and not is_announced:
                is_announced = True
                yield b""
            for piece in part.content:
                size += len(piece)
                if size > limit_bytes:
                    raise FileTooLarge(
                        f"A direct upload takes {limit_bytes} bytes at most; upload it by a transfer (transfer/upload), "
                        "which takes any size.",
                        data={"limit_bytes": limit_bytes},
                    )
                yield piece
            part.content.clear()
    except MultipartParseError as error:
        raise InvalidRequest("The body is no form that can be read.") from error
    except ClientDisconnect as error:
        raise InvalidRequest("The upload ended before it was whole; nothing was changed.") from error
    if part.name is None:
        raise InvalidRequest("The form has no file: it must have one part named 'file', with a filename.")
    if not part.is_whole:
        raise InvalidRequest("The form ends before its end; nothing was changed.")


def _parser(boundary: bytes, part: _Part) -> MultipartParser:
    def begin() -> None:
        part.header_name = part.header_value = part.disposition = b""

    def header_name(data: bytes, start: int, end: int) -> None:
        part.header_name += data[start:end]

    def header_value(data: bytes, start: int, end: int) -> None:
        part.header_value += data[start:end]

    def header_end() -> None:
        if part.header_name.lower() == b"content-disposition":
            part.disposition = part.header_value
        part.header_name = part.header_value = b""

    def headers_finished() -> None:
        options = _options(part.disposition)
        part.is_file = options.get(b"name") == FIELD and b"filename" in options
        if part.is_file and part.is_ended:
            raise MultipartParseError("a second file")
        if part.is_file:
            part.name = options[b"filename"]

    def data(content: bytes, start: int, end: int) -> None:
        if part.is_file:
            part.content.append(content[start:end])

    def end_of_part() -> None:
        part.is_ended = part.is_ended or part.is_file
        part.is_file = False

    def finish() -> None:
        part.is_whole = True

    return MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_header_field": header_name,
            "on_header_value": header_value,
            "on_header_end": header_end,
            "on_headers_finished": headers_finished,
            "on_part_data": data,
            "on_part_end": end_of_part,
            "on_end": finish,
        },
    )


def _options(disposition: bytes) -> dict[bytes, bytes]:
    """What stands behind ``form-data``; the library's own reading takes some names for paths of Windows."""
    found: dict[bytes, bytes] = {}
    for name, quoted, plain in _OPTION.findall(disposition):
        found.setdefault(name.lower(), _unescaped(quoted) if quoted else plain.strip())
    return found


def _unescaped(quoted: bytes) -> bytes:
    return re.sub(rb'%22|%0A|%0D|\\\\|\\"', lambda found: _ESCAPED[found[0]], quoted)
