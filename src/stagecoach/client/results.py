"""What the client answers beyond the service's own shapes."""

from __future__ import annotations

from typing import Any, Self

from stagecoach.wire.shapes import Shape
from stagecoach.wire.transfers import Proof, TransferDetail


class ClientLeg(Shape):
    """The client's own leg in the run that ended it: how much crossed the network, what earlier runs had left done."""

    bytes_moved: int
    bytes_resumed: int
    retries: int
    etag: str | None = None
    proved: tuple[Proof, ...] = ()


class CarriedTransfer(TransferDetail):
    """A transfer at its end; ``client_leg`` is absent when nothing of it was left to do."""

    client_leg: ClientLeg | None = None

    @classmethod
    def of(cls, transfer: TransferDetail, receipt: dict[str, Any] | None) -> Self:
        """The service's last view beside the mover's receipt."""
        return cls(**transfer.model_dump(), client_leg=None if receipt is None else ClientLeg.model_validate(receipt))
