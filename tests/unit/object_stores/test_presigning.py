"""Our signer against botocore's: the same URL, character for character."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import botocore.auth
import botocore.session
import pytest
from botocore.config import Config
from botocore.handlers import validate_bucket_name

from stagecoach.object_stores.presigning import MAX_TTL_SECONDS, Presigner

NOW = datetime(2026, 2, 28, 23, 59, 58, tzinfo=UTC)
BASE_URLS = [
    "https://s3.example.org",
    "https://s3.example.org/",
    "https://s3.example.org:443",
    "https://S3.Example.org:8443",
    "http://127.0.0.1:7480",
    "http://store:80",
    "http://store:443/behind/a/proxy",
    "https://store/behind/a/proxy/",
    "http://[::1]:9000",
    "https://[2001:db8::1]",
]
BUCKETS = ["stagecoach-alice", "b.with.dots", "tenant:stagecoach-alice", "Ten_ant:b1"]
ODD = "az AZ09-_.~!*'()$&,;:=@+/%?#[]{}<>|\\^`\"éß漢🚄\x7f\t"
ACCESS_KEYS = ["AKIAEXAMPLE", "key/with+odd=signs"]


@pytest.fixture
def botocore_urls(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A botocore client whose clock stands at ``NOW``."""
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_args, **_more: NOW.replace(tzinfo=None))
    session = botocore.session.get_session()

    def client(url: str, access_key: str = ACCESS_KEYS[0], region: str = "us-east-1") -> Any:
        made = session.create_client(
            "s3",
            endpoint_url=url,
            region_name=region,
            aws_access_key_id=access_key,
            aws_secret_access_key="secret/+=",
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        made.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)
        return made

    return client


def ours(url: str, access_key: str = ACCESS_KEYS[0], region: str = "us-east-1") -> Presigner:
    # The clock shows another zone on purpose: signatures are in UTC.
    here = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    return Presigner(url, access_key_id=access_key, secret_access_key="secret/+=", region=region, clock=lambda: here)


def odd_text(source: random.Random, longest: int) -> str:
    return "".join(source.choice(ODD) for _ in range(source.randint(1, longest)))


@pytest.mark.parametrize("url", BASE_URLS)
def test_every_operation_equals_botocore(botocore_urls: Callable[..., Any], url: str) -> None:
    source = random.Random(url)
    for access_key in ACCESS_KEYS:
        client, signer = botocore_urls(url, access_key), ours(url, access_key)
        for bucket in BUCKETS:
            for _ in range(4):
                key, upload = odd_text(source, 60), odd_text(source, 40)
                number, ttl = source.randint(1, 10_000), source.randint(1, MAX_TTL_SECONDS)
                where = {"Bucket": bucket, "Key": key}
                upload_where = {**where, "UploadId": upload}
                name = odd_text(source, 30)
                cases: list[tuple[str, dict[str, Any], str, dict[str, str]]] = [
                    ("get_object", where, "GET", {}),
                    (
                        "get_object",
                        {**where, "ResponseContentDisposition": f'attachment; filename="{name}"'},
                        "GET",
                        {"response-content-disposition": f'attachment; filename="{name}"'},
                    ),
                    ("head_object", where, "HEAD", {}),
                    ("put_object", where, "PUT", {}),
                    (
                        "upload_part",
                        {**upload_where, "PartNumber": number},
                        "PUT",
                        {"uploadId": upload, "partNumber": str(number)},
                    ),
                    ("complete_multipart_upload", upload_where, "POST", {"uploadId": upload}),
                    ("abort_multipart_upload", upload_where, "DELETE", {"uploadId": upload}),
                    ("list_parts", upload_where, "GET", {"uploadId": upload}),
                ]
                for operation, params, method, query in cases:
                    theirs = client.generate_presigned_url(operation, Params=params, ExpiresIn=ttl)
                    assert signer.presign(method, bucket, key, ttl_seconds=ttl, query=query) == theirs


@pytest.mark.parametrize("url", BASE_URLS)
def test_a_signed_header_equals_botocore(botocore_urls: Callable[..., Any], url: str) -> None:
    params = {"Bucket": "b", "Key": "k", "ChecksumMode": "ENABLED"}
    theirs = botocore_urls(url).generate_presigned_url("head_object", Params=params, ExpiresIn=60)
    headers = {"x-amz-checksum-mode": "ENABLED"}
    assert ours(url).presign("HEAD", "b", "k", ttl_seconds=60, headers=headers) == theirs


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-2", "default"])
def test_several_query_parameters_and_regions(botocore_urls: Callable[..., Any], region: str) -> None:
    url = "https://s3.example.org"
    client, signer = botocore_urls(url, region=region), ours(url, region=region)
    theirs = client.generate_presigned_url(
        "get_object",
        Params={"Bucket": "b", "Key": "k", "ResponseContentType": "text/plain", "ResponseCacheControl": "no-store"},
        ExpiresIn=60,
    )
    # botocore writes parameters in the order of its own model; ours keeps the caller's.
    query = {"response-content-type": "text/plain", "response-cache-control": "no-store"}
    orders = [query, dict(reversed(query.items()))]
    assert theirs in [signer.presign("GET", "b", "k", ttl_seconds=60, query=order) for order in orders]


def test_all_parts_of_one_upload(botocore_urls: Callable[..., Any]) -> None:
    client, signer = botocore_urls("http://127.0.0.1:7480"), ours("http://127.0.0.1:7480")
    numbers = range(1, 10_001)
    key, upload = "01hzx0/data", "2~a+/=é~ b"
    made = signer.presign_parts("tenant:stagecoach-alice", key, upload, numbers, ttl_seconds=86_400)
    assert len(set(made)) == len(made) == 10_000
    where = {"Bucket": "tenant:stagecoach-alice", "Key": key, "UploadId": upload}
    for number, url in zip(numbers, made, strict=True):
        assert url == client.generate_presigned_url("upload_part", Params={**where, "PartNumber": number}, ExpiresIn=86_400)


def test_parts_equal_single_urls_and_keep_their_order() -> None:
    signer = ours("https://s3.example.org")
    numbers = [9, 10_000, 1, 9]
    assert signer.presign_parts("b", "k", "u", numbers, ttl_seconds=60) == [
        signer.presign("PUT", "b", "k", ttl_seconds=60, query={"uploadId": "u", "partNumber": str(number)}) for number in numbers
    ]
    assert signer.presign_parts("b", "k", "u", [], ttl_seconds=60) == []


def test_the_day_changes_the_key() -> None:
    now = NOW

    def clock() -> datetime:
        return now

    signer = Presigner("http://h", access_key_id="a", secret_access_key="s", region="r", clock=clock)
    before = signer.presign("GET", "b", "k", ttl_seconds=60)
    now = NOW + timedelta(seconds=2)
    after = signer.presign("GET", "b", "k", ttl_seconds=60)
    assert "20260228%2Fr" in before
    assert "20260301%2Fr" in after


@pytest.mark.parametrize("ttl", [0, -1, MAX_TTL_SECONDS + 1])
def test_a_life_that_s3_refuses(ttl: int) -> None:
    signer = ours("http://h")
    with pytest.raises(ValueError, match="between 1 and 604800"):
        signer.presign("GET", "b", "k", ttl_seconds=ttl)
    with pytest.raises(ValueError, match="between 1 and 604800"):
        signer.presign_parts("b", "k", "u", [1], ttl_seconds=ttl)
