"""The S3 plug on Ceph's RADOS Gateway, the store of computing centres. Needs the testbed (``.testbed/env``)."""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.contract.bucket_rules_contract import ORIGIN, BucketRulesContract
from tests.contract.object_store_contract import MovableClock, ObjectStoreContract, StoreUnderTest

from stagecoach.core.errors import StoreUnavailable
from stagecoach.object_stores.s3 import S3Store
from stagecoach.object_stores.s3_client import open_client
from stagecoach.settings import S3Settings

ENVIRONMENT_FILE = Path(__file__).resolve().parents[2] / ".testbed" / "env"


def read_testbed() -> dict[str, str]:
    """What ``.testbed/env`` says: KEY=value lines with a shell's quotes. Empty without the file."""
    try:
        lines = ENVIRONMENT_FILE.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return dict(word.split("=", 1) for line in lines for word in shlex.split(line, comments=True) if "=" in word)


class TestS3StoreOnRgw(ObjectStoreContract, BucketRulesContract):
    @pytest.fixture
    def settings(self) -> S3Settings:
        found = read_testbed()
        if found.get("S3_KIND") != "rgw":
            reason = "no RADOS Gateway: start the testbed, whose .testbed/env must have S3_KIND=rgw"
            if os.environ.get("STAGECOACH_REQUIRE_TESTBED") == "1":
                pytest.fail(reason)
            pytest.skip(reason)
        return S3Settings(
            private_url=found["S3_ENDPOINT"],
            access_key_id=found["S3_ACCESS_KEY"],
            secret_access_key=found["S3_SECRET_KEY"],
        )

    @pytest.fixture
    async def under_test(self, settings: S3Settings) -> AsyncIterator[StoreUnderTest]:
        clock = MovableClock()
        async with S3Store(settings, {}, clock) as store, httpx.AsyncClient(timeout=60) as http:
            yield StoreUnderTest(store, http, clock)

    @pytest.fixture(autouse=True)
    async def leave_nothing(self, settings: S3Settings, bucket: str) -> AsyncIterator[None]:
        yield
        async with open_client(settings) as client:
            try:
                uploads = (await client.list_multipart_uploads(Bucket=bucket)).get("Uploads", [])
            except client.exceptions.ClientError:
                return
            for upload in uploads:
                await client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            for entry in (await client.list_objects_v2(Bucket=bucket)).get("Contents", []):
                await client.delete_object(Bucket=bucket, Key=entry["Key"])
            await client.delete_bucket(Bucket=bucket)

    async def test_a_page_may_put_parts_and_read_their_etags(self, settings: S3Settings, bucket: str) -> None:
        changed = settings.model_copy(update={"cors_origins": (ORIGIN,)})
        async with S3Store(changed, {}, MovableClock()) as store, httpx.AsyncClient() as http:
            await store.ensure_bucket(bucket)
            url = store.presign("PUT", bucket, "k", audience="client", ttl_seconds=60)
            asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "PUT"}
            allowed = await http.options(url, headers=asked)
            assert allowed.status_code == 200
            assert allowed.headers["access-control-allow-origin"] == ORIGIN
            stranger = await http.options(url, headers={**asked, "Origin": "https://elsewhere.example.org"})
            assert "access-control-allow-origin" not in stranger.headers
            put = await http.put(url, content=b"1", headers={"Origin": ORIGIN})
            assert "etag" in put.headers["access-control-expose-headers"].lower()

    async def test_refused_credentials(self, settings: S3Settings, bucket: str) -> None:
        for change in ({"access_key_id": "AKIANOBODY"}, {"secret_access_key": "wrong-secret"}):
            refused = S3Settings.model_validate(
                {
                    "private_url": settings.private_url,
                    "access_key_id": settings.access_key_id.get_secret_value(),
                    "secret_access_key": settings.secret_access_key.get_secret_value(),
                    **change,
                }
            )
            async with S3Store(refused, {}, MovableClock()) as store:
                with pytest.raises(StoreUnavailable, match="refuses this service's credentials"):
                    await store.ensure_bucket(bucket)
                with pytest.raises(StoreUnavailable, match="refuses this service's credentials"):
                    await store.head_object(bucket, "k")
