"""What Stagecoach asks of an S3 store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from stagecoach.settings import S3Settings

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


@dataclass(frozen=True, slots=True)
class ListedObject:
    """One object of a bucket."""

    key: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class ListedMultipart:
    """One open multipart upload of a bucket."""

    key: str
    upload_id: str
    begun_at: datetime | None
    """None where the store does not say."""


class ObjectStore(Protocol):
    """Every call is idempotent. Raises StoreUnavailable when the store does not answer or answers with an error of its own."""

    async def ensure_bucket(self, bucket: str) -> None:
        """The bucket exists and its lifecycle and CORS rules match the settings. Races and repeats are fine."""

    def keep_rules_of(self, settings: S3Settings) -> None:
        """From now on the rules of buckets are made from these settings; where the store is stays as it was."""

    def bucket_rules_fingerprint(self) -> str:
        """Changes when the settings that bucket rules are made from change."""

    async def open_multipart(self, bucket: str, key: str) -> str:
        """A new multipart upload; returns its upload id. Raises BucketMissing when there is no such bucket."""

    async def find_multiparts(self, bucket: str, key: str) -> list[str]:
        """Upload ids open for exactly this key."""

    async def list_buckets(self, prefix: str) -> list[str]:
        """Names of this account's own buckets that begin with ``prefix``, sorted."""

    def list_objects(self, bucket: str) -> AsyncIterator[ListedObject]:
        """Every object, over every page as it is asked for. Raises BucketMissing when there is no such bucket."""

    async def list_multiparts(self, bucket: str) -> list[ListedMultipart]:
        """Every open multipart upload, over every page; none of an absent bucket."""

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
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """One presigned URL (SigV4 in the query). ``query`` holds e.g. ``uploadId``. No I/O. ``ttl_seconds`` ≤ 604800.

        ``headers`` (names in lower case) are signed too: whoever uses the URL must send them.
        """

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
