"""The ObjectStore port on any S3 store: Ceph RGW, AWS, MinIO, ``rclone serve s3``.

Speaks aioboto3 with one client for the life of the service. Signs presigned URLs itself (``presigning.py``). Where
stores differ the comments name the store; the contract suite in ``tests/contract`` runs against several.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from botocore.exceptions import ClientError

from stagecoach.core.errors import Conflict, PartsMissing, SettingsError, StoreUnavailable
from stagecoach.object_stores.bucket_rules import fingerprint
from stagecoach.object_stores.buckets import BucketKeeper
from stagecoach.object_stores.listing import StoreListing
from stagecoach.object_stores.presigning import Presigner
from stagecoach.object_stores.s3_client import open_client
from stagecoach.object_stores.s3_errors import ABSENT_OBJECT, ABSENT_UPLOAD, Asking, code_of
from stagecoach.ports.object_store import Audience, ListedMultipart, ListedObject, StoredObject, StoredPart
from stagecoach.settings import S3Settings

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_s3.type_defs import CompletedMultipartUploadTypeDef

_DELETES_AT_ONCE = 8


class S3Store:
    """One store behind its addresses; an async context manager, whose client lives from entry to exit.

    ``system_urls`` has the store's address for each system's nodes; those not in it use the private one.
    """

    def __init__(self, settings: S3Settings, system_urls: Mapping[str, str], clock: Callable[[], datetime]) -> None:
        if not settings.access_key_id.get_secret_value() or not settings.secret_access_key.get_secret_value():
            raise SettingsError("settings: s3.access_key_id and s3.secret_access_key must both be given.")
        self._settings = settings
        self._system_urls = dict(system_urls)
        self._presigners = {
            url: Presigner(
                url,
                access_key_id=settings.access_key_id.get_secret_value(),
                secret_access_key=settings.secret_access_key.get_secret_value(),
                region=settings.region,
                clock=clock,
            )
            for url in {settings.private_url, settings.client_url, *self._system_urls.values()}
        }
        self._asking = Asking(settings.request_timeout_seconds)
        self._exits = AsyncExitStack()
        self._open_client: S3Client | None = None
        self._buckets: BucketKeeper | None = None

    async def __aenter__(self) -> Self:
        self._open_client = await self._exits.enter_async_context(open_client(self._settings))
        self._buckets = BucketKeeper(self._open_client, self._settings, self._asking)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open_client = self._buckets = None
        await self._exits.aclose()

    async def ensure_bucket(self, bucket: str) -> None:
        if self._buckets is None:
            raise RuntimeError("S3Store is used outside its async with block")
        await self._buckets.ensure(self._named(bucket), bucket)

    def keep_rules_of(self, settings: S3Settings) -> None:
        self._settings = settings
        if self._buckets is not None:
            self._buckets.keep_rules_of(settings)

    def bucket_rules_fingerprint(self) -> str:
        return fingerprint(self._settings)

    async def open_multipart(self, bucket: str, key: str) -> str:
        async with self._asking("opening a multipart upload"):
            answer = await self._client.create_multipart_upload(Bucket=self._named(bucket), Key=key)
        return answer["UploadId"]

    async def find_multiparts(self, bucket: str, key: str) -> list[str]:
        return [upload.upload_id for upload in await self._listing.multiparts(self._named(bucket), key) if upload.key == key]

    async def list_buckets(self, prefix: str) -> list[str]:
        return await self._listing.buckets(prefix)

    def list_objects(self, bucket: str) -> AsyncIterator[ListedObject]:
        return self._listing.objects(self._named(bucket))

    async def list_multiparts(self, bucket: str) -> list[ListedMultipart]:
        return await self._listing.multiparts(self._named(bucket), "")

    async def list_parts(self, bucket: str, key: str, upload_id: str) -> list[StoredPart] | None:
        parts: list[StoredPart] = []
        marker = 0
        while True:
            async with self._asking("listing parts"):
                try:
                    page = await self._client.list_parts(
                        Bucket=self._named(bucket), Key=key, UploadId=upload_id, PartNumberMarker=marker
                    )
                except ClientError as error:
                    if code_of(error) in ABSENT_UPLOAD:
                        return None
                    raise
            parts += [StoredPart(part["PartNumber"], part["Size"], part["ETag"]) for part in page.get("Parts", [])]
            following = int(page.get("NextPartNumberMarker") or 0)
            if not page.get("IsTruncated") or following <= marker:
                return sorted(parts, key=lambda part: part.number)
            marker = following

    async def complete_multipart(self, bucket: str, key: str, upload_id: str, parts: Sequence[StoredPart]) -> None:
        if not parts:
            raise PartsMissing("The upload has no parts yet; an empty file has one empty part.")
        in_order = sorted(parts, key=lambda part: part.number)
        joined: CompletedMultipartUploadTypeDef = {"Parts": [{"PartNumber": part.number, "ETag": part.etag} for part in in_order]}
        try:
            async with self._asking("completing a multipart upload"):
                await self._client.complete_multipart_upload(
                    Bucket=self._named(bucket), Key=key, UploadId=upload_id, MultipartUpload=joined
                )
        except (StoreUnavailable, Conflict) as failure:
            if "store_code" not in failure.data:
                raise  # No answer at all: asking more would only wait for another timeout.
            # The answer to an earlier call may have been lost. AWS and rclone then say NoSuchUpload; RGW says 500,
            # "already in progress", for any upload it does not know. The object itself tells.
            if await self.list_parts(bucket, key, upload_id) is not None:
                raise
            if await self.head_object(bucket, key) is None:
                raise Conflict("The multipart upload is no longer open at the S3 store.") from None

    async def abort_multipart(self, bucket: str, key: str, upload_id: str) -> None:
        async with self._asking("aborting a multipart upload"):
            try:
                await self._client.abort_multipart_upload(Bucket=self._named(bucket), Key=key, UploadId=upload_id)
            except ClientError as error:
                if code_of(error) not in ABSENT_UPLOAD:
                    raise

    async def head_object(self, bucket: str, key: str) -> StoredObject | None:
        async with self._asking("looking at an object"):
            try:
                answer = await self._client.head_object(Bucket=self._named(bucket), Key=key)
            except ClientError as error:
                if code_of(error) in ABSENT_OBJECT:
                    return None
                raise
        return StoredObject(answer["ContentLength"], answer["ETag"])

    async def read_object(self, bucket: str, key: str, limit_bytes: int) -> bytes | None:
        async with self._asking("reading an object"):
            try:
                # No Range: an empty object has none to give (416), and rclone answers 200 to it.
                answer = await self._client.get_object(Bucket=self._named(bucket), Key=key)
            except ClientError as error:
                if code_of(error) in ABSENT_OBJECT:
                    return None
                raise
            content = bytearray()
            body = answer["Body"]
            async with body:
                # A read gives what has arrived, which may be less than was asked for.
                while len(content) < limit_bytes:
                    piece = await body.read(limit_bytes - len(content))
                    if not piece:
                        break
                    content += piece
        return bytes(content)

    async def write_object(self, bucket: str, key: str, content: bytes) -> None:
        async with self._asking("writing an object"):
            await self._client.put_object(Bucket=self._named(bucket), Key=key, Body=content)

    async def delete_objects(self, bucket: str, keys: Sequence[str]) -> None:
        # One by one: a transfer has few objects, and the batch request differs more from store to store.
        turn = asyncio.Semaphore(_DELETES_AT_ONCE)

        async def delete(key: str) -> None:
            async with turn, self._asking("deleting an object"):
                try:
                    await self._client.delete_object(Bucket=self._named(bucket), Key=key)
                except ClientError as error:
                    if code_of(error) not in ABSENT_OBJECT:
                        raise

        # All are tried before the first failure is told, so that one bad answer leaves as little behind as can be.
        answers = await asyncio.gather(*(delete(key) for key in dict.fromkeys(keys)), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

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
        presigner = self._presigner(audience, system)
        return presigner.presign(method, self._named(bucket), key, ttl_seconds=ttl_seconds, query=query, headers=headers)

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
        presigner = self._presigner(audience, system)
        return presigner.presign_parts(self._named(bucket), key, upload_id, numbers, ttl_seconds=ttl_seconds)

    @property
    def _listing(self) -> StoreListing:
        return StoreListing(self._client, self._asking)

    @property
    def _client(self) -> S3Client:
        if self._open_client is None:
            raise RuntimeError("S3Store is used outside its async with block")
        return self._open_client

    def _named(self, bucket: str) -> str:
        return f"{self._settings.tenant}:{bucket}" if self._settings.tenant else bucket

    def _presigner(self, audience: Audience, system: str | None) -> Presigner:
        if audience == "client":
            return self._presigners[self._settings.client_url]
        if audience == "system" and system is not None:
            return self._presigners[self._system_urls.get(system, self._settings.private_url)]
        return self._presigners[self._settings.private_url]
