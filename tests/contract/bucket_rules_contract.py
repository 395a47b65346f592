"""What the S3 plug must do to the rules of buckets, on stores that have such rules."""

from __future__ import annotations

import asyncio
from typing import Any

from botocore.exceptions import ClientError
from tests.contract.object_store_contract import MovableClock

from stagecoach.object_stores.bucket_rules import ABORT_RULE_ID, CORS_RULE_ID, EXPIRE_RULE_ID
from stagecoach.object_stores.s3 import S3Store
from stagecoach.object_stores.s3_client import open_client
from stagecoach.settings import S3Settings
from stagecoach.settings.s3 import BucketLifecycleSettings

ORIGIN = "https://portal.example.org"
FOREIGN_RULE = {
    "ID": "the-administrators",
    "Status": "Enabled",
    "Filter": {"Prefix": "tmp/"},
    "Expiration": {"Days": 2},
}


async def ensure(settings: S3Settings, bucket: str) -> None:
    """What a process with these settings does at its start."""
    async with S3Store(settings, {}, MovableClock()) as store:
        await store.ensure_bucket(bucket)


async def lifecycle_there(settings: S3Settings, bucket: str) -> dict[str, Any]:
    async with open_client(settings) as client:
        answer = await client.get_bucket_lifecycle_configuration(Bucket=bucket)
    return {rule["ID"]: rule for rule in answer["Rules"]}


async def cors_there(settings: S3Settings, bucket: str) -> dict[str, Any]:
    async with open_client(settings) as client:
        try:
            answer = await client.get_bucket_cors(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchCORSConfiguration":
                raise
            return {}
    return {rule["ID"]: rule for rule in answer["CORSRules"]}


class BucketRulesContract:
    """Subclasses give the fixtures ``settings`` and ``bucket``."""

    async def test_lifecycle_reaches_an_existing_bucket(self, settings: S3Settings, bucket: str) -> None:
        await ensure(settings, bucket)
        async with open_client(settings) as client:
            rules = [*(await lifecycle_there(settings, bucket)).values(), FOREIGN_RULE]
            rules = [{**rule, "Filter": {"Prefix": rule.pop("Prefix")}} if "Prefix" in rule else rule for rule in rules]
            await client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
        for days, abort in ((10, 7), (3, 1)):
            life = BucketLifecycleSettings(days=days, abort_incomplete_multipart_days=abort)
            await ensure(settings.model_copy(update={"bucket_lifecycle_configuration": life}), bucket)
            there = await lifecycle_there(settings, bucket)
            assert set(there) == {EXPIRE_RULE_ID, ABORT_RULE_ID, FOREIGN_RULE["ID"]}
            assert there[EXPIRE_RULE_ID]["Expiration"]["Days"] == days
            assert there[ABORT_RULE_ID]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == abort
            assert there["the-administrators"]["Expiration"]["Days"] == 2

    async def test_cors_follows_the_settings(self, settings: S3Settings, bucket: str) -> None:
        await ensure(settings, bucket)
        assert await cors_there(settings, bucket) == {}
        for origins in ((ORIGIN,), (ORIGIN, "https://other.example.org")):
            await ensure(settings.model_copy(update={"cors_origins": origins}), bucket)
            rule = (await cors_there(settings, bucket))[CORS_RULE_ID]
            assert sorted(rule["AllowedOrigins"]) == sorted(origins)
            assert sorted(rule["AllowedMethods"]) == ["GET", "HEAD", "POST", "PUT"]
            assert rule["ExposeHeaders"] == ["ETag"]
        await ensure(settings, bucket)
        assert await cors_there(settings, bucket) == {}

    async def test_four_processes_with_five_requests_each_make_one_bucket(self, settings: S3Settings, bucket: str) -> None:
        changed = settings.model_copy(update={"cors_origins": (ORIGIN,)})

        async def start() -> None:
            async with S3Store(changed, {}, MovableClock()) as store:
                await asyncio.gather(*(store.ensure_bucket(bucket) for _ in range(5)))

        await asyncio.gather(*(start() for _ in range(4)))
        assert set(await lifecycle_there(settings, bucket)) == {EXPIRE_RULE_ID, ABORT_RULE_ID}
        assert set(await cors_there(settings, bucket)) == {CORS_RULE_ID}

    async def test_rules_that_fit_are_not_written_again(self, settings: S3Settings, bucket: str) -> None:
        changed = settings.model_copy(update={"cors_origins": (ORIGIN,)})
        await ensure(changed, bucket)
        async with S3Store(changed, {}, MovableClock()) as store:
            sent: list[str] = []
            store._client.meta.events.register("before-call.s3", lambda model, **_: sent.append(model.name))
            await store.ensure_bucket(bucket)
        assert sent == ["CreateBucket", "GetBucketLifecycleConfiguration", "GetBucketCors"]
