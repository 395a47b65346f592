"""An object store in memory, for tests of flows: the port's promises with S3's own rules, and nothing on a network.

URLs begin with ``memory://``; ``follow`` does what one of them permits, as a client would over HTTP.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from stagecoach.core.errors import BucketMissing, Conflict, InvalidRequest, PartsMissing, StoreUnavailable
from stagecoach.core.parts import MAX_PART_COUNT, MIN_PART_SIZE_BYTES
from stagecoach.ports.object_store import Audience, ListedMultipart, ListedObject, StoredObject, StoredPart
from stagecoach.settings import S3Settings

_MAX_TTL_SECONDS = 7 * 24 * 3600
_PART_ELEMENT = re.compile(r"<PartNumber>\s*(\d+)\s*</PartNumber>\s*<ETag>\s*([^<]+?)\s*</ETag>")


@dataclass
class _Upload:
    key: str
    begun_at: datetime
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass
class _Object:
    content: bytes
    etag: str
    modified_at: datetime


@dataclass
class _Bucket:
    objects: dict[str, _Object] = field(default_factory=dict)
    uploads: dict[str, _Upload] = field(default_factory=dict)


class MemoryStore:
    """One store. ``smallest_part_bytes`` may be lowered, so that tests need no 5 MiB parts.

    ``failing`` makes every request raise StoreUnavailable while it is true.
    """

    def __init__(self, clock: Callable[[], datetime], *, smallest_part_bytes: int = MIN_PART_SIZE_BYTES) -> None:
        self._clock = clock
        self._smallest_part_bytes = smallest_part_bytes
        self._buckets: dict[str, _Bucket] = {}
        self._uploads_opened = 0
        self.failing = False
        self._rules = ""

    async def ensure_bucket(self, bucket: str) -> None:
        self._check_up()
        self._buckets.setdefault(bucket, _Bucket())

    def keep_rules_of(self, settings: S3Settings) -> None:
        life = settings.bucket_lifecycle_configuration
        self._rules = f"{life.days} {life.abort_incomplete_multipart_days}"

    def bucket_rules_fingerprint(self) -> str:
        return f"memory {self._rules}"

    async def open_multipart(self, bucket: str, key: str) -> str:
        self._uploads_opened += 1
        upload_id = f"upload~{self._uploads_opened}"
        self._bucket(bucket).uploads[upload_id] = _Upload(key, self._clock())
        return upload_id

    async def find_multiparts(self, bucket: str, key: str) -> list[str]:
        self._check_up()
        there = self._buckets.get(bucket, _Bucket()).uploads
        return [upload_id for upload_id, upload in there.items() if upload.key == key]

    async def list_buckets(self, prefix: str) -> list[str]:
        self._check_up()
        return sorted(name for name in self._buckets if name.startswith(prefix))

    async def list_objects(self, bucket: str) -> AsyncIterator[ListedObject]:
        for key, there in sorted(self._bucket(bucket).objects.items()):
            yield ListedObject(key, len(there.content), there.modified_at)

    async def list_multiparts(self, bucket: str) -> list[ListedMultipart]:
        self._check_up()
        there = self._buckets.get(bucket, _Bucket()).uploads
        return [ListedMultipart(upload.key, upload_id, upload.begun_at) for upload_id, upload in there.items()]

    def remove_bucket(self, bucket: str) -> None:
        """For tests: somebody removes it with all that is in it."""
        del self._buckets[bucket]

    async def list_parts(self, bucket: str, key: str, upload_id: str) -> list[StoredPart] | None:
        upload = self._upload(bucket, key, upload_id)
        if upload is None:
            return None
        return [StoredPart(number, len(part), _quoted_md5(part)) for number, part in sorted(upload.parts.items())]

    async def complete_multipart(self, bucket: str, key: str, upload_id: str, parts: Sequence[StoredPart]) -> None:
        self.complete(bucket, key, upload_id, {part.number: part.etag for part in parts})

    async def abort_multipart(self, bucket: str, key: str, upload_id: str) -> None:
        if self._upload(bucket, key, upload_id) is not None:
            del self._buckets[bucket].uploads[upload_id]

    async def head_object(self, bucket: str, key: str) -> StoredObject | None:
        there = self._object(bucket, key)
        return None if there is None else StoredObject(len(there.content), there.etag)

    async def read_object(self, bucket: str, key: str, limit_bytes: int) -> bytes | None:
        there = self._object(bucket, key)
        return None if there is None else there.content[:limit_bytes]

    async def write_object(self, bucket: str, key: str, content: bytes) -> None:
        self._bucket(bucket).objects[key] = _Object(content, _quoted_md5(content), self._clock())

    async def delete_objects(self, bucket: str, keys: Sequence[str]) -> None:
        self._check_up()
        for key in keys:
            self._buckets.get(bucket, _Bucket()).objects.pop(key, None)

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
        if not 1 <= ttl_seconds <= _MAX_TTL_SECONDS:
            raise ValueError(f"a presigned URL lives between 1 and {_MAX_TTL_SECONDS} seconds, not {ttl_seconds}")
        ends = (self._clock() + timedelta(seconds=ttl_seconds)).isoformat()
        host = f"{audience}.{system}" if system and audience == "system" else audience
        permission = urlencode({**(query or {}), **(headers or {}), "method": method, "ends": ends}, quote_via=quote)
        url = f"memory://{host}/{quote(bucket, safe='')}/{quote(key)}?{permission}"
        return f"{url}&seal={_seal(url)}"

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
        queries = ({"uploadId": upload_id, "partNumber": str(number)} for number in numbers)
        return [
            self.presign("PUT", bucket, key, audience=audience, ttl_seconds=ttl_seconds, system=system, query=query)
            for query in queries
        ]

    def put_part(self, bucket: str, key: str, upload_id: str, number: int, content: bytes) -> StoredPart:
        """For tests: what a client does with a part's URL."""
        upload = self._upload(bucket, key, upload_id)
        if upload is None:
            raise Conflict("The multipart upload is no longer open at the S3 store.")
        if not 1 <= number <= MAX_PART_COUNT:
            raise InvalidRequest(f"Part {number} is not between 1 and {MAX_PART_COUNT}.")
        upload.parts[number] = content
        return StoredPart(number, len(content), _quoted_md5(content))

    def complete(self, bucket: str, key: str, upload_id: str, etags: Mapping[int, str] | None = None) -> StoredObject:
        """For tests: what a client does with the complete URL; without ``etags``, with all parts there are."""
        upload = self._upload(bucket, key, upload_id)
        if upload is None:
            there = self._object(bucket, key)
            if there is None:
                raise Conflict("The multipart upload is no longer open at the S3 store.")
            return StoredObject(len(there.content), there.etag)
        numbers = sorted(upload.parts if etags is None else etags)
        held = {number: _quoted_md5(upload.parts[number]) for number in numbers if number in upload.parts}
        if not numbers or any(held.get(number, "").strip('"') != etag.strip('"') for number, etag in (etags or held).items()):
            raise PartsMissing("The S3 store cannot join the parts: some are missing or not the ones it holds.")
        if any(len(upload.parts[number]) < self._smallest_part_bytes for number in numbers[:-1]):
            raise InvalidRequest("The S3 store cannot join the parts: one of them is smaller than S3 allows.")
        digests = b"".join(_md5(upload.parts[number]).digest() for number in numbers)
        content = b"".join(upload.parts[number] for number in numbers)
        whole = _Object(content, f'"{_md5(digests).hexdigest()}-{len(numbers)}"', self._clock())
        self._buckets[bucket].objects[key] = whole
        del self._buckets[bucket].uploads[upload_id]
        return StoredObject(len(whole.content), whole.etag)

    def follow(self, method: str, url: str, content: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """For tests: the status, headers and body that a client gets who uses a URL of ours."""
        sealed, _, seal = url.rpartition("&seal=")
        parts = urlsplit(sealed)
        _, bucket, key = (unquote(piece) for piece in parts.path.split("/", 2))
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if seal != _seal(sealed) or query["method"] != method or self._clock() > datetime.fromisoformat(query["ends"]):
            return 403, {}, b"<Error><Code>AccessDenied</Code></Error>"
        try:
            if method == "PUT" and "uploadId" in query:
                part = self.put_part(bucket, key, query["uploadId"], int(query["partNumber"]), content)
                return 200, {"ETag": part.etag}, b""
            if method == "POST":
                etags = {int(number): etag for number, etag in _PART_ELEMENT.findall(_unescaped(content))}
                whole = self.complete(bucket, key, query["uploadId"], etags)
                return 200, {}, f"<CompleteMultipartUploadResult><ETag>{whole.etag}</ETag>".encode()
            if method == "PUT":
                self._bucket(bucket).objects[key] = _Object(content, _quoted_md5(content), self._clock())
                return 200, {"ETag": _quoted_md5(content)}, b""
        except Conflict as error:
            return (400, {}, b"InvalidPart") if isinstance(error, PartsMissing) else (404, {}, b"NoSuchUpload")
        except InvalidRequest:
            return 400, {}, b"EntityTooSmall"
        except StoreUnavailable:
            return 503, {}, b"ServiceUnavailable"
        there = self._object(bucket, key)
        if there is None:
            return 404, {}, b"NoSuchKey"
        headers = {"ETag": there.etag, "Content-Length": str(len(there.content))}
        return 200, headers, there.content if method == "GET" else b""

    def _check_up(self) -> None:
        if self.failing:
            raise StoreUnavailable("The S3 store cannot be reached.")

    def _bucket(self, bucket: str) -> _Bucket:
        self._check_up()
        if bucket not in self._buckets:
            raise BucketMissing("The bucket is gone from the S3 store.")
        return self._buckets[bucket]

    def _upload(self, bucket: str, key: str, upload_id: str) -> _Upload | None:
        self._check_up()
        upload = self._buckets.get(bucket, _Bucket()).uploads.get(upload_id)
        return upload if upload is not None and upload.key == key else None

    def _object(self, bucket: str, key: str) -> _Object | None:
        self._check_up()
        return self._buckets.get(bucket, _Bucket()).objects.get(key)


def _md5(content: bytes) -> hashlib._Hash:
    return hashlib.md5(content, usedforsecurity=False)


def _quoted_md5(content: bytes) -> str:
    return f'"{_md5(content).hexdigest()}"'


def _seal(url: str) -> str:
    """Shows that a URL is as it was made; no secret, since only tests make such URLs."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def _unescaped(content: bytes) -> str:
    return content.decode().replace("&quot;", '"')
