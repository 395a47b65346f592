"""What an S3 store holds: its buckets, their objects, their open multipart uploads, page after page.

A page that does not lead on ends the listing, whatever the store says of more: no store can make it endless.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from stagecoach.object_stores.s3_errors import ABSENT_UPLOAD, Asking, code_of
from stagecoach.ports.object_store import ListedMultipart, ListedObject

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client


class StoreListing:
    """``client``, and how one page is asked for."""

    def __init__(self, client: S3Client, asking: Asking) -> None:
        self._client = client
        self._asking = asking

    async def buckets(self, prefix: str) -> list[str]:
        """Of this account; the prefix is looked at here, since most stores do not know it in this request."""
        names: set[str] = set()
        token = ""
        while True:
            async with self._asking("listing buckets"):
                page = await (self._client.list_buckets(ContinuationToken=token) if token else self._client.list_buckets())
            names |= {entry["Name"] for entry in page.get("Buckets", []) if entry.get("Name", "").startswith(prefix)}
            following = page.get("ContinuationToken", "")
            if not following or following == token:
                return sorted(names)
            token = following

    async def objects(self, named: str) -> AsyncIterator[ListedObject]:
        """``named`` is the bucket with its tenant. Raises BucketMissing."""
        token = ""
        while True:
            more = {"ContinuationToken": token} if token else {}
            async with self._asking("listing objects"):
                page = await self._client.list_objects_v2(Bucket=named, **more)  # type: ignore[arg-type]
            for entry in page.get("Contents", []):
                yield ListedObject(entry["Key"], entry["Size"], entry["LastModified"])
            following = page.get("NextContinuationToken", "")
            if not page.get("IsTruncated") or following in {"", token}:
                return
            token = following

    async def multiparts(self, named: str, prefix: str) -> list[ListedMultipart]:
        """Whose keys begin with ``prefix``. A bucket that does not exist has none."""
        found: list[ListedMultipart] = []
        markers: dict[str, str] = {}
        while True:
            more = {**markers, **({"Prefix": prefix} if prefix else {})}
            async with self._asking("listing multipart uploads"):
                try:
                    page = await self._client.list_multipart_uploads(Bucket=named, **more)  # type: ignore[arg-type]
                except ClientError as error:
                    # rclone answers NoSuchUpload where the others answer with an empty list.
                    if code_of(error) in ABSENT_UPLOAD:
                        return found
                    raise
            for upload in page.get("Uploads", []):
                # A store that does not keep the prefix gives others as well.
                if upload.get("Key", "").startswith(prefix):
                    found.append(ListedMultipart(upload["Key"], upload["UploadId"], upload.get("Initiated")))
            following = {
                "KeyMarker": page.get("NextKeyMarker", ""),
                "UploadIdMarker": page.get("NextUploadIdMarker", ""),
            }
            if not page.get("IsTruncated") or following == markers:
                return found
            markers = following
