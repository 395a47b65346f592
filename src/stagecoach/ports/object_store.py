"""What Stagecoach asks of an S3 store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Audience = Literal["client", "system", "service"]
"""Who will use a URL: a client (public URL), a compute node (the system's own URL of the store), or this service."""


@dataclass(frozen=True, slots=True)
class StoredPart:
    """One part the store holds. ``etag`` as the store gives it, quotes included."""

    number: int
    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that is whole."""

    size_bytes: int
    etag: str


class ObjectStore(Protocol):
    """Every call is idempotent. Raises StoreUnavailable when the store does not answer or answers with an error of its own."""

    async def ensure_bucket(self, bucket: str) -> None:
        """The bucket exists and its lifecycle and CORS rules match the settings. Races and repeats are fine."""

    def bucket_rules_fingerprint(self) -> str:
        """Changes when the settings that bucket rules are made from change."""

    async def open_multipart(self, bucket: str, key: str) -> str:
        """A new multipart upload; returns its upload id. Raises BucketMissing when there is no such bucket."""

    async def find_multiparts(self, bucket: str, key: str) -> list[str]:
        """Upload ids open for exactly this key."""

    async def list_parts(self, bucket: str, key: str, upload_id: str) -> list[StoredPart] | None:
        """All parts by number, over every page; None when the upload does not exist (completed or aborted)."""

    async def complete_multipart(self, bucket: str, key: str, upload_id: str, parts: Sequence[StoredPart]) -> None:
        """Complete; a second call for an upload that is already complete succeeds when the object exists."""

    async def abort_multipart(self, bucket: str, key: str, upload_id: str) -> None:
        """Abort; an unknown upload is fine."""

    async def head_object(self, bucket: str, key: str) -> StoredObject | None:
        """None when there is no such object (or bucket)."""

    async def read_object(self, bucket: str, key: str, limit_bytes: int) -> bytes | None:
        """At most ``limit_bytes`` from the start; None when there is no such object."""

    async def write_object(self, bucket: str, key: str, content: bytes) -> None:
        """Replace or create a small object."""

    async def delete_objects(self, bucket: str, keys: Sequence[str]) -> None:
        """Delete; absent keys and an absent bucket are fine."""

    def presign(
        self,
        method: Literal["GET", "HEAD", "PUT", "POST"],
        bucket: str,
        key: str,
        *,
        audience: Audience,
        ttl_seconds: int,
        system: str | None = None,
        query: Mapping[str, str] | None = None,
    ) -> str:
        """One presigned URL (SigV4 in the query). ``query`` holds e.g. ``uploadId``. No I/O. ``ttl_seconds`` ≤ 604800."""

    def presign_parts(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        numbers: Sequence[int],
        *,
        audience: Audience,
        ttl_seconds: int,
        system: str | None = None,
    ) -> list[str]:
        """One presigned part PUT for each of ``numbers``, in that order. 10,000 take well under 0.3 s."""
