"""Our own shapes: transfers, parts, finishing."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from stagecoach.wire.digests import SaidDigests
from stagecoach.wire.shapes import Shape


class HistoryLine(Shape):
    """One line of a transfer's story."""

    at: datetime
    state: str
    message: str


class Proof(Shape):
    """One comparison that held: ``how`` is size, multipart_etag, md5, sha256, crc32, part_md5, part_sha256 or part_crc32."""

    how: str
    value: str


class EndView(Shape):
    """One end of a transfer, on a system."""

    system: str
    path: str


class LegView(Shape):
    """One of the two legs of a transfer between two systems, each carried by a staging job."""

    leg: str = Field(description="source: from its system to the staging area; destination: from there to its place.")
    transfer_id: str = Field(description="Its own row: of the source leg another than the transfer's.")
    system: str
    path: str
    state: str
    code: str | None = None
    reason: str | None = None
    size_bytes: int | None = None
    bytes_moved: int = Field(description="Bytes its staging job has moved.")
    rate_bytes_per_second: float
    job_id: str | None = None
    job_state: str | None = None
    job_reason: str | None = None
    job_log: str | None = Field(None, description="What its job printed, once it has ended.")
    road: str = "staged"
    file_count: int | None = None
    files_moved: int = 0
    seconds_left: float | None = None
    current_file: str | None = None
    notices: tuple[str, ...] = ()
    proved: tuple[Proof, ...] = ()


class TransferView(Shape):
    """A transfer as its owner sees it. Sizes in bytes, times UTC."""

    id: str
    owner: str
    system: str = Field(description="Where it comes from or goes to; of a transfer between two systems its destination.")
    direction: str = Field(
        description="upload (also between two systems), download, or within: an operation on files that stay on the system"
    )
    source: EndView | None = Field(None, description="Where the bytes come from; null: from a client.")
    destination: EndView | None = Field(None, description="Where the bytes go; null: to a client, or nowhere.")
    relay_of: str | None = Field(None, description="This is the source leg of that transfer, between two systems.")
    operation: str | None = Field(None, description="within: mv, cp, rm, compress or extract.")
    source_path: str | None = Field(
        None, description="within: what is moved, copied, packed or unpacked. Between two systems: the path on the source's."
    )
    path: str = Field(description="within: the target, or what is removed.")
    archive: str | None = Field(None, description="tar: path names a directory, which travels as one tar stream.")
    size_bytes: int | None = Field(
        description="Of what is sent: the staged object, or of what the operation works on; null until a job has measured it."
    )
    state: str = Field(description="preparing, receiving, staged, queued, moving, done, failed, cancelling, cancelled or expired")
    meaning: str = Field(description="The state in a sentence.")
    code: str | None = Field(None, description="Stable code of a failure.")
    reason: str | None = Field(None, description="Why it waits or ended, in plain words.")
    bytes_staged: int = Field(description="Bytes in the staging area.")
    bytes_moved: int = Field(description="Bytes the staging job has moved.")
    file_count: int | None = Field(
        None, description="within, and straight between nodes: files, directories and links; null until they are counted."
    )
    files_moved: int = Field(0, description="How many of them are done.")
    rate_bytes_per_second: float
    part_size_bytes: int = Field(description="While sizeBytes is null: the smallest that the job may choose. within: 0.")
    part_count: int | None = Field(description="null as sizeBytes is, and where nothing is staged.")
    account: str | None = None
    job_id: str | None = None
    job_state: str | None = Field(None, description="In the scheduler's own words.")
    job_reason: str | None = None
    proved: tuple[Proof, ...] = ()
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    road: str = Field(
        "staged", description="direct: straight from node to node; staged: through the staging area. Both legs have the same."
    )
    wanted_road: str | None = Field(None, description="direct or staged, where its owner insisted on it.")
    road_reason: str | None = Field(None, description="Between two nodes: why it is not direct.")
    rate_limit_bytes_per_second: int | None = Field(None, description="Of the direct road.")
    seconds_left: float | None = Field(None, description="At the present rate; null where that cannot be told.")
    current_file: str | None = Field(None, description="On the direct road: what is being sent.")
    notices: tuple[str, ...] = Field((), description="What its owner should know of how it went, in sentences.")
    retry_until: datetime | None = Field(
        None, description="A failed transfer: until when `POST /transfers/{id}/retry` goes on from what is staged."
    )


class WebhookView(Shape):
    """How telling the transfer's webhook goes. Its URL may hold a secret, so only the host is shown."""

    host: str
    pending: int = Field(description="Messages that are still to be delivered.")
    trouble: str | None = Field(
        None, description="Why the latest of those that are late or were given up could not be delivered."
    )


class WatchedView(TransferView):
    """As it is shown to who looks at this one transfer."""

    legs: tuple[LegView, ...] = Field((), description="Between two systems: the source's and the destination's; else none.")


class TransferDetail(WatchedView):
    """With its story, oldest line first, and what the job printed once it has ended."""

    history: list[HistoryLine]
    job_log: str | None = None
    webhook: WebhookView | None = None


class ProgressEvent(Shape):
    """How far a transfer is."""

    id: str
    size_bytes: int | None
    bytes_staged: int
    bytes_moved: int
    rate_bytes_per_second: float
    file_count: int | None = None
    files_moved: int = 0
    seconds_left: float | None = Field(None, description="At the present rate; null where that cannot be told.")
    current_file: str | None = Field(None, description="On the direct road between nodes: what is being sent.")
    notices: tuple[str, ...] = ()
    legs: tuple[LegView, ...] = ()


class NetworkCheckView(Shape):
    """What the sending node found of the way to the receiving one, and how fast it was used."""

    at: datetime
    check: dict[str, Any] = Field(description="As its agent reports it; `probeBytesPerSecond` is what a short probe reached.")
    rates: list[list[float]] = Field(description="Pairs: seconds since the start, bytes until then; at most 240, once it ended.")


class TransferPage(Shape):
    """Newest first. ``next`` is the ``after`` of the next page; absent on the last one."""

    transfers: list[TransferView]
    next: str | None = None


class PartStored(Shape):
    """A part the store has."""

    number: int
    size_bytes: int
    etag: str


class PartMissing(Shape):
    """A part still to be put, with a fresh URL: bytes [offset, offset + size)."""

    number: int
    offset_bytes: int
    size_bytes: int
    url: str


class PartsView(Shape):
    """What the store has of an upload, and URLs for the rest."""

    id: str
    part_size_bytes: int
    part_count: int
    stored: list[PartStored]
    missing: list[PartMissing]
    complete_upload_url: str


class FinishRequest(SaidDigests):
    """What the client knows of the file; optional."""

    etag: str | None = Field(
        None, max_length=200, pattern=r"^[\x21-\x7e]+$", description="The ETag the store answered to the completion."
    )


class TransferChange(Shape):
    """What shall be different from now on."""

    rate_limit_bytes_per_second: Annotated[int, Field(ge=1024, le=2**50, strict=True)] | None = Field(
        description="At most so fast, on the direct road between two nodes; null: as fast as it goes."
    )


class DownloadUrl(Shape):
    """Fresh URLs of the staged object."""

    download_url: str
    head_url: str = Field(description="The same for HEAD: size and ETag without the data.")
    expires_at: datetime = Field(description="When the URL stops working.")


class Health(Shape):
    """``ok`` when this process can work."""

    status: str
    version: str
    database: bool
