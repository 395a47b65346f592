"""Names of what a transfer makes outside: its id, bucket, object keys and job. All can be found again from the id alone.

No name ever carries a user's file name: stores refuse some keys and normalise others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

MAX_BUCKET_NAME_LENGTH = 63
_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
JOB_NAME_PREFIX = "stagecoach-"
CHECK_PREFIX = "check-"
"""Before the id in the names of what ``stagecoach check`` makes to try things out."""
_TRANSFER_ID = re.compile(f"[0-7][{_ID_ALPHABET}]{{25}}")
_ATTEMPT = re.compile("[1-9][0-9]{0,5}")
# Amazon S3 keeps these beginnings and this end for itself (User Guide, "General purpose bucket naming rules").
_RESERVED_BEGINNINGS = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_END = "-s3alias"
_PLAIN_USER = re.compile(r"[a-z0-9](?:[a-z0-9]|-(?!-))*[a-z0-9]|[a-z0-9]")


def new_transfer_id(epoch_seconds: float, random_bits: Callable[[int], int]) -> str:
    """26 characters of Crockford's base 32 in lower case, sorted by time like a ULID: 48 bits of ms, 80 random bits."""
    value = (int(epoch_seconds * 1000) << 80) | random_bits(80)
    return "".join(_ID_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


def is_transfer_id(text: str) -> bool:
    """Whether :func:`new_transfer_id` could have made ``text``."""
    return _TRANSFER_ID.fullmatch(text) is not None


def epoch_seconds_of(transfer_id: str) -> float:
    """When the id was made."""
    value = 0
    for character in transfer_id:
        value = value << 5 | _ID_ALPHABET.index(character)
    return (value >> 80) / 1000


def bucket_name(prefix: str, username: str) -> str:
    """The user's bucket: always a valid S3 bucket name, never shared by two user names.

    A plain name (lower-case letters, digits, single dashes) is kept; any other becomes its readable rest, two dashes
    and 16 hex digits of its SHA-256. A plain name never has two dashes, so the two kinds cannot meet.
    """
    room = MAX_BUCKET_NAME_LENGTH - len(prefix)
    plain = prefix + username
    reserved = plain.startswith(_RESERVED_BEGINNINGS) or plain.endswith(_RESERVED_END)
    if _PLAIN_USER.fullmatch(username) and not reserved and 3 <= len(plain) <= MAX_BUCKET_NAME_LENGTH:
        return plain
    digest = hashlib.sha256(username.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    readable = re.sub(r"[^a-z0-9]+", "-", username.lower()).strip("-")[: room - 18].strip("-") or "user"
    if f"{prefix}{readable}--".startswith(_RESERVED_BEGINNINGS):
        readable = "user"
    return f"{prefix}{readable}--{digest}"


def object_key(transfer_id: str) -> str:
    """The staging object."""
    return f"{transfer_id}/data"


def ticket_key(transfer_id: str) -> str:
    """The ticket."""
    return f"{transfer_id}/ticket.json"


def progress_key(transfer_id: str) -> str:
    """The mover's latest progress."""
    return f"{transfer_id}/progress.json"


def receipt_key(transfer_id: str) -> str:
    """The mover's receipt."""
    return f"{transfer_id}/receipt.json"


def all_keys(transfer_id: str) -> tuple[str, ...]:
    """Every object a transfer may have in its bucket."""
    return (object_key(transfer_id), ticket_key(transfer_id), progress_key(transfer_id), receipt_key(transfer_id))


def id_in_key(key: str) -> str | None:
    """The id in the key of an object that a transfer (or a check) may have; None for any other key."""
    first = key.partition("/")[0]
    return id_in_directory_name(first) if key in all_keys(first) else None


def id_in_directory_name(name: str) -> str | None:
    """The id in the name of the job directory of a transfer (or a check); None for any other name."""
    bare = name.removeprefix(CHECK_PREFIX)
    return bare if is_transfer_id(bare) else None


def id_in_temporary_name(name: str) -> str | None:
    """The id in the name of a hidden file beside a target; None for any other name."""
    bare = name.removeprefix(".stagecoach-").removesuffix(".part")
    return bare if is_transfer_id(bare) and name == temporary_name(bare) else None


def job_name(transfer_id: str, attempt: int = 1) -> str:
    """The staging job's name: finds the job when the answer to its submission was lost. Each attempt has its own."""
    return f"{JOB_NAME_PREFIX}{transfer_id}" + (f"-{attempt}" if attempt > 1 else "")


def id_and_attempt_in_job_name(name: str) -> tuple[str, int] | None:
    """The id and the attempt in the name of a staging job; None for any other job's name."""
    transfer_id, _, attempt = name.removeprefix(JOB_NAME_PREFIX).partition("-")
    number = int(attempt) if _ATTEMPT.fullmatch(attempt) else 1
    is_ours = is_transfer_id(transfer_id) and name == job_name(transfer_id, number)
    return (transfer_id, number) if is_ours else None


def temporary_name(transfer_id: str) -> str:
    """The hidden file beside the target; its length does not depend on the target's name."""
    return f".stagecoach-{transfer_id}.part"


def is_temporary_name(name: str) -> bool:
    """Whether a transfer, whichever, may have a hidden file or folder of this name. Also where letters' case counts not."""
    return re.fullmatch(r"\.stagecoach-[0-9a-z]+\.part", name, re.IGNORECASE) is not None


def is_account_name(text: str) -> bool:
    """Whether ``text`` can be an account of the scheduler's, and nothing that its commands would read as an option."""
    return re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,63}", text) is not None
