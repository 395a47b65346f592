"""What a client says of its file, for the cluster to compare: digests of the whole and of each part. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from stagecoach.core.errors import Conflict, DigestRefused
from stagecoach.core.transfer import Transfer

PartDigests = Mapping[str, Sequence[str]]
"""Algorithm (``md5``, ``crc32``, ``sha256``) → one lower-case hex value a part, in order."""

_MD5 = re.compile(r"[0-9a-f]{32}")


def with_digests(transfer: Transfer, digests: Mapping[str, str], part_digests: PartDigests) -> Transfer:
    """``transfer`` with what its client has said now added to what it said before.

    Raises:
        Conflict: it says something else of what it spoke of before; the first word stays.
        DigestRefused: not one value for each part, or two values for the one part that is the whole file.
    """
    for values in part_digests.values():
        if len(values) != transfer.part_count:
            raise DigestRefused(
                f"partDigests has {len(values)} values, but the file has {transfer.part_count} parts "
                f"(of {transfer.part_size_bytes} bytes, the last one shorter or equal); give one value for each.",
                data={"part_count": transfer.part_count, "part_size_bytes": transfer.part_size_bytes},
            )
    said = {algorithm: tuple(values) for algorithm, values in part_digests.items()}
    whole, parts = {**digests, **transfer.digests}, {**said, **transfer.part_digests}
    if any(whole[name] != digests[name] for name in digests) or any(parts[name] != said[name] for name in said):
        raise Conflict("The digest is not the one that was given when the upload began; it stays with that one.")
    for algorithm, values in parts.items():
        if transfer.part_count == 1 and whole.get(algorithm, values[0]) != values[0]:
            raise DigestRefused(f"The file has one part, but the {algorithm} of the part is not the file's: one is wrong.")
    return replace(transfer, digests=whole, part_digests=parts)


def is_md5(etag: str) -> bool:
    """Whether an ETag has the form of a plain MD5."""
    return _MD5.fullmatch(etag.strip('"').lower()) is not None


def differing_parts(md5s: Sequence[str], etags: Mapping[int, str]) -> list[int]:
    """Numbers of the parts whose ETag, by number, is a plain MD5 and not the one that the client gave."""
    return [
        number
        for number, md5 in enumerate(md5s, 1)
        if number in etags and is_md5(etags[number]) and etags[number].strip('"').lower() != md5
    ]
