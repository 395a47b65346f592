"""Content on its way to the client: nothing is announced before the first piece is there, nothing passes for whole."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Message

from stagecoach.api.content_response import ContentResponse, TextResponse
from stagecoach.core.errors import SystemUnavailable
from stagecoach.flows.read_file import Content


@asynccontextmanager
async def opened(*pieces: bytes | None) -> AsyncIterator[Content]:
    """None: the system goes away."""

    async def coming() -> AsyncIterator[bytes]:
        for piece in pieces:
            if piece is None:
                raise SystemUnavailable("It went away.")
            yield piece

    yield Content(sum(len(piece or b"") for piece in pieces), coming())


async def sent_by(response: ContentResponse) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    try:
        await response({"type": "http"}, receive, send)
    except SystemUnavailable:
        sent.append({"type": "cut off"})
    return sent


async def test_a_failure_before_the_first_piece_is_an_ordinary_one() -> None:
    assert await sent_by(ContentResponse(opened(None))) == [{"type": "cut off"}]
    assert await sent_by(TextResponse(opened(None), "[", "]")) == [{"type": "cut off"}]


async def test_a_failure_later_cuts_the_answer_off_before_its_end() -> None:
    for response in (ContentResponse(opened(b"some", None)), TextResponse(opened(b"some", None), "[", "]")):
        start, *bodies, end = await sent_by(response)
        assert start["type"] == "http.response.start"
        assert all(body["more_body"] for body in bodies)
        assert end == {"type": "cut off"}


async def test_bytes_come_as_they_are_with_their_number() -> None:
    start, *bodies = await sent_by(ContentResponse(opened(b"\xff\x00", b"a")))
    assert dict(start["headers"])[b"content-length"] == b"3"
    assert b"".join(body["body"] for body in bodies) == b"\xff\x00a"
    assert [body["more_body"] for body in bodies][-1] is False
    start, *bodies = await sent_by(ContentResponse(opened()))
    assert dict(start["headers"])[b"content-length"] == b"0"


@pytest.mark.parametrize("text", ["", "日本", 'a"b\\c\n\x00\x1f\u2028', "\U0001f600"])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_text_is_one_json_string_wherever_its_pieces_are_cut(text: str, size: int) -> None:
    raw = text.encode()
    pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
    start, *bodies = await sent_by(TextResponse(opened(*pieces), '{"output":', "}"))
    assert b"content-length" not in dict(start["headers"])
    assert json.loads(b"".join(body["body"] for body in bodies)) == {"output": text}


async def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    _, *bodies = await sent_by(TextResponse(opened(b"a\xff", b"b\xe6\x97"), "", ""))
    assert json.loads(b"".join(body["body"] for body in bodies)) == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
