"""Seals what a row must hold for a while and nobody who reads the database may know: keys of receivers and stores.

A sealed value can be opened with ``nodes.sealing_key`` alone, which no row has.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field

from cryptography.fernet import Fernet, InvalidToken


@dataclass(frozen=True, slots=True)
class AccessKey:
    """What opens a receiver's folder or a store's bucket. Secret."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


class Sealing:
    """Seals and unseals with one key: any random text, the same in every replica."""

    def __init__(self, sealing_key: str) -> None:
        self._fernet = Fernet(base64.urlsafe_b64encode(hashlib.sha256(sealing_key.encode()).digest()))

    def seal(self, key: AccessKey) -> bytes:
        """Another value each time."""
        return self._fernet.encrypt(json.dumps([key.access_key_id, key.secret_access_key]).encode())

    def unseal(self, sealed: bytes) -> AccessKey | None:
        """None: it was sealed with another key, or is no sealed value."""
        try:
            access_key_id, secret_access_key = json.loads(self._fernet.decrypt(sealed))
        except (InvalidToken, ValueError, TypeError):
            return None
        return AccessKey(access_key_id, secret_access_key)
