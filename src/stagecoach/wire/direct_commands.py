"""What stands in ``spec`` of the commands of the direct road, and in ``result`` of their ends. Their kinds are the names.

``transferId`` is everywhere the id that people see. Paths begin at the node's send or receive directory. Keys are never
in a spec: they come beside it, as the command's ``secret``.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, SecretStr

from stagecoach.wire.agent import Bytes, Id, Receiver
from stagecoach.wire.shapes import Shape

BUCKET = "data"
MOST_RATES = 240
_PRINTABLE = r"^[^\x00-\x1f\x7f]*$"

NodePath = Annotated[str, Field(min_length=2, max_length=4096, pattern="^/")]
Rate = Annotated[int, Field(ge=1024, le=2**50)]


class ReceiveSpec(Shape):
    """``receive``: keep a fresh hidden folder beside the target open for one key, until the service cancels it.

    The folder is ``<directory of the target>/.stagecoach-<transferId>.part``; to whoever has the key it is bucket ``data``.
    It stays when the command ends, and is there again, with what it holds, for the next ``receive`` of the transfer.
    """

    transfer_id: Id
    target_path: NodePath
    is_directory: bool
    max_bytes: Bytes | None = Field(
        default=None,
        description="What may arrive in all; answers to reports of progress tell a newer bound. Null: there is none.",
    )


class SendSpec(Shape):
    """``send``: copy what is at ``sourcePath`` into the receiver's folder, and compare.

    One file is stored as ``<folder>/<fileName>``, a directory's files below ``<folder>/``. With ``inParts`` files of 128 MiB and
    more are stored as ``<folder>/.stagecoach-parts/<file>/<part>``, and last their list, by which ``place`` joins them.
    """

    transfer_id: Id
    source_path: NodePath
    is_directory: bool
    endpoint: Receiver
    bucket: str = BUCKET
    folder: str = ""
    file_name: str | None = Field(default=None, description="Of one file: the last name of the target. Null of a directory.")
    rate_limit_bytes_per_second: Rate | None = None
    in_parts: bool = Field(default=False, description="Who receives can join large files that come in parts.")


class SendResult(Shape):
    """``result`` of a good end of ``send`` and ``send_to_store``; of a bad one ``check`` and ``rates`` are wanted still.

    ``check`` (here and in reports of progress) has ``probeBytesPerSecond``, what the probe of the way reached, and whatever
    else people should read.
    """

    size_bytes: Bytes
    files: Bytes
    verified: bool
    compared_files: Bytes = 0
    notices: list[str] = Field(default=[])
    check: dict[str, Any] | None = None
    rates: list[tuple[float, int]] = Field(default=[], max_length=MOST_RATES, description="Seconds since the start, bytes.")


class PlaceSpec(Shape):
    """``place``: what the folder holds is what the sender said; move it to the target."""

    transfer_id: Id
    target_path: NodePath
    is_directory: bool
    size_bytes: Bytes
    files: Bytes


class PlaceResult(Shape):
    """``result`` of a good end of ``place``."""

    size_bytes: Bytes
    files: Bytes


class DiscardSpec(Shape):
    """``discard``: remove the hidden folder or file of a transfer, and its journal. ``targetPath`` null: wherever they are."""

    transfer_id: Id
    target_path: NodePath | None = None


class StoreEndpoint(Shape):
    """Any S3 store, as its owner typed it."""

    host: str = Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9.:_-]+$")
    port: int = Field(ge=1, le=65535)
    tls: bool = True
    ca_pem: str | None = Field(default=None, max_length=65536, pattern=r"^[\t\n\r -~]*$")
    certificate_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")


class SendToStoreSpec(Shape):
    """``send_to_store``: copy what is at ``sourcePath`` into a bucket of any store. No transfer belongs to it."""

    source_path: NodePath
    is_directory: bool
    endpoint: StoreEndpoint
    bucket: str = Field(pattern=r"^[a-z0-9A-Z._-]{1,255}$")
    folder: str = Field(default="", max_length=1024, pattern=_PRINTABLE)
    file_name: str | None = Field(
        default=None, min_length=1, max_length=1024, pattern=_PRINTABLE, description="Null of a directory."
    )
    rate_limit_bytes_per_second: Rate | None = None


class SendRequest(SendToStoreSpec):
    """``POST /nodes/{id}/sends``: the same, with the key of the store, which is shown to nobody but the node's agent."""

    access_key_id: str = Field(min_length=1, max_length=256)
    secret_access_key: SecretStr = Field(min_length=1, max_length=256)
