"""What a request does is written into the audit log: with who, from where, and what came of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from stagecoach.api.access import Tools
from stagecoach.api.request_rate import RequestRate, address_of
from stagecoach.core.audit_log import DONE, Act
from stagecoach.core.errors import NotAuthenticated, StagecoachError, TooManyRequests
from stagecoach.core.redaction import Redaction
from stagecoach.flows.record_act import record_act
from stagecoach.flows.toolbox import Toolbox

UNFORESEEN = StagecoachError.code
# Who tries tokens all day fills no database: so many a minute of one address, and of all, each process writes down.
REFUSALS_PER_MINUTE_OF_ADDRESS = 10
REFUSALS_PER_MINUTE = 300
_REDACTION = Redaction()


@dataclass
class Noted:
    """What is not known before it is done."""

    target: str | None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trail:
    """What one request does."""

    request: Request
    tools: Toolbox

    @asynccontextmanager
    async def of(self, act: Act, target: str | None = None, **detail: Any) -> AsyncIterator[Noted]:
        """Around the act: its line is written when it is done, or has failed, and says so."""
        noted = Noted(target, detail)
        try:
            yield noted
        except StagecoachError as error:
            await self.record(act, noted.target, error.code, **noted.detail)
            raise
        except Exception:
            await self.record(act, noted.target, UNFORESEEN, **noted.detail)
            raise
        await self.record(act, noted.target, **noted.detail)

    async def record(
        self, what: str, target: str | None = None, result: str = DONE, *, who: str | None = None, **detail: Any
    ) -> None:
        """One line, by the one who sent the request, or who by it became ``who``."""
        state = self.request.state
        await record_act(
            self.tools,
            who or getattr(state, "username", None),
            what,
            # People paste a token where its id belongs.
            None if target is None else _REDACTION.redacted(target),
            result,
            address=address_of(self.request),
            request_id=getattr(state, "request_id", None),
            detail=detail,
        )


def trail(request: Request, tools: Tools) -> Trail:
    """Of this request."""
    return Trail(request, tools)


CurrentTrail = Annotated[Trail, Depends(trail)]


class Refusals:
    """Writes down whose token did not hold; what was in it is nobody's business."""

    def __init__(self) -> None:
        self._of_address = RequestRate(REFUSALS_PER_MINUTE_OF_ADDRESS)
        self._of_all = RequestRate(REFUSALS_PER_MINUTE)

    async def note(self, request: Request, error: NotAuthenticated) -> None:
        """One refusal, unless there were too many."""
        try:
            self._of_address.count_stranger(address_of(request))
            self._of_all.count_user("of all")
        except TooManyRequests:
            return
        path = request.url.path[:200]
        await trail(request, request.app.state.tools).record(
            Act.AUTHENTICATION_REFUSED, path, error.code, reason=error.message, method=request.method[:16]
        )
