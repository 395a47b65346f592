"""An HTTP server that answers as told and remembers what it was asked, for answers no real store gives on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """One answer. ``announced`` more bytes than there are makes a truncated one; ``hangs`` makes none."""

    status: int
    body: bytes = b""
    announced: int | None = None
    hangs: bool = False


def error(status: int, code: str) -> Answer:
    """An S3 error, with everything in it that must not reach a user."""
    body = f"<Error><Code>{code}</Code><Message>SECRETMESSAGE</Message><Resource>/b/SECRETKEY</Resource></Error>"
    return Answer(status, f'<?xml version="1.0"?>{body}'.encode())


@dataclass
class CannedStore:
    """Answers with ``answer(asked)``; ``asked`` has all requests."""

    answer: Callable[[Asked], Answer]
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if headers.get("expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        asked = Asked(method, target, headers, body)
        self.asked.append(asked)
        answer = self.answer(asked)
        if answer.hangs:
            await _forever()
        length = len(answer.body) if answer.announced is None else answer.announced
        writer.write(f'HTTP/1.1 {answer.status} X\r\nContent-Length: {length}\r\nETag: "e"\r\n\r\n'.encode())
        writer.write(b"" if method == "HEAD" else answer.body)
        await writer.drain()
        return length == len(answer.body)


def _forever() -> Awaitable[None]:
    return asyncio.Event().wait()  # type: ignore[return-value]
