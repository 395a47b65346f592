"""The S3 plug on moto's server, which answers in AWS's dialect (and checks no signature)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from moto.server import ThreadedMotoServer
from tests.contract.bucket_rules_contract import BucketRulesContract
from tests.contract.object_store_contract import MovableClock, ObjectStoreContract, StoreUnderTest

from stagecoach.object_stores.s3 import S3Store
from stagecoach.settings import S3Settings


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class TestS3StoreOnMoto(ObjectStoreContract, BucketRulesContract):
    checks_expiry = False
    tells_begin_of_multiparts = False
    many_parts = 30  # Its listing has one page for all; and it is slow.
    many_objects = 30
    many_multiparts = 30

    @pytest.fixture
    def settings(self, moto_url: str) -> S3Settings:
        return S3Settings(private_url=moto_url, access_key_id="AKIAEXAMPLE", secret_access_key="secret")

    @pytest.fixture
    async def under_test(self, settings: S3Settings) -> AsyncIterator[StoreUnderTest]:
        clock = MovableClock()
        async with S3Store(settings, {}, clock) as store, httpx.AsyncClient(timeout=60) as http:
            yield StoreUnderTest(store, http, clock)

    async def test_a_region_away_from_home(self, settings: S3Settings, bucket: str) -> None:
        async with S3Store(settings.model_copy(update={"region": "eu-central-1"}), {}, MovableClock()) as store:
            await store.ensure_bucket(bucket)
            await store.ensure_bucket(bucket)
            await store.write_object(bucket, "k", b"1")
