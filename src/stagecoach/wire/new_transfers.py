"""What ``POST /transfers`` is asked and answers: a transfer by its two ends, of which one may be the client."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from stagecoach.wire.digests import SaidDigests
from stagecoach.wire.firecrest import Account, Archive, PathText, TransferState, WebhookUrl
from stagecoach.wire.shapes import Shape, SizeBytes
from stagecoach.wire.transfers import TransferView

SystemText = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]


class EndRequest(Shape):
    """An end on a system."""

    system: SystemText
    path: PathText
    account: Account = Field(None, description="Who is charged for the staging job there, where it is not `account`.")


_GIVEN: dict[str, Any] = {"type": "object"}


class NewTransfer(SaidDigests):
    """From ``source`` to ``destination``; null is the client that asks. Of the digests, those of parts are a client's to
    give, and those of the whole are compared wherever the bytes end on a system."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {
                    "required": ["source"],
                    "properties": {"source": _GIVEN, "sizeBytes": {"type": "null"}, "partDigests": {"type": "null"}},
                },
                {
                    "required": ["destination", "sizeBytes"],
                    "properties": {"source": {"type": "null"}, "destination": _GIVEN, "sizeBytes": {"not": {"type": "null"}}},
                },
            ],
            "examples": [
                {
                    "source": {"system": "alps", "path": "/home/alice/run1.h5"},
                    "destination": {"system": "bora", "path": "/home/alice/run1.h5"},
                },
                {"destination": {"system": "alps", "path": "/home/alice/big.bin"}, "sizeBytes": 7340032},
                {"source": {"system": "alps", "path": "/home/alice/results"}, "archive": "tar"},
            ],
        }
    )

    source: EndRequest | None = None
    destination: EndRequest | None = None
    size_bytes: SizeBytes | None = Field(None, description="What a client will send; what a system sends is measured there.")
    account: Account = None
    archive: Archive | None = Field(None, description="tar: a directory, with all that is in it, as one tar stream.")
    webhook_url: WebhookUrl = None
    road: Literal["auto", "direct", "staged"] | None = Field(
        None,
        description="Between two nodes: direct, straight from one to the other, or refused (409) where that is not possible; "
        "staged, through the staging area; auto, which is meant when it is left out, direct where it is possible.",
    )
    rate_limit_bytes_per_second: Annotated[int, Field(ge=1024, le=2**50)] | None = Field(
        None, description="At most so fast, on the direct road between two nodes."
    )


class ClientUpload(Shape):
    """Where the client puts what it sends: bytes [i × partSizeBytes, (i+1) × partSizeBytes) to the i-th URL."""

    part_size_bytes: int
    part_urls: list[str]
    complete_url: str


class BegunTransfer(Shape):
    """The transfer, and what its client works with."""

    transfer: TransferView
    upload: ClientUpload | None = Field(None, description="The source is the client, and parts can be put.")
    download_url: str | None = Field(
        None, description="The destination is the client: holds as soon as the transfer is staged, until it ends."
    )
    transfer_state: TransferState = None
