"""Makes a user's bucket and keeps its rules, whoever else does the same at the same moment.

Never deletes anything that it has not just read as its own: a store that ignores ``?cors`` (``rclone serve s3``) would
take "delete the CORS rules" for "delete the bucket".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from botocore.exceptions import ClientError

from stagecoach.object_stores.bucket_rules import cors_rules, lifecycle_rules, merged_cors, merged_lifecycle
from stagecoach.object_stores.s3_errors import (
    Asking,
    bucket_of_a_stranger,
    code_of,
    is_contended,
    is_unsupported,
)
from stagecoach.settings import S3Settings

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_s3.type_defs import CreateBucketConfigurationTypeDef

logger = logging.getLogger(__name__)

_ROUNDS = 5
_FIRST_PAUSE_SECONDS = 0.05
_HOME_REGION = "us-east-1"


@dataclass(eq=False)
class _Turn:
    """Whose turn it is at one bucket, and when the last one that succeeded began; forgotten when nobody waits."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    last_begun: float = float("-inf")


class BucketKeeper:
    """``client`` and the settings of the store whose buckets are kept."""

    def __init__(self, client: S3Client, settings: S3Settings, asking: Asking) -> None:
        self._client = client
        self._asking = asking
        self._settings = settings
        self._lifecycle = lifecycle_rules(settings)
        self._cors = cors_rules(settings)
        self._unsupported: set[str] = set()
        self._turns: WeakValueDictionary[str, _Turn] = WeakValueDictionary()

    def keep_rules_of(self, settings: S3Settings) -> None:
        """From now on these."""
        self._lifecycle = lifecycle_rules(settings)
        self._cors = cors_rules(settings)

    async def ensure(self, named: str, bucket: str) -> None:
        """``named`` (``bucket`` with its tenant) exists, is ours and has our rules."""
        # One at a time within this process: RGW guards a bucket's lifecycle with a lock that losers ask for again only
        # every 5 seconds, and 20 first requests at once took 10. Who waited while another did all of it has nothing
        # left to do.
        now = asyncio.get_running_loop().time
        arrived = now()
        turn = self._turns.setdefault(named, _Turn())
        async with turn.lock:
            if turn.last_begun > arrived:
                return
            begun = now()
            await self._settle("making a bucket", lambda: self._create(named, bucket))
            for what, keep in (("lifecycle rules", self._keep_lifecycle), ("CORS rules", self._keep_cors)):
                await self._settle(f"setting {what}", partial(self._keep, what, keep, named))
            turn.last_begun = begun

    async def _create(self, named: str, bucket: str) -> None:
        try:
            # RGW, and AWS in us-east-1, answer 200 for a bucket that is ours already; others say so.
            await self._request_bucket(named)
        except ClientError as error:
            code = code_of(error)
            if code == "BucketAlreadyOwnedByYou":
                return
            # We may not make buckets: one that was made for us, and that we can look at, will do.
            if code == "AccessDenied" and await self._is_visible(named):
                return
            if code != "BucketAlreadyExists":
                raise
            # A stranger's, except at rclone, where it may be ours. A stranger may have opened his bucket to the
            # world, so that looking at it (HEAD) proves nothing: it must be among our own.
            if not await self._is_listed(bucket):
                raise bucket_of_a_stranger(bucket) from None

    async def _request_bucket(self, named: str) -> None:
        region = self._settings.region
        try:
            await self._client.create_bucket(Bucket=named)
        except ClientError as error:
            # AWS wants its region named outside us-east-1; RGW refuses names that are not its zone group's.
            if code_of(error) != "IllegalLocationConstraintException" or region == _HOME_REGION:
                raise
        else:
            return
        where: CreateBucketConfigurationTypeDef = {"LocationConstraint": region}  # type: ignore[typeddict-item]
        await self._client.create_bucket(Bucket=named, CreateBucketConfiguration=where)

    async def _is_listed(self, bucket: str) -> bool:
        token = ""
        while True:
            page = await (self._client.list_buckets(ContinuationToken=token) if token else self._client.list_buckets())
            if any(entry.get("Name") == bucket for entry in page.get("Buckets", [])):
                return True
            token = page.get("ContinuationToken", "")
            if not token:
                return False

    async def _is_visible(self, named: str) -> bool:
        try:
            await self._client.head_bucket(Bucket=named)
        except ClientError:
            return False
        return True

    async def _keep(self, what: str, keep: Callable[[str], Awaitable[None]], named: str) -> None:
        """Put rules in place. A store that has no such rules is fine: the worker's own clean-up must do there."""
        if what in self._unsupported:
            return
        try:
            await keep(named)
        except ClientError as error:
            if not is_unsupported(error):
                raise
            self._unsupported.add(what)
            logger.warning("the S3 store has no %s; the worker's own clean-up must do", what)

    async def _settle(self, doing: str, act: Callable[[], Awaitable[None]]) -> None:
        """Several processes may change one bucket at once; the one that is turned away looks again."""
        for round_number in range(_ROUNDS):
            async with self._asking(doing):
                try:
                    return await act()
                except ClientError as error:
                    if round_number == _ROUNDS - 1 or not is_contended(error):
                        raise
            await asyncio.sleep(_FIRST_PAUSE_SECONDS * 2**round_number)

    async def _keep_lifecycle(self, named: str) -> None:
        try:
            there = (await self._client.get_bucket_lifecycle_configuration(Bucket=named)).get("Rules", [])
        except ClientError as error:
            if code_of(error) != "NoSuchLifecycleConfiguration":
                raise
            there = []
        rules = merged_lifecycle(there, self._lifecycle)
        if rules is not None:
            await self._client.put_bucket_lifecycle_configuration(Bucket=named, LifecycleConfiguration={"Rules": rules})

    async def _keep_cors(self, named: str) -> None:
        try:
            there = (await self._client.get_bucket_cors(Bucket=named)).get("CORSRules", [])
        except ClientError as error:
            if code_of(error) != "NoSuchCORSConfiguration":
                raise
            there = []
        rules = merged_cors(there, self._cors)
        if rules is None:
            return
        if rules:
            await self._client.put_bucket_cors(Bucket=named, CORSConfiguration={"CORSRules": rules})
        else:
            # Only reached when our own rule was read from this bucket a moment ago.
            await self._client.delete_bucket_cors(Bucket=named)
