"""The service as the agent sees it: five questions, each asked once; who asks again, and when, is decided elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from stagecoach.agent.errors import CredentialRefused
from stagecoach.client.asking import Asking, Clock
from stagecoach.client.errors import ServiceError
from stagecoach.wire.agent import (
    EndedReport,
    Enrolled,
    EnrolRequest,
    PollAnswer,
    PollRequest,
    ProgressAnswer,
    ProgressReport,
    StartedReport,
)

TIMEOUT_SECONDS = 30.0
ENROLLING_PATIENCE_SECONDS = 60.0
# Beyond the time that the service was asked to wait.
POLL_MARGIN_SECONDS = 20.0
_REFUSALS = frozenset({401, 403, 409})
GONE = frozenset({404, 409, 410})

T = TypeVar("T", bound=BaseModel)


class AgentService:
    """Every method raises ServiceError, and CredentialRefused when the service wants no more of this agent."""

    def __init__(
        self,
        server: str,
        credential: str | None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._asking = Asking(
            server,
            credential,
            timeout_seconds=TIMEOUT_SECONDS,
            patience_seconds=ENROLLING_PATIENCE_SECONDS,
            transport=transport,
            clock=clock,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._asking.aclose()

    async def enrol(self, request: EnrolRequest) -> Enrolled:
        """Asked again for a while when the answer is lost: the same instance may."""
        try:
            answer = await self._asking.ask("POST", "/agent/enrol", json=_document(request))
        except ServiceError as error:
            if error.status in _REFUSALS and error.code != "http_error":
                raise CredentialRefused(f"{error.message} A token works once: make a new one for the node.") from None
            raise
        return _understood(Enrolled, answer)

    async def poll(self, request: PollRequest) -> PollAnswer:
        """As long as the request says that the service may wait."""
        timeout = httpx.Timeout(TIMEOUT_SECONDS, read=request.wait_seconds + POLL_MARGIN_SECONDS)
        try:
            answer = await self._asking.once("POST", "/agent/poll", json=_document(request), timeout=timeout)
        except ServiceError as error:
            raise _as_refusal(error, _REFUSALS) from None
        return _understood(PollAnswer, answer)

    async def started(self, command_id: str, report: StartedReport) -> None:
        """ServiceError with a status in ``GONE``: the command is no longer this node's."""
        await self._report(command_id, "started", report)

    async def ended(self, command_id: str, report: EndedReport) -> None:
        """The same."""
        await self._report(command_id, "ended", report)

    async def progress(self, command_id: str, report: ProgressReport) -> ProgressAnswer | None:
        """What holds from now on; None of a service that does not say it. Raises the same."""
        answer = await self._report(command_id, "progress", report)
        return _understood(ProgressAnswer, answer) if answer is not None else None

    async def _report(self, command_id: str, what: str, report: BaseModel) -> Any:
        try:
            return await self._asking.once("POST", f"/agent/commands/{command_id}/{what}", json=_document(report))
        except ServiceError as error:
            # 409 speaks of the command here.
            raise _as_refusal(error, _REFUSALS - GONE) from None


def _document(request: BaseModel) -> dict[str, Any]:
    return request.model_dump(mode="json", by_alias=True)


def _understood(shape: type[T], answer: object) -> T:
    try:
        return shape.model_validate(answer)
    except ValidationError as error:
        # The values may be secrets; the places are not.
        places = ", ".join(sorted({".".join(map(str, one["loc"])) for one in error.errors()}))[:200]
        message = f"The service's answer is not understood ({places}): is this agent too old for it?"
        raise ServiceError(200, "answer_not_understood", message) from None


def _as_refusal(error: ServiceError, statuses: frozenset[int]) -> Exception:
    # Without our problem document it may be some proxy's word, which passes.
    if error.status in statuses and not error.retryable and error.code != "http_error":
        return CredentialRefused(
            f"The service refuses this node's credential: {error.message} Nothing more is moved."
            " If the node shall go on, its owner makes a new enrolment token: stagecoach agent enrol."
        )
    return error
