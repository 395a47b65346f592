"""What the S3 plug makes of answers that no real store gives on demand."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.object_stores.canned_store import Answer, Asked, CannedStore, error

from stagecoach.core.errors import Conflict, SettingsError, StagecoachError, StoreUnavailable
from stagecoach.object_stores.s3 import S3Store
from stagecoach.ports.object_store import StoredObject, StoredPart
from stagecoach.settings import S3Settings

PARTS = [StoredPart(1, 1, '"e"')]
LIST_OF_OURS = b"<ListAllMyBucketsResult><Buckets><Bucket><Name>b</Name></Bucket></Buckets></ListAllMyBucketsResult>"
LIST_OF_OTHERS = LIST_OF_OURS.replace(b"<Name>b<", b"<Name>other<")


def settings(url: str, **more: Any) -> S3Settings:
    values = {"private_url": url, "access_key_id": "SECRETACCESS", "secret_access_key": "SECRETSECRET", **more}
    return S3Settings.model_validate(values)


@asynccontextmanager
async def opened(answer: Callable[[Asked], Answer], **more: Any) -> AsyncIterator[tuple[S3Store, CannedStore]]:
    async with (
        CannedStore(answer) as canned,
        S3Store(settings(canned.url, **more), {}, lambda: datetime.now(UTC)) as store,
    ):
        yield store, canned


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (error(403, "InvalidAccessKeyId"), "refuses this service's credentials"),
        (error(403, "SignatureDoesNotMatch"), "refuses this service's credentials"),
        (error(403, "AccessDenied"), "refuses this service's credentials"),
        (Answer(403), "refuses this service's credentials"),
        (error(403, "RequestTimeTooSkewed"), "clocks"),
        (error(400, "AuthorizationHeaderMalformed"), "s3.region"),
        (error(503, "SlowDown"), "cannot answer for now"),
        (error(500, "InternalError"), "cannot answer for now"),
        (Answer(502, b"<html>bad gateway</html>"), "cannot answer for now"),
        (error(404, "NoSuchBucket"), "is gone from the S3 store"),
        (error(400, 'Od<d"&SECRET'), "answers"),
    ],
)
async def test_failures_in_plain_words(answer: Answer, words: str) -> None:
    async with opened(lambda _: answer) as (store, canned):
        with pytest.raises(StoreUnavailable, match=words) as caught:
            await store.open_multipart("b", "SECRETKEY")
        shown = "".join(traceback.format_exception(caught.value))
        assert caught.value.retryable
    for secret in ("SECRET", canned.url, "Signature="):
        assert secret not in caught.value.message
    assert "SECRETMESSAGE" not in shown
    assert canned.url not in shown


async def test_nothing_listens() -> None:
    key = "hidden"[::-1]
    async with S3Store(settings("http://127.0.0.1:1"), {}, lambda: datetime.now(UTC)) as store:
        with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
            await store.head_object("b", key)
    assert key not in "".join(traceback.format_exception(caught.value))


async def test_one_timeout_for_all_attempts() -> None:
    async with opened(lambda _: Answer(200, hangs=True), request_timeout_seconds=0.3) as (store, _):
        started = datetime.now(UTC)
        with pytest.raises(StoreUnavailable, match=r"did not answer within 0.3 seconds|cannot be reached"):
            await store.complete_multipart("b", "k", "u", PARTS)
        assert (datetime.now(UTC) - started).total_seconds() < 2


async def test_a_failure_of_the_moment_is_tried_again() -> None:
    answers = iter([error(503, "SlowDown"), Answer(200)])
    async with opened(lambda _: next(answers)) as (store, canned):
        assert await store.head_object("b", "k") == StoredObject(0, '"e"')
        assert len(canned.asked) == 2


async def test_a_truncated_object_is_no_object() -> None:
    async with opened(lambda _: Answer(200, b"half", announced=8)) as (store, _):
        with pytest.raises(StoreUnavailable):
            await store.read_object("b", "k", 100)


async def test_success_with_an_error_inside() -> None:
    def answer(asked: Asked) -> Answer:
        if asked.method == "POST":
            return Answer(200, error(200, "InternalError").body)
        return Answer(200, b"<ListPartsResult></ListPartsResult>")

    async with opened(answer) as (store, _):
        with pytest.raises(StoreUnavailable):
            await store.complete_multipart("b", "k", "u", PARTS)


@pytest.mark.parametrize("answer_to_complete", [error(404, "NoSuchUpload"), error(500, "InternalError")])
@pytest.mark.parametrize("there", [True, False])
async def test_a_lost_answer_to_completion(answer_to_complete: Answer, there: bool) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.method == "POST":
            return answer_to_complete
        if asked.method == "HEAD":
            return Answer(200 if there else 404)
        return error(404, "NoSuchKey")

    async with opened(answer) as (store, _):
        if there:
            await store.complete_multipart("b", "k", "u", PARTS)
        else:
            with pytest.raises(Conflict):
                await store.complete_multipart("b", "k", "u", PARTS)


@pytest.mark.parametrize("seen", [200, 403])
async def test_a_strangers_bucket(seen: int) -> None:
    """Even one that the stranger opened to the world."""

    def answer(asked: Asked) -> Answer:
        if asked.method == "HEAD":
            return Answer(seen)
        return error(409, "BucketAlreadyExists") if asked.method == "PUT" else Answer(200, LIST_OF_OTHERS)

    async with opened(answer) as (store, canned):
        with pytest.raises(StoreUnavailable, match=r"bucket b belongs to another account.*s3\.bucket_prefix"):
            await store.ensure_bucket("b")
        assert not [asked for asked in canned.asked if "lifecycle" in asked.target]


@pytest.mark.parametrize("mine", ["BucketAlreadyOwnedByYou", "BucketAlreadyExists", "AccessDenied", "OperationAborted"])
async def test_a_bucket_of_ours(mine: str) -> None:
    created = 0

    def answer(asked: Asked) -> Answer:
        nonlocal created
        if asked.method == "GET":
            if "?" not in asked.target or "x-id" in asked.target:
                return Answer(200, LIST_OF_OURS)
            code = "NoSuchLifecycleConfiguration" if "lifecycle" in asked.target else "NoSuchCORSConfiguration"
            return error(404, code)
        if asked.method == "PUT" and "?" not in asked.target:
            created += 1
            if created == 1:
                return error(403 if mine == "AccessDenied" else 409, mine)
        return Answer(200)

    async with opened(answer) as (store, canned):
        await store.ensure_bucket("b")
        assert [asked.target for asked in canned.asked if asked.method == "PUT"][-1] == "/b?lifecycle"
        assert not [asked for asked in canned.asked if asked.method == "DELETE"]


async def test_a_store_without_rules(caplog: pytest.LogCaptureFixture) -> None:
    def answer(asked: Asked) -> Answer:
        return error(501, "NotImplemented") if "?" in asked.target else Answer(200)

    with caplog.at_level(logging.WARNING):
        async with opened(answer, cors_origins=("https://a.example.org",)) as (store, canned):
            await store.ensure_bucket("b")
            first = len(canned.asked)
            await store.ensure_bucket("b2")
            assert len(canned.asked) - first == 1
    assert len([record for record in caplog.records if record.name.startswith("stagecoach")]) == 2


async def test_rules_contended_by_another_process() -> None:
    puts = 0

    def answer(asked: Asked) -> Answer:
        nonlocal puts
        if asked.method == "GET":
            return error(404, "NoSuchLifecycleConfiguration" if "lifecycle" in asked.target else "NoSuchCORSConfiguration")
        if "lifecycle" in asked.target:
            puts += 1
            return error(409, "OperationAborted") if puts < 3 else Answer(200)
        return Answer(200)

    async with opened(answer) as (store, _):
        await store.ensure_bucket("b")
    assert puts == 3


async def test_what_is_sent() -> None:
    def answer(asked: Asked) -> Answer:
        if asked.method == "GET":
            return error(404, "NoSuchLifecycleConfiguration" if "lifecycle" in asked.target else "NoSuchCORSConfiguration")
        return Answer(200)

    async with opened(answer, tenant="astro", cors_origins=("https://a.example.org",)) as (store, canned):
        await store.ensure_bucket("b")
        await store.write_object("b", "k", b"1")
        url = store.presign("GET", "b", "k", audience="client", ttl_seconds=60)
    assert url.startswith(f"{canned.url}/astro%3Ab/k?")
    for asked in canned.asked:
        assert asked.target.replace("%3A", ":").startswith("/astro:b")
        assert not [name for name in asked.headers if name.startswith(("x-amz-checksum", "x-amz-sdk-checksum"))]
        assert asked.headers.get("content-encoding", "") == ""
        # Older stores know no other digest for these.
        if asked.method == "PUT" and "?" in asked.target:
            assert asked.headers["content-md5"]


async def test_addresses_by_audience() -> None:
    given = settings("http://private:7480", public_url="https://s3.example.org")
    store = S3Store(given, {"alps": "http://inside.alps:8080"}, lambda: datetime.now(UTC))

    def address(audience: Any, system: str | None) -> str:
        single = store.presign("GET", "b", "k", audience=audience, ttl_seconds=60, system=system)
        (part,) = store.presign_parts("b", "k", "u", [1], audience=audience, ttl_seconds=60, system=system)
        assert single.split("/b/k?")[0] == part.split("/b/k?")[0]
        return single.split("/b/k?")[0]

    assert address("client", None) == "https://s3.example.org"
    assert address("service", None) == "http://private:7480"
    assert address("system", "alps") == "http://inside.alps:8080"
    assert address("system", "another") == "http://private:7480"


def test_the_fingerprint_follows_the_rules_only() -> None:
    def of(**more: Any) -> str:
        return S3Store(settings("http://h", **more), {}, lambda: datetime.now(UTC)).bucket_rules_fingerprint()

    assert of() == of(ttl_seconds=60)
    changed = [
        of(bucket_lifecycle_configuration={"days": 3}),
        of(bucket_lifecycle_configuration={"abort_incomplete_multipart_days": 3}),
        of(cors_origins=("https://a.example.org",)),
    ]
    assert len({of(), *changed}) == 4


def test_keys_must_be_given() -> None:
    with pytest.raises(SettingsError, match=r"s3\.access_key_id"):
        S3Store(S3Settings(), {}, lambda: datetime.now(UTC))


async def test_deletions_go_on_after_a_failure() -> None:
    def answer(asked: Asked) -> Answer:
        return error(400, "Odd") if asked.target.endswith("/k1") else Answer(204)

    async with opened(answer) as (store, canned):
        with pytest.raises(StagecoachError):
            await store.delete_objects("b", ["k1", "k2", "k3"])
        assert {asked.target for asked in canned.asked} == {"/b/k1", "/b/k2", "/b/k3"}


async def test_a_store_that_does_not_answer_costs_one_timeout_and_comes_back_by_itself() -> None:
    hangs, now = True, 0.0

    def answer(_: Asked) -> Answer:
        return Answer(200, hangs=hangs)

    async with opened(answer, request_timeout_seconds=0.5) as (store, canned):
        store._asking._breaker._clock = lambda: now
        begun = time.monotonic()
        together = await asyncio.gather(*(store.write_object("b", f"k{n}", b"") for n in range(50)), return_exceptions=True)
        assert all(isinstance(failure, StoreUnavailable) for failure in together)
        assert time.monotonic() - begun < 2.5
        asked = len(canned.asked)
        for _ in range(50):
            with pytest.raises(StoreUnavailable, match=r"It is tried again within 5 s\.") as refusal:
                await store.write_object("b", "k", b"")
            assert refusal.value.data == {"retry_after_seconds": 5}
        with pytest.raises(StoreUnavailable, match="tried again"):
            await store.ensure_bucket("b")
        assert len(canned.asked) == asked
        hangs, now = False, 5.0
        await store.write_object("b", "k", b"")
        await store.write_object("b", "k", b"")
        assert len(canned.asked) == asked + 2


async def test_an_answer_that_breaks_off_closes_the_store_to_nobody() -> None:
    """Where a store writes in place, whoever may write an object breaks off its reading as often as he likes."""

    def answer(asked: Asked) -> Answer:
        return Answer(200, b"half", announced=8) if "torn" in asked.target else Answer(200, b"whole")

    async with opened(answer) as (store, _):
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="broke its answer off while reading an object"):
                await store.read_object("b", "torn", 100)
            assert await store.read_object("b", "k", 100) == b"whole"


async def test_an_answer_however_bad_closes_the_store_to_nobody() -> None:
    async with opened(lambda _: error(500, "InternalError")) as (store, canned):
        for _ in range(3):
            before = len(canned.asked)
            with pytest.raises(StoreUnavailable, match="cannot answer for now"):
                await store.abort_multipart("b", "k", "u")
            assert len(canned.asked) > before
