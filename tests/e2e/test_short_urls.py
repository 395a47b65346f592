"""Uploads that take longer than their presigned URLs live, which is a minute here, the least that the settings allow."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.testbed import Testbed, wait_until
from tests.integration.road.fault_proxy import FaultProxy

from stagecoach.client import Client

URL_LIFE_SECONDS = 60
PART = 8 * 1024 * 1024
BYTES_PER_SECOND = 1_300_000


@pytest.fixture
def far_away(testbed: Testbed) -> Iterator[FaultProxy]:
    """The clients' road to the store is narrow, and their URLs live for a minute."""
    proxy = FaultProxy(testbed.environment["S3_ENDPOINT"].removeprefix("http://"), bytes_per_second=BYTES_PER_SECOND)
    with proxy.serving(int(testbed.environment["SLOW_PROXY_PORT"])):
        testbed.start_service("--restart", STAGECOACH_S3__TTL=str(URL_LIFE_SECONDS), STAGECOACH_S3__PUBLIC_URL=proxy.url)
        yield proxy
    testbed.start_service("--restart")


def test_an_upload_outlives_its_urls(testbed: Testbed, far_away: FaultProxy, tmp_path: Path) -> None:
    # By hand: nothing is put until every URL has ended.
    content = os.urandom(PART + 1000)
    path = testbed.fresh(testbed.alice, "lies-by-hand.bin")
    begun = testbed.begin_upload(testbed.alice, path, len(content)).json()
    dead_at = time.monotonic() + URL_LIFE_SECONDS

    # The client library goes on by itself: parts and completion are due after the minute.
    large = os.urandom(11 * PART)
    source, target = tmp_path / "large.bin", testbed.fresh(testbed.alice, "lies-library.bin")
    source.write_bytes(large)

    async def upload() -> str:
        # The road hands a part on when it is whole. With all parts on it at once, each would be older than its URL.
        token = testbed.environment["ALICE_TOKEN"]
        client = Client(testbed.url, token, state_directory=tmp_path / "state", connections=4)
        async with client:
            return (await client.upload(testbed.system, source, str(target))).id

    assert len(large) / BYTES_PER_SECOND > URL_LIFE_SECONDS + 5
    transfer = testbed.wait(testbed.alice, asyncio.run(upload()))
    assert transfer["state"] == "done", transfer
    assert target.read_bytes() == large

    wait_until(lambda: time.monotonic() > dead_at + 1, URL_LIFE_SECONDS, "the URLs have ended", pause=1)
    far_away.bytes_per_second = None
    directives = begun["transferDirectives"]
    # Few bytes: a store may answer and hang up before it has read many.
    refused = httpx.put(directives["partsUploadUrls"][0], content=content[:100], timeout=60)
    assert refused.status_code in {400, 403}, refused.text
    parts = testbed.alice.http.get(f"/transfers/{begun['transferId']}/parts").json()
    assert [missing["number"] for missing in parts["missing"]] == [1, 2]
    for missing in parts["missing"]:
        number = missing["number"]
        assert httpx.put(missing["url"], content=content[(number - 1) * PART : number * PART], timeout=60).status_code == 200
    # The address of the completion has ended as well, and is not needed.
    refused = httpx.post(directives["completeUploadUrl"], content="<CompleteMultipartUpload/>", timeout=60)
    assert refused.status_code in {400, 403}, refused.text
    assert testbed.alice.http.post(f"/transfers/{begun['transferId']}/finish").status_code == 200
    assert testbed.wait(testbed.alice, begun["transferId"])["state"] == "done"
    assert path.read_bytes() == content
