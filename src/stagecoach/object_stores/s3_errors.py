"""What an S3 store's complaints mean for a user, in words that hold no key, URL or signature.

Nothing here may let botocore's own messages out: they quote addresses, buckets, keys and upload ids.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError, IncompleteReadError, ResponseStreamingError

from stagecoach.core.breaker import Breaker
from stagecoach.core.errors import BucketMissing, Conflict, InvalidRequest, PartsMissing, StagecoachError, StoreUnavailable

ABSENT_UPLOAD = frozenset({"NoSuchUpload", "NoSuchKey", "NoSuchBucket", "404", "NotFound"})
"""RGW says NoSuchKey where others say NoSuchUpload; a HEAD has no body, so only the number is known."""

ABSENT_OBJECT = frozenset({"NoSuchKey", "NoSuchBucket", "404", "NotFound"})

_CREDENTIALS_REFUSED = frozenset(
    {
        "403",
        "401",
        "AccessDenied",
        "AllAccessDisabled",
        "AccountProblem",
        "ExpiredToken",
        "Forbidden",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "UserSuspended",
    }
)
_UNSUPPORTED = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405", "XNotImplemented"})
_CONTENDED = frozenset({"OperationAborted", "ConcurrentModification", "ConditionalRequestConflict"})


def code_of(error: ClientError) -> str:
    """The store's code, or the number of the answer when it had no body; nothing that could not be a code."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return re.sub(r"[^A-Za-z0-9.]", "", code)[:64] or str(status_of(error))


def status_of(error: ClientError) -> int:
    """The number of the answer, 0 when unknown."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)


def is_unsupported(error: ClientError) -> bool:
    """Whether the store does not know the feature at all.

    ``rclone serve s3`` ignores ``?lifecycle`` and ``?cors``, takes the request for "create bucket" and answers
    BucketAlreadyExists.
    """
    return (
        code_of(error) in _UNSUPPORTED
        or status_of(error) in {405, 501}
        or code_of(error) in {"BucketAlreadyExists", "BucketAlreadyOwnedByYou"}
    )


def is_contended(error: ClientError) -> bool:
    """Whether somebody else changed the same thing at the same moment."""
    return code_of(error) in _CONTENDED


def bucket_of_a_stranger(bucket: str) -> StoreUnavailable:
    """The name is taken; only another prefix helps."""
    return StoreUnavailable(
        f"The bucket {bucket} belongs to another account of the S3 store; the operator must choose another s3.bucket_prefix.",
        data={"bucket": bucket},
    )


def store_error(error: ClientError, doing: str) -> StagecoachError:
    """The store answered, but not with what was asked."""
    code, status = code_of(error), status_of(error)
    data: dict[str, object] = {"store_code": code, "store_status": status}
    if code in {"InvalidPart", "InvalidPartOrder"}:
        return PartsMissing("The S3 store cannot join the parts: some are missing or not the ones it holds.", data=data)
    if code == "EntityTooSmall":
        return InvalidRequest("The S3 store cannot join the parts: one of them is smaller than S3 allows.", data=data)
    if code == "NoSuchUpload":
        return Conflict("The multipart upload is no longer open at the S3 store.", data=data)
    if code == "NoSuchBucket":
        return BucketMissing(f"The bucket is gone from the S3 store while {doing}; try again, it will be made anew.", data=data)
    if code == "RequestTimeTooSkewed":
        return StoreUnavailable("The clocks of this service and of the S3 store differ too much.", data=data)
    if code == "AuthorizationHeaderMalformed":
        return StoreUnavailable("The S3 store refuses the region in signatures; check s3.region.", data=data)
    if code in _CREDENTIALS_REFUSED or status in {401, 403}:
        return StoreUnavailable(f"The S3 store refuses this service's credentials ({code}) while {doing}.", data=data)
    if status >= 500 or code in {"SlowDown", "RequestTimeout"}:
        return StoreUnavailable(f"The S3 store cannot answer for now ({code}) while {doing}.", data=data)
    return StoreUnavailable(f"The S3 store answers {code} while {doing}.", data=data)


class Asking:
    """Exchanges with one store, of at most ``timeout_seconds`` each. A store that does not answer at all costs one of
    them; after that everybody is told at once, until one who tries again gets an answer."""

    def __init__(self, timeout_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_seconds = timeout_seconds
        self._breaker = Breaker(StoreUnavailable, clock)

    @asynccontextmanager
    async def __call__(self, doing: str) -> AsyncIterator[None]:
        """One exchange: bounded in time as a whole, retries included, every failure put in our words."""
        with self._breaker.gate():
            try:
                async with _in_our_words(doing, self._timeout_seconds):
                    yield
            except StagecoachError as failure:
                # An answer of the store, however bad, shows that it is there.
                if isinstance(failure, StoreUnavailable) and "store_code" not in failure.data:
                    self._breaker.broke(failure)
                else:
                    self._breaker.worked()
                raise
            self._breaker.worked()


@asynccontextmanager
async def _in_our_words(doing: str, timeout_seconds: float) -> AsyncIterator[None]:
    # "from None" everywhere: a printed chain of causes would show the library's message with its URLs and keys.
    try:
        async with asyncio.timeout(timeout_seconds):
            yield
    except ClientError as error:
        raise store_error(error, doing) from None
    except TimeoutError:
        message = f"The S3 store did not answer within {timeout_seconds:g} seconds while {doing}."
        raise StoreUnavailable(message) from None
    except (aiohttp.ClientPayloadError, IncompleteReadError, ResponseStreamingError):
        # An answer had begun. Where a store writes in place, it breaks off when somebody writes the object meanwhile.
        message = f"The S3 store broke its answer off while {doing}."
        raise StoreUnavailable(message, data={"store_code": "answer_broken_off"}) from None
    except (BotoCoreError, aiohttp.ClientError, OSError) as error:
        message = f"The S3 store cannot be reached ({type(error).__name__}) while {doing}."
        raise StoreUnavailable(message) from None
