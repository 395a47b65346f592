"""``GET /transfers/{id}/events``: a transfer's story and what happens to it, as server-sent events."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.types import Receive, Scope, Send

from stagecoach.api.access import Tools, TransfersReader
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.api.tokens import TokenChecker
from stagecoach.api.transfers import TransferId
from stagecoach.core.access import Caller
from stagecoach.core.errors import TooManyRequests
from stagecoach.core.roads import seconds_left
from stagecoach.core.transfer import HistoryEntry, Transfer
from stagecoach.flows.show_transfers import show_history
from stagecoach.flows.toolbox import Toolbox
from stagecoach.flows.watch_transfers import Watched, Watching
from stagecoach.wire import transfers as wire
from stagecoach.wire.views import legs_view, watched_view

_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)

# What the document says of each; OpenAPI 3.2's word for it, which those who read streams look for in 3.1 as well.
EVENT = {
    "type": "object",
    "properties": {
        "event": {"enum": ["story", "state", "progress"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "id": {"type": "string", "pattern": "^[0-9]+$", "description": "Of a line of the story: its number."},
    },
    "required": ["event", "data"],
}

router = APIRouter(prefix="/transfers", tags=["transfers"], responses=PROBLEM_ANSWERS)


class Streams:
    """The streams of this process: what they follow, and how many each user has open."""

    def __init__(self) -> None:
        self.watching = Watching()
        self.open: Counter[str] = Counter()

    def close(self) -> None:
        """The process ends: all streams end at once."""
        self.watching.close()


class _Stream(StreamingResponse):
    """Counts as open from its first byte until it ends, however it ends."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[bytes], streams: Streams, username: str, limit: int) -> None:
        super().__init__(content, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._streams = streams
        self._username = username
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises TooManyRequests before anything is sent."""
        opened = self._streams.open
        if opened[self._username] >= self._limit:
            raise TooManyRequests(
                f"You have {self._limit} streams of events open, which is the limit; close some first.",
                data={"limit": self._limit},
            )
        opened[self._username] += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            opened[self._username] -= 1
            if not opened[self._username]:
                del opened[self._username]


@router.get(
    "/{transfer_id}/events",
    summary="Watch a transfer",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {"itemSchema": EVENT}}, "description": "Until the transfer has ended."},
        204: {"description": "It has ended, and Last-Event-ID was the last line of its story: do not ask again."},
    },
)
async def get_events(
    transfer_id: TransferId,
    caller: TransfersReader,
    tools: Tools,
    request: Request,
    last_event_id: Annotated[
        str | None,
        Header(max_length=64, description="The number of the last line of the story that came; it goes on after that one."),
    ] = None,
) -> Response:
    """Server-sent events: `story` (a line of its story, from the first one on, its number as id), then as things happen
    `state` (the transfer as GET /transfers/{id} shows it, without its story) and `progress` (its bytes; between two systems
    with those of both legs).

    Ends when the transfer has ended or the token has expired.
    """
    transfer, story = await show_history(tools, caller, transfer_id)
    number = int(last_event_id) if last_event_id and _NUMBER.fullmatch(last_event_id) else 0
    if transfer.state.is_end and number and story and story[-1].number <= number:
        return Response(status_code=204)
    streams: Streams = request.app.state.streams
    tokens: TokenChecker = request.app.state.tokens
    events = _events(tools, streams.watching, tokens, caller, transfer, number)
    return _Stream(events, streams, caller.username, tools.settings.events.max_streams_per_user)


async def _events(
    tools: Toolbox, watching: Watching, tokens: TokenChecker, caller: Caller, transfer: Transfer, number: int
) -> AsyncIterator[bytes]:
    """``number`` is the last line of the story that is known already."""
    heartbeat_seconds = tools.settings.events.heartbeat_seconds
    told: Transfer | None = None
    async with AsyncExitStack() as stack:
        watched = await stack.enter_async_context(watching.watch(tools, transfer.id))
        leg: Watched | None = None
        if transfer.source_transfer_id is not None:
            leg = await stack.enter_async_context(watching.watch(tools, transfer.source_transfer_id))
            await leg.wait(None, heartbeat_seconds)
        while not watching.is_closed and (seconds_left := tokens.seconds_left(caller)) > 0:
            sight, is_silent = watched.latest, True
            if sight is not None:
                for line in sight.story:
                    if line.number > number:
                        number, is_silent = line.number, False
                        yield _story(line)
                for event in _news(told, sight.transfer, leg.latest.transfer if leg is not None and leg.latest else None):
                    is_silent = False
                    yield event
                told = sight.transfer
                if told.state.is_end:
                    return
            if is_silent:
                yield KEEPALIVE_COMMENT
            await watched.wait(sight, min(heartbeat_seconds, seconds_left))


def _news(before: Transfer | None, now: Transfer, leg: Transfer | None) -> list[bytes]:
    """``leg`` is the source leg of a relay, which is at work while the transfer waits for it."""
    if before is None or before.state is not now.state:
        return [format_sse_event(event="state", data_str=watched_view(now, leg).model_dump_json(by_alias=True))]
    if _counts(before) != _counts(now):
        progress = wire.ProgressEvent(
            id=now.id,
            size_bytes=now.size_bytes,
            bytes_staged=now.bytes_staged,
            bytes_moved=now.bytes_moved,
            rate_bytes_per_second=now.rate_bytes_per_second,
            file_count=now.file_count,
            files_moved=now.files_moved,
            seconds_left=seconds_left(now),
            current_file=now.current_file,
            notices=now.notices,
            legs=legs_view(now, leg),
        )
        return [format_sse_event(event="progress", data_str=progress.model_dump_json(by_alias=True))]
    return []


def _counts(transfer: Transfer) -> tuple[object, ...]:
    return (transfer.bytes_staged, transfer.bytes_moved, transfer.files_moved, transfer.current_file, transfer.notices)


def _story(line: HistoryEntry) -> bytes:
    shown = wire.HistoryLine(at=line.at, state=line.state.value, message=line.message)
    return format_sse_event(event="story", id=str(line.number), data_str=shown.model_dump_json(by_alias=True))
