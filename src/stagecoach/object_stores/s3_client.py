"""The one S3 client of a process: how it signs, how long it waits, how often it tries again.

aioboto3 is opened here and nowhere else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import aioboto3
from aiobotocore.config import AioConfig
from botocore.handlers import validate_bucket_name

from stagecoach.settings import S3Settings

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

_POOL_SIZE = 32
_ATTEMPTS = 3
_MAX_CONNECT_SECONDS = 5.0
_NEEDS_CONTENT_MD5 = ("PutBucketLifecycleConfiguration", "PutBucketCors")
_CHECKSUM_HEADERS = ("x-amz-checksum-", "x-amz-sdk-checksum")


@asynccontextmanager
async def open_client(settings: S3Settings) -> AsyncIterator[S3Client]:
    """A client for ``settings.private_url`` with a bounded pool of connections."""
    config = AioConfig(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        # Otherwise every write carries checksums that some stores refuse or misread.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=_POOL_SIZE,
        connect_timeout=min(_MAX_CONNECT_SECONDS, settings.request_timeout_seconds),
        read_timeout=settings.request_timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
    )
    async with _session().client(
        "s3",
        endpoint_url=settings.private_url,
        region_name=settings.region,
        aws_access_key_id=settings.access_key_id.get_secret_value(),
        aws_secret_access_key=settings.secret_access_key.get_secret_value(),
        config=config,
    ) as client:
        # "tenant:bucket" is no valid name to botocore; names are made by core/names.py and valid without it.
        client.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)
        for operation in _NEEDS_CONTENT_MD5:
            client.meta.events.register(f"before-sign.s3.{operation}", _add_content_md5)
        yield client


@cache
def _session() -> aioboto3.Session:
    """Shared, since reading botocore's description of S3 takes a quarter of a second."""
    return aioboto3.Session()


def _add_content_md5(request: Any, **_: Any) -> None:
    """These requests must carry a digest; older stores know only this one, botocore sends CRC32."""
    for name in [name for name in request.headers if name.lower().startswith(_CHECKSUM_HEADERS)]:
        del request.headers[name]
    digest = hashlib.md5(request.body or b"", usedforsecurity=False).digest()
    del request.headers["Content-MD5"]
    request.headers["Content-MD5"] = base64.b64encode(digest).decode()
