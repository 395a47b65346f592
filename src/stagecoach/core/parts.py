"""How a file is cut into parts that S3 accepts.

Limits are those of the S3 API (Amazon S3 User Guide, "Multipart upload limits"): at most 10,000 parts, at most 5 GiB a
part and 5 TiB an object, at least 5 MiB for every part but the last. An empty file has one empty part.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stagecoach.core.errors import SizeRefused

MEBIBYTE = 1024 * 1024
GIBIBYTE = 1024 * MEBIBYTE
MAX_PART_COUNT = 10_000
MIN_PART_SIZE_BYTES = 5 * MEBIBYTE
MAX_PART_SIZE_BYTES = 5 * GIBIBYTE
MAX_OBJECT_SIZE_BYTES = 5 * 1024 * GIBIBYTE
ENOUGH_PARTS = 64
"""More spread no better over connections, and each costs store and client a request."""
LARGE_PART_SIZE_BYTES = 32 * MEBIBYTE
"""Still sent again in seconds by a slow line; larger ones are no faster."""


@dataclass(frozen=True, slots=True)
class PartPlan:
    """``part_count`` parts of ``part_size_bytes``, the last one shorter or equal (or empty, for an empty file)."""

    size_bytes: int
    part_size_bytes: int
    part_count: int

    def size_of(self, number: int) -> int:
        """Bytes in part ``number`` (from 1)."""
        if not 1 <= number <= self.part_count:
            raise ValueError(f"part {number} is not between 1 and {self.part_count}")
        return min(self.part_size_bytes, self.size_bytes - (number - 1) * self.part_size_bytes)

    def numbers(self) -> Iterator[int]:
        """1 … part_count."""
        return iter(range(1, self.part_count + 1))


def plan_parts(size_bytes: int, max_part_size_bytes: int, min_part_size_bytes: int = 8 * MEBIBYTE) -> PartPlan:
    """The plan for a file of ``size_bytes``: the smallest allowed parts that are at most 64, but none above 32 MiB for that;
    then the smallest that are at most 10,000.

    Whole MiB keep them aligned. ``min_part_size_bytes`` gives way to ``max_part_size_bytes`` where the two disagree.

    Raises:
        SizeRefused: negative, above 5 TiB, or not to be cut into 10,000 parts of ``max_part_size_bytes``.
    """
    if size_bytes < 0:
        raise SizeRefused(f"The file size is {size_bytes} bytes; it must be 0 or more.")
    limit_bytes = min(MAX_OBJECT_SIZE_BYTES, max_part_size_bytes * MAX_PART_COUNT)
    if size_bytes > limit_bytes:
        raise SizeRefused(
            f"The file size of {size_bytes} bytes is above the limit of {limit_bytes} bytes "
            f"({MAX_PART_COUNT} parts of at most {max_part_size_bytes} bytes, and 5 TiB in all).",
            data={"limit_bytes": limit_bytes},
        )
    good = max(-(-size_bytes // MAX_PART_COUNT), min(-(-size_bytes // ENOUGH_PARTS), LARGE_PART_SIZE_BYTES))
    whole_mebibytes = -(-good // MEBIBYTE) * MEBIBYTE
    part_size = min(max(whole_mebibytes, min_part_size_bytes), max_part_size_bytes)
    return PartPlan(size_bytes, part_size, max(1, -(-size_bytes // part_size)))


@dataclass(frozen=True, slots=True)
class PartOffer:
    """For an object whose size only its sender will know: URLs for ``part_count`` parts at most, which may be as small
    as ``part_size_bytes``; no more than ``limit_bytes`` in all."""

    limit_bytes: int
    part_size_bytes: int
    part_count: int


def offer_parts(limit_bytes: int | None, max_part_size_bytes: int, min_part_size_bytes: int = 8 * MEBIBYTE) -> PartOffer:
    """What may be offered below ``limit_bytes`` (None: what S3 takes): :func:`fit_parts` then finds parts that are
    small enough for every size up to the offer's limit."""
    least = min(min_part_size_bytes, max_part_size_bytes)
    largest = min(MAX_OBJECT_SIZE_BYTES, max_part_size_bytes // least * least * MAX_PART_COUNT)
    limit = largest if limit_bytes is None else min(limit_bytes, largest)
    return PartOffer(limit, least, min(MAX_PART_COUNT, max(1, -(-limit // least))))


def fit_parts(size_bytes: int, part_size_bytes: int, part_count: int) -> PartPlan:
    """How the sender cuts what it has measured: the smallest multiple of ``part_size_bytes`` that gives at most
    ``part_count`` parts. The mover has the same rule (docs/ticket.md)."""
    part_size = part_size_bytes * max(1, -(-size_bytes // (part_size_bytes * part_count)))
    return PartPlan(size_bytes, part_size, max(1, -(-size_bytes // part_size)))


def multipart_etag(part_etags: Sequence[str]) -> str | None:
    """The ETag S3 gives a multipart object, ``md5(md5s)-N``, from those of its parts; None when one is no plain MD5."""
    digests = [etag.strip('"').lower() for etag in part_etags]
    if not digests or not all(re.fullmatch(r"[0-9a-f]{32}", digest) for digest in digests):
        return None
    whole = hashlib.md5(b"".join(bytes.fromhex(digest) for digest in digests), usedforsecurity=False)
    return f"{whole.hexdigest()}-{len(digests)}"
