"""What a job does with files that stay on their system: the operations of FirecREST's ``transfer/`` routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from stagecoach.core.file_commands import Compression


class Operation(StrEnum):
    """The kind of work, by the name of its route."""

    MOVE = "mv"
    COPY = "cp"
    REMOVE = "rm"
    COMPRESS = "compress"
    EXTRACT = "extract"

    @property
    def noun(self) -> str:
        """For the story."""
        return {"mv": "Move", "cp": "Copy", "rm": "Removal", "compress": "Compression", "extract": "Extraction"}[self.value]

    @property
    def participle(self) -> str:
        """What has become of the files when it is done."""
        return {"mv": "moved", "cp": "copied", "rm": "removed", "compress": "packed", "extract": "unpacked"}[self.value]


@dataclass(frozen=True, slots=True)
class OperationOptions:
    """How it is to be done. ``merges``: the target is a directory that stands there, and what comes is added to it."""

    dereference: bool = False
    compression: Compression = Compression.GZIP
    match_pattern: str | None = None
    from_inside: bool = False
    """Compress: names in the archive begin below the source, not with its own name."""
    merges: bool = False

    def as_document(self) -> dict[str, Any]:
        """For the database and for the ticket."""
        return {**asdict(self), "compression": self.compression.value}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> OperationOptions:
        """What :meth:`as_document` wrote."""
        return cls(**{**document, "compression": Compression(document["compression"])})
