"""What the client raises: the service's own codes and sentences."""

from __future__ import annotations

from stagecoach.core.errors import StagecoachError
from stagecoach.wire.transfers import TransferView


class ServiceError(StagecoachError):
    """The service answered with a problem. ``code`` and ``message`` are the service's, ``status`` is HTTP's."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retryable = status in {429, 502, 503, 504}


class TransferFailed(StagecoachError):
    """The transfer ended, but not well. ``transfer`` is its last view, when the service has one."""

    code = "transfer_failed"

    def __init__(self, message: str, code: str | None = None, transfer: TransferView | None = None) -> None:
        super().__init__(message)
        self.code = code or "transfer_failed"
        self.transfer = transfer
