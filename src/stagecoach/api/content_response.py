"""Answers that are sent while their content is still being read: in pieces, begun only when the first one is there."""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from stagecoach.flows.read_file import Content


class ContentResponse(Response):
    """The bytes of a file. What goes wrong before the first is an ordinary failure; later, the connection is cut, so that
    nobody takes a part for the whole."""

    media_type = "application/octet-stream"

    def __init__(self, opening: AbstractAsyncContextManager[Content], headers: dict[str, str] | None = None) -> None:
        super().__init__(headers=headers)
        self._opening = opening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Opens, sends and closes, all within the task of the request: its time limit is this task's."""
        async with self._opening as content:
            pieces = self._encoded(content)
            first = await anext(pieces, b"")
            self._announce(content)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": first, "more_body": True})
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _announce(self, content: Content) -> None:
        self.headers["content-length"] = str(content.size_bytes)

    def _encoded(self, content: Content) -> AsyncIterator[bytes]:
        return content.pieces


class TextResponse(ContentResponse):
    """The bytes of a file as one JSON string between ``before`` and ``after``; what is not UTF-8 becomes U+FFFD."""

    media_type = "application/json"

    def __init__(self, opening: AbstractAsyncContextManager[Content], before: str, after: str) -> None:
        super().__init__(opening)
        self._before = before.encode()
        self._after = after.encode()

    def _announce(self, content: Content) -> None:
        # How long it becomes as JSON, nobody knows yet.
        del self.headers["content-length"]

    async def _encoded(self, content: Content) -> AsyncIterator[bytes]:
        # A character may begin in one piece and end in the next.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        before = self._before + b'"'
        async for piece in content.pieces:
            yield before + _escaped(decoder.decode(piece))
            before = b""
        yield before + _escaped(decoder.decode(b"", final=True)) + b'"' + self._after


def _escaped(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False)[1:-1].encode()
