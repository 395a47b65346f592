"""Secrets that this service makes itself: recognisable by their beginning, and known to it only by their SHA-256.

Sessions, personal tokens and nodes' credentials are sent with requests; enrolment tokens and invitations are handed over once.

256 random bits need no slow hash: nobody can try them all. They are compared by looking their digest up.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable

SESSION_PREFIX = "scs_"
PERSONAL_PREFIX = "sct_"
NODE_PREFIX = "scn_"
ENROLMENT_PREFIX = "sce_"
INVITATION_PREFIX = "sci_"
_SECRET_BITS = 256
_SHAPE = re.compile(r"sc[stnei]_[A-Za-z0-9_-]{43}", re.ASCII)


def new_secret(prefix: str, random_bits: Callable[[int], int]) -> str:
    """``prefix`` and 43 characters of base64url."""
    bits = random_bits(_SECRET_BITS).to_bytes(_SECRET_BITS // 8, "big")
    return prefix + base64.urlsafe_b64encode(bits).rstrip(b"=").decode()


def is_secret_of_ours(token: str) -> bool:
    """Whether it begins as those of ours do that come with requests; it may still be none."""
    return token.startswith((SESSION_PREFIX, PERSONAL_PREFIX, NODE_PREFIX))


def secret_digest(secret: str) -> str | None:
    """Hex SHA-256; None for what has not the shape of ours."""
    return hashlib.sha256(secret.encode()).hexdigest() if _SHAPE.fullmatch(secret) else None
