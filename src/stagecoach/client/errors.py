"""What the client raises: the service's own codes and sentences, the transfer they are about, and what to do next."""

from __future__ import annotations

from stagecoach.core.errors import StagecoachError
from stagecoach.wire.transfers import TransferView

PASSING_STATUSES = frozenset({429, 502, 503, 504})
PASSING_CODES = frozenset(
    {
        "interrupted",
        "another_mover",
        "store_unreachable",
        "ticket_expired",
        "already_running",
        "stale_version",
        "request_under_way",
    }
)
MUST_BEGIN_ANEW = frozenset({"source_changed", "source_missing", "digest_mismatch"})


class ClientError(StagecoachError):
    """Root of what the client raises. ``next_step`` is a sentence: what the person can do about it."""

    transfer_id: str | None = None
    can_be_retried = False

    @property
    def next_step(self) -> str | None:
        """None where the message says it all."""
        if self.code == "not_authenticated":
            return "Get a fresh token and log in with it: stagecoach login"
        if self.transfer_id is None:
            return "Try again in a while." if self.retryable else None
        if self.retryable:
            return f"Continue it: stagecoach transfers resume {self.transfer_id}"
        if self.can_be_retried:
            return f"Have it go on from what is staged: stagecoach transfers retry {self.transfer_id}"
        if self.code in MUST_BEGIN_ANEW:
            return f"Cancel it and begin anew: stagecoach transfers cancel {self.transfer_id}"
        return f"See its story: stagecoach transfers show {self.transfer_id}"


class ServiceError(ClientError):
    """The service answered with a problem, or not at all (``status`` 0, code ``service_unreachable``).

    ``code`` and ``message`` are the service's, ``status`` is HTTP's.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        transfer_id: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.transfer_id = transfer_id
        self.retry_after_seconds = retry_after_seconds
        self.retryable = status == 0 or status in PASSING_STATUSES or code in PASSING_CODES


class TransferFailed(ClientError):
    """The transfer ended, but not well, or the client's leg of it did. ``transfer`` is its last view, if there is one."""

    code = "transfer_failed"

    def __init__(
        self,
        message: str,
        code: str | None = None,
        transfer: TransferView | None = None,
        *,
        transfer_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or "transfer_failed"
        self.transfer = transfer
        self.transfer_id = transfer.id if transfer is not None else transfer_id
        self.can_be_retried = transfer is not None and transfer.retry_until is not None
        # A transfer that the service has ended stays ended, whatever ended it.
        self.retryable = transfer is None and self.code in PASSING_CODES
