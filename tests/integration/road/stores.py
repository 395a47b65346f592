"""Real stores behind the fault proxy: an `rclone serve s3` of our own, and the testbed's gateway where it runs."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

SMALLEST_PART_BYTES = 5 * 1024 * 1024  # of every part but the last, says S3
LIFE_SECONDS = 86400  # the mover's clock in these tests counts pauses that nobody waited for


def rclone_program() -> str | None:
    beside = Path(sys.executable).with_name("rclone")
    return str(beside) if beside.exists() else shutil.which("rclone")


@dataclass
class RealStore:
    """A bucket of a running store. Parts of its objects have ``part_size_bytes``."""

    address: str
    access_key: str
    secret_key: str
    bucket: str
    part_size_bytes: int

    @property
    def takes_small_parts(self) -> bool:
        """One store does not mind parts smaller than S3 allows."""
        return self.part_size_bytes < SMALLEST_PART_BYTES

    def __post_init__(self) -> None:
        self.client = self._client(self.address)

    def _client(self, address: str) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=f"http://{address}",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                proxies={},
                request_checksum_calculation="when_required",
            ),
        )

    def keep(self, key: str, data: bytes) -> None:
        """An object, put in parts as a client would."""
        upload, parts = self.begin(key), []
        for number, start in enumerate(range(0, len(data), self.part_size_bytes), 1):
            body = data[start : start + self.part_size_bytes]
            answer = self.client.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=number, Body=body)
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        self.client.complete_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})

    def content(self, key: str) -> bytes | None:
        """The object's bytes; None when there is no object."""
        try:
            content: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            return None
        return content

    def remove(self, key: str, upload: str) -> None:
        with contextlib.suppress(ClientError):  # it is complete, or was never begun
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def fetch_ticket(self, key: str, path: Path, size: int, address: str | None = None) -> dict[str, Any]:
        """``address``: signed for another host:port than the store's own."""
        client = self.client if address is None else self._client(address)
        there = {"get_url": self._sign(client, "get_object", key), "head_url": self._sign(client, "head_object", key)}
        return {**self._ticket("fetch", path, size), "object": there}

    def begin(self, key: str) -> str:
        """The id of a new multipart upload."""
        upload: str = self.client.create_multipart_upload(Bucket=self.bucket, Key=key)["UploadId"]
        return upload

    def put_ticket(self, upload: str, key: str, path: Path, size: int, address: str | None = None) -> dict[str, Any]:
        client = self.client if address is None else self._client(address)
        numbers = range(1, -(-size // self.part_size_bytes) + 1)
        there = {
            "part_urls": [self._sign(client, "upload_part", key, UploadId=upload, PartNumber=number) for number in numbers],
            "complete_url": self._sign(client, "complete_multipart_upload", key, UploadId=upload),
            "head_url": self._sign(client, "head_object", key),
        }
        return {**self._ticket("put", path, size), "upload": there}

    def _sign(self, client: Any, operation: str, key: str, **more: Any) -> str:
        url: str = client.generate_presigned_url(
            operation, Params={"Bucket": self.bucket, "Key": key, **more}, ExpiresIn=LIFE_SECONDS
        )
        return url

    def _ticket(self, kind: str, path: Path, size: int) -> dict[str, Any]:
        return {
            "version": 1,
            "transfer_id": "t1",
            "kind": kind,
            "path_base64": base64.b64encode(os.fsencode(path)).decode(),
            "size_bytes": size,
            "part_size_bytes": self.part_size_bytes,
            "concurrency": 2,
        }


@contextlib.contextmanager
def rclone_store(folder: Path, part_size_bytes: int) -> Iterator[RealStore]:
    program = rclone_program()
    assert program is not None
    (folder / "bucket").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--dir-cache-time", "0s", str(folder)],
        env={**os.environ, "RCLONE_AUTH_KEY": '"testtesttest,secretsecretsecret"', "RCLONE_CONFIG": "/dev/null"},
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, "rclone ended"
            assert time.monotonic() < deadline, "rclone does not listen"
            time.sleep(0.05)
        yield RealStore(f"127.0.0.1:{port}", "testtesttest", "secretsecretsecret", "bucket", part_size_bytes)
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def gateway_store(environment: dict[str, str], part_size_bytes: int) -> Iterator[RealStore]:
    """A bucket of its own in the testbed's store, removed with all that is in it."""
    store = RealStore(
        environment["S3_ENDPOINT"].removeprefix("http://"),
        environment["S3_ACCESS_KEY"],
        environment["S3_SECRET_KEY"],
        f"faults-{uuid.uuid4().hex}",
        part_size_bytes,
    )
    store.client.create_bucket(Bucket=store.bucket)
    try:
        yield store
    finally:
        for found in store.client.list_objects_v2(Bucket=store.bucket).get("Contents", []):
            store.client.delete_object(Bucket=store.bucket, Key=found["Key"])
        store.client.delete_bucket(Bucket=store.bucket)
