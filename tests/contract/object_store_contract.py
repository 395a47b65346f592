"""What every plug behind ``ports/object_store.py`` must do. A plug's test file subclasses ``ObjectStoreContract``.

Presigned URLs are followed for real, over HTTP where the plug has any.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from stagecoach.core.errors import BucketMissing, Conflict, InvalidRequest, PartsMissing, StagecoachError
from stagecoach.ports.object_store import ObjectStore, StoredPart

MEBIBYTE = 1024 * 1024
TTL = 600


@dataclass
class MovableClock:
    """The real time, moved."""

    ahead: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class StoreUnderTest:
    """A plug, the clock it signs with, and a client that can follow its URLs."""

    store: ObjectStore
    http: httpx.AsyncClient
    clock: MovableClock


def complete_body(etags: dict[int, str]) -> bytes:
    """The body that completes a multipart upload, as clients send it."""
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in sorted(etags.items())
    )
    return f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()


def multipart_etag(*parts: bytes) -> str:
    digests = b"".join(hashlib.md5(part).digest() for part in parts)
    return f'"{hashlib.md5(digests).hexdigest()}-{len(parts)}"'


class ObjectStoreContract:
    """Subclasses give a fixture ``under_test``, and say below where their store is known to differ."""

    etag_tells_parts = True
    etag_tells_content = True
    parts_can_be_replaced = True
    checks_part_sizes = True
    checks_expiry = True
    honours_content_disposition = True
    keeps_upload_after_bad_completion = True
    tells_begin_of_multiparts = True
    many_parts = 1050
    many_objects = 1020
    many_multiparts = 1020

    @pytest.fixture
    def bucket(self) -> str:
        return f"stagecoach-contract-{secrets.token_hex(6)}"

    async def put_parts(
        self, under_test: StoreUnderTest, bucket: str, key: str, upload_id: str, parts: dict[int, bytes]
    ) -> dict[int, str]:
        """Put parts by their URLs, in the order given; their ETags."""
        urls = under_test.store.presign_parts(bucket, key, upload_id, list(parts), audience="client", ttl_seconds=TTL)
        etags = {}
        for (number, content), url in zip(parts.items(), urls, strict=True):
            answer = await under_test.http.put(url, content=content)
            assert answer.status_code == 200, answer.text
            etags[number] = answer.headers["etag"]
        return etags

    async def test_ensure_bucket_twice_and_at_once(self, under_test: StoreUnderTest, bucket: str) -> None:
        store = under_test.store
        await asyncio.gather(*(store.ensure_bucket(bucket) for _ in range(20)))
        await store.write_object(bucket, "a/b", b"1")
        await store.ensure_bucket(bucket)
        assert await store.read_object(bucket, "a/b", 10) == b"1"

    async def test_bucket_rules_fingerprint_is_stable(self, under_test: StoreUnderTest) -> None:
        assert under_test.store.bucket_rules_fingerprint() == under_test.store.bucket_rules_fingerprint() != ""

    async def test_upload_by_urls(self, under_test: StoreUnderTest, bucket: str) -> None:
        store, http = under_test.store, under_test.http
        await store.ensure_bucket(bucket)
        key = "01hzx/data"
        parts = {1: secrets.token_bytes(5 * MEBIBYTE), 2: secrets.token_bytes(5 * MEBIBYTE), 3: b"the rest"}
        upload_id = await store.open_multipart(bucket, key)
        assert await store.list_parts(bucket, key, upload_id) == []
        assert await store.head_object(bucket, key) is None

        etags = await self.put_parts(under_test, bucket, key, upload_id, parts)
        assert {number: etag.strip('"') for number, etag in etags.items()} == {
            number: hashlib.md5(content).hexdigest() for number, content in parts.items()
        }
        listed = await store.list_parts(bucket, key, upload_id)
        assert listed == [StoredPart(number, len(content), etags[number]) for number, content in parts.items()]
        assert await store.head_object(bucket, key) is None

        complete_url = store.presign("POST", bucket, key, audience="client", ttl_seconds=TTL, query={"uploadId": upload_id})
        answer = await http.post(complete_url, content=complete_body(etags))
        assert answer.status_code == 200, answer.text
        assert "<Error>" not in answer.text

        there = await store.head_object(bucket, key)
        whole = b"".join(parts.values())
        assert there is not None
        assert there.size_bytes == len(whole)
        if self.etag_tells_parts:
            assert there.etag == multipart_etag(*parts.values())
        assert await store.list_parts(bucket, key, upload_id) is None
        assert await store.find_multiparts(bucket, key) == []

        got = await http.get(store.presign("GET", bucket, key, audience="service", ttl_seconds=TTL))
        assert got.status_code == 200
        assert got.content == whole
        seen = await http.head(store.presign("HEAD", bucket, key, audience="client", ttl_seconds=TTL))
        assert seen.status_code == 200
        assert seen.headers["content-length"] == str(len(whole))
        headers = {"x-amz-checksum-mode": "ENABLED"}
        url = store.presign("HEAD", bucket, key, audience="system", ttl_seconds=TTL, headers=headers)
        assert (await http.head(url, headers=headers)).status_code == 200

    async def test_a_url_permits_one_thing_only(self, under_test: StoreUnderTest, bucket: str) -> None:
        store, http = under_test.store, under_test.http
        await store.ensure_bucket(bucket)
        await store.write_object(bucket, "k", b"1")
        url = store.presign("GET", bucket, "k", audience="client", ttl_seconds=TTL)
        if self.checks_expiry:
            assert (await http.put(url, content=b"2")).status_code == 403
            other = store.presign("GET", bucket, "k2", audience="client", ttl_seconds=TTL)
            assert (await http.get(other.replace("k2?", "k?"))).status_code in {403, 404}
        assert await store.read_object(bucket, "k", 10) == b"1"

    async def test_an_expired_url(self, under_test: StoreUnderTest, bucket: str) -> None:
        store, http = under_test.store, under_test.http
        await store.ensure_bucket(bucket)
        await store.write_object(bucket, "k", b"1")
        under_test.clock.ahead = timedelta(hours=-2)
        url = store.presign("GET", bucket, "k", audience="client", ttl_seconds=60)
        under_test.clock.ahead = timedelta()
        if self.checks_expiry:
            assert (await http.get(url)).status_code in {400, 403}
        later = store.presign("GET", bucket, "k", audience="client", ttl_seconds=60)
        assert (await http.get(later)).content == b"1"

    async def test_download_name(self, under_test: StoreUnderTest, bucket: str) -> None:
        store, http = under_test.store, under_test.http
        await store.ensure_bucket(bucket)
        await store.write_object(bucket, "k", b"1")
        disposition = "attachment; filename*=UTF-8''r%C3%A9sultats%20%26%20co.h5"
        url = store.presign(
            "GET",
            bucket,
            "k",
            audience="client",
            ttl_seconds=TTL,
            query={"response-content-disposition": disposition},
        )
        answer = await http.get(url)
        assert answer.content == b"1"
        if self.honours_content_disposition:
            assert answer.headers["content-disposition"] == disposition

    async def test_a_plain_object_by_url(self, under_test: StoreUnderTest, bucket: str) -> None:
        store, http = under_test.store, under_test.http
        await store.ensure_bucket(bucket)
        url = store.presign("PUT", bucket, "01/progress.json", audience="client", ttl_seconds=TTL)
        for content in (b"1", b"", b"22"):
            assert (await http.put(url, content=content)).status_code == 200
            assert await store.read_object(bucket, "01/progress.json", 100) == content

    @pytest.mark.parametrize("by_url", [True, False])
    async def test_an_empty_file_has_one_empty_part(self, under_test: StoreUnderTest, bucket: str, by_url: bool) -> None:
        store, http = under_test.store, under_test.http
        await store.ensure_bucket(bucket)
        upload_id = await store.open_multipart(bucket, "k")
        etags = await self.put_parts(under_test, bucket, "k", upload_id, {1: b""})
        listed = await store.list_parts(bucket, "k", upload_id)
        assert listed == [StoredPart(1, 0, etags[1])]
        if by_url:
            url = store.presign("POST", bucket, "k", audience="client", ttl_seconds=TTL, query={"uploadId": upload_id})
            answer = await http.post(url, content=complete_body(etags))
            assert answer.status_code == 200, answer.text
        else:
            await store.complete_multipart(bucket, "k", upload_id, listed)
        there = await store.head_object(bucket, "k")
        assert there is not None
        assert there.size_bytes == 0
        if self.etag_tells_parts:
            assert there.etag == multipart_etag(b"")
        assert await store.read_object(bucket, "k", 10) == b""

    async def test_complete_and_complete_again(self, under_test: StoreUnderTest, bucket: str) -> None:
        store = under_test.store
        await store.ensure_bucket(bucket)
        upload_id = await store.open_multipart(bucket, "k")
        await self.put_parts(under_test, bucket, "k", upload_id, {1: b"x" * 5 * MEBIBYTE, 2: b"y"})
        parts = await store.list_parts(bucket, "k", upload_id)
        assert parts is not None
        # In any order: the store's plug sorts.
        await store.complete_multipart(bucket, "k", upload_id, parts[::-1])
        await store.complete_multipart(bucket, "k", upload_id, parts)
        there = await store.head_object(bucket, "k")
        assert there is not None
        assert there.size_bytes == 5 * MEBIBYTE + 1

    async def test_completions_that_cannot_be(self, under_test: StoreUnderTest, bucket: str) -> None:
        store = under_test.store
        await store.ensure_bucket(bucket)
        upload_id = await store.open_multipart(bucket, "k")
        with pytest.raises(PartsMissing):
            await store.complete_multipart(bucket, "k", upload_id, [])
        etags = await self.put_parts(under_test, bucket, "k", upload_id, {1: b"a", 2: b"b"})
        if self.checks_part_sizes:
            parts = await store.list_parts(bucket, "k", upload_id)
            with pytest.raises(InvalidRequest, match="smaller than S3 allows"):
                await store.complete_multipart(bucket, "k", upload_id, parts or [])
        foreign = StoredPart(1, 1, f'"{hashlib.md5(b"other").hexdigest()}"')
        with pytest.raises(Conflict):
            await store.complete_multipart(bucket, "k", upload_id, [foreign])
        assert await store.head_object(bucket, "k") is None
        if self.keeps_upload_after_bad_completion:
            assert len(await store.list_parts(bucket, "k", upload_id) or []) == 2
        await store.abort_multipart(bucket, "k", upload_id)
        with pytest.raises(Conflict):
            await store.complete_multipart(bucket, "k", upload_id, [StoredPart(1, 1, etags[1])])
        assert await store.head_object(bucket, "k") is None

    async def test_a_part_sent_again(self, under_test: StoreUnderTest, bucket: str) -> None:
        store = under_test.store
        await store.ensure_bucket(bucket)
        upload_id = await store.open_multipart(bucket, "k")
        await self.put_parts(under_test, bucket, "k", upload_id, {1: b"first"})
        await self.put_parts(under_test, bucket, "k", upload_id, {1: b"first"})
        if self.parts_can_be_replaced:
            await self.put_parts(under_test, bucket, "k", upload_id, {1: b"second!"})
        parts = await store.list_parts(bucket, "k", upload_id)
        assert parts is not None
        assert [(part.number, part.size_bytes) for part in parts] == [(1, 7 if self.parts_can_be_replaced else 5)]
        await store.complete_multipart(bucket, "k", upload_id, parts)
        assert await store.read_object(bucket, "k", 10) == (b"second!" if self.parts_can_be_replaced else b"first")

    async def test_abort(self, under_test: StoreUnderTest, bucket: str) -> None:
        store, http = under_test.store, under_test.http
        await store.ensure_bucket(bucket)
        upload_id = await store.open_multipart(bucket, "k")
        (url,) = store.presign_parts(bucket, "k", upload_id, [2], audience="client", ttl_seconds=TTL)
        await self.put_parts(under_test, bucket, "k", upload_id, {1: b"a"})
        await store.abort_multipart(bucket, "k", upload_id)
        await store.abort_multipart(bucket, "k", upload_id)
        await store.abort_multipart(bucket, "k", "never-was")
        await store.abort_multipart(f"{bucket}-absent", "k", upload_id)
        assert await store.list_parts(bucket, "k", upload_id) is None
        assert await store.list_parts(bucket, "k", "never-was") is None
        assert await store.list_parts(f"{bucket}-absent", "k", upload_id) is None
        assert await store.find_multiparts(bucket, "k") == []
        assert (await http.put(url, content=b"b")).status_code >= 400

    async def test_find_multiparts_of_exactly_one_key(self, under_test: StoreUnderTest, bucket: str) -> None:
        store = under_test.store
        await store.ensure_bucket(bucket)
        assert await store.find_multiparts(bucket, "01/data") == []
        first, second = await store.open_multipart(bucket, "01/data"), await store.open_multipart(bucket, "01/data")
        await store.open_multipart(bucket, "01/data2")
        await store.open_multipart(bucket, "01/dat")
        assert sorted(await store.find_multiparts(bucket, "01/data")) == sorted([first, second])
        assert await store.find_multiparts(f"{bucket}-absent", "01/data") == []

    async def test_buckets_are_listed_by_their_beginning(self, under_test: StoreUnderTest, bucket: str) -> None:
        store = under_test.store
        assert await store.list_buckets(bucket) == []
        await store.ensure_bucket(f"{bucket}-b")
        await store.ensure_bucket(f"{bucket}-a")
        assert await store.list_buckets(bucket) == [f"{bucket}-a", f"{bucket}-b"]
        assert await store.list_buckets(f"{bucket}-b") == [f"{bucket}-b"]

    async def test_objects_are_listed_over_pages(self, under_test: StoreUnderTest, bucket: str) -> None:
        store = under_test.store
        await store.ensure_bucket(bucket)
        assert [item async for item in store.list_objects(bucket)] == []
        keys = [f"{number:04}/data" for number in range(self.many_objects)]
        turn = asyncio.Semaphore(8)

        async def write(key: str) -> None:
            async with turn:
                await store.write_object(bucket, key, b"x" * (int(key[:4]) % 3))

        await asyncio.gather(*(write(key) for key in keys))
        upload_id = await store.open_multipart(bucket, "9999/data")
        listed = [item async for item in store.list_objects(bucket)]
        assert [item.key for item in listed] == keys
        assert [item.size_bytes for item in listed] == [number % 3 for number in range(self.many_objects)]
        assert all(abs((datetime.now(UTC) - item.modified_at).total_seconds()) < 600 for item in listed)
        await store.abort_multipart(bucket, "9999/data", upload_id)
        await store.delete_objects(bucket, keys)

    async def test_the_objects_of_an_absent_bucket_cannot_be_listed(self, under_test: StoreUnderTest, bucket: str) -> None:
        with pytest.raises(BucketMissing):
            [item async for item in under_test.store.list_objects(bucket)]
        assert await under_test.store.list_multiparts(bucket) == []

    async def test_multiparts_of_a_bucket_are_listed_over_pages(self, under_test: StoreUnderTest, bucket: str) -> None:
        store = under_test.store
        await store.ensure_bucket(bucket)
        assert await store.list_multiparts(bucket) == []
        keys = [f"{number // 2:04}/data" for number in range(self.many_multiparts)]
        opened = {(key, await store.open_multipart(bucket, key)) for key in keys}
        assert len(opened) == self.many_multiparts
        await store.write_object(bucket, "whole/data", b"1")
        listed = await store.list_multiparts(bucket)
        assert sorted((upload.key, upload.upload_id) for upload in listed) == sorted(opened)
        for upload in listed:
            assert upload.begun_at is not None
            if self.tells_begin_of_multiparts:
                assert abs((datetime.now(UTC) - upload.begun_at).total_seconds()) < 600
            await store.abort_multipart(bucket, upload.key, upload.upload_id)
        assert await store.list_multiparts(bucket) == []

    async def test_many_parts_are_listed_over_pages(self, under_test: StoreUnderTest, bucket: str) -> None:
        store, http = under_test.store, under_test.http
        await store.ensure_bucket(bucket)
        upload_id = await store.open_multipart(bucket, "k")
        numbers = list(range(1, self.many_parts + 1))
        urls = store.presign_parts(bucket, "k", upload_id, numbers, audience="client", ttl_seconds=TTL)
        turn = asyncio.Semaphore(4)

        async def put(url: str) -> int:
            async with turn:
                return (await http.put(url, content=b"x")).status_code

        assert set(await asyncio.gather(*(put(url) for url in urls))) == {200}
        parts = await store.list_parts(bucket, "k", upload_id)
        assert parts is not None
        assert [part.number for part in parts] == numbers
        await store.abort_multipart(bucket, "k", upload_id)

    async def test_small_objects(self, under_test: StoreUnderTest, bucket: str) -> None:
        store = under_test.store
        await store.ensure_bucket(bucket)
        assert await store.read_object(bucket, "k", 10) is None
        assert await store.head_object(bucket, "k") is None
        for content in (b"0123456789" * 20_000, b"", b"new"):
            await store.write_object(bucket, "k", content)
            there = await store.head_object(bucket, "k")
            assert there is not None
            assert there.size_bytes == len(content)
            if self.etag_tells_content:
                assert there.etag.strip('"') == hashlib.md5(content).hexdigest()
            for limit in (0, 1, 65_537, 1_000_000):
                assert await store.read_object(bucket, "k", limit) == content[:limit]
        await store.write_object(bucket, "k2", b"2")
        await store.delete_objects(bucket, ["k", "never-was", "k2", "k"])
        await store.delete_objects(bucket, ["k", "k2"])
        await store.delete_objects(bucket, [])
        assert await store.head_object(bucket, "k") is None
        assert await store.head_object(bucket, "k2") is None

    async def test_an_absent_bucket(self, under_test: StoreUnderTest, bucket: str) -> None:
        store = under_test.store
        with pytest.raises(BucketMissing):
            await store.open_multipart(bucket, "k")
        assert await store.head_object(bucket, "k") is None
        assert await store.read_object(bucket, "k", 1) is None
        await store.delete_objects(bucket, ["k"])
        with pytest.raises(StagecoachError):
            await store.write_object(bucket, "k", b"1")
        with pytest.raises(StagecoachError):
            await store.open_multipart(bucket, "k")
