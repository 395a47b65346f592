"""Names of what a transfer makes outside: its id, bucket, object keys and job. All can be found again from the id alone.

No name ever carries a user's file name: stores refuse some keys and normalise others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

MAX_BUCKET_NAME_LENGTH = 63
_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_JOB_NAME_PREFIX = "stagecoach-"
# Amazon S3 keeps these beginnings and this end for itself (User Guide, "General purpose bucket naming rules").
_RESERVED_BEGINNINGS = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_END = "-s3alias"
_PLAIN_USER = re.compile(r"[a-z0-9](?:[a-z0-9]|-(?!-))*[a-z0-9]|[a-z0-9]")


def new_transfer_id(epoch_seconds: float, random_bits: Callable[[int], int]) -> str:
    """26 characters of Crockford's base 32 in lower case, sorted by time like a ULID: 48 bits of ms, 80 random bits."""
    value = (int(epoch_seconds * 1000) << 80) | random_bits(80)
    return "".join(_ID_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


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


def job_name(transfer_id: str) -> str:
    """The staging job's name: finds the job when the answer to its submission was lost."""
    return _JOB_NAME_PREFIX + transfer_id


def temporary_name(transfer_id: str) -> str:
    """The hidden file beside the target; its length does not depend on the target's name."""
    return f".stagecoach-{transfer_id}.part"


def is_account_name(text: str) -> bool:
    """Whether ``text`` can be an account of the scheduler's, and nothing that its commands would read as an option."""
    return re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,63}", text) is not None
