"""Our own shapes: transfers, parts, finishing."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from stagecoach.wire.firecrest import Sha256
from stagecoach.wire.shapes import Shape


class HistoryLine(Shape):
    """One line of a transfer's story."""

    at: datetime
    state: str
    message: str


class Proof(Shape):
    """One comparison that held: ``how`` is size, part_md5, multipart_etag, md5 or sha256."""

    how: str
    value: str


class TransferView(Shape):
    """A transfer as its owner sees it. Sizes in bytes, times UTC."""

    id: str
    owner: str
    system: str
    direction: str = Field(description="upload or download")
    path: str
    size_bytes: int
    state: str = Field(description="preparing, receiving, staged, queued, moving, done, failed, cancelling, cancelled or expired")
    meaning: str = Field(description="The state in a sentence.")
    code: str | None = Field(None, description="Stable code of a failure.")
    reason: str | None = Field(None, description="Why it waits or ended, in plain words.")
    bytes_staged: int = Field(description="Bytes in the staging area.")
    bytes_moved: int = Field(description="Bytes the staging job has moved.")
    rate_bytes_per_second: float
    part_size_bytes: int
    part_count: int
    account: str | None = None
    job_id: str | None = None
    job_state: str | None = Field(None, description="In the scheduler's own words.")
    job_reason: str | None = None
    proved: tuple[Proof, ...] = ()
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    ended_at: datetime | None = None


class TransferDetail(TransferView):
    """With its story, oldest line first, and what the job printed once it has ended."""

    history: list[HistoryLine]
    job_log: str | None = None


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


class FinishRequest(Shape):
    """What the client knows of the whole file; optional."""

    etag: str | None = Field(
        None, max_length=200, pattern=r"^[\x21-\x7e]+$", description="The ETag the store answered to the completion."
    )
    sha256: Sha256 | None = None


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
