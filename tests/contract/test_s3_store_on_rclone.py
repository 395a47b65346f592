"""The S3 plug on the bundled store, a real ``rclone serve s3``."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.contract.object_store_contract import MovableClock, ObjectStoreContract, StoreUnderTest

from stagecoach.object_stores.embedded import EmbeddedStore
from stagecoach.object_stores.s3 import S3Store
from stagecoach.settings import S3Settings


class TestS3StoreOnRclone(ObjectStoreContract):
    etag_tells_parts = False
    etag_tells_content = False
    parts_can_be_replaced = False
    checks_part_sizes = False
    honours_content_disposition = False
    keeps_upload_after_bad_completion = False
    many_multiparts = 20  # It says SlowDown when too many are open at once.

    @pytest.fixture
    async def settings(self, tmp_path: Path) -> AsyncIterator[S3Settings]:
        secret = secrets.token_urlsafe(24)
        async with EmbeddedStore(
            tmp_path / "store",
            access_key_id="stagecoach",
            secret_access_key=secret,
            log_file=tmp_path / "rclone.log",
            pid_file=tmp_path / "rclone.pid",
        ) as embedded:
            yield S3Settings(private_url=embedded.url, access_key_id="stagecoach", secret_access_key=secret)

    @pytest.fixture
    async def under_test(self, settings: S3Settings) -> AsyncIterator[StoreUnderTest]:
        clock = MovableClock()
        async with S3Store(settings, {}, clock) as store, httpx.AsyncClient(timeout=60) as http:
            yield StoreUnderTest(store, http, clock)

    async def test_missing_rules_are_told_once(
        self, under_test: StoreUnderTest, bucket: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, logger="stagecoach"):
            for _ in range(3):
                await under_test.store.ensure_bucket(bucket)
        assert len([record for record in caplog.records if "lifecycle rules" in record.message]) == 1

    async def test_no_origins_never_deletes_the_bucket(self, settings: S3Settings, bucket: str, tmp_path: Path) -> None:
        # rclone ignores "?cors": deleting the rules would delete an empty bucket.
        for origins in ((), ("https://portal.example.org",), ()):
            changed = settings.model_copy(update={"cors_origins": origins})
            async with S3Store(changed, {}, MovableClock()) as store:
                await store.ensure_bucket(bucket)
            assert (tmp_path / "store" / bucket).is_dir()

    async def test_objects_are_plain_files(self, under_test: StoreUnderTest, bucket: str, tmp_path: Path) -> None:
        await under_test.store.ensure_bucket(bucket)
        await under_test.store.write_object(bucket, "01/data", b"plain")
        assert (tmp_path / "store" / bucket / "01" / "data").read_bytes() == b"plain"
