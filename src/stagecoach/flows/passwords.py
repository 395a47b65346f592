"""Hashes passwords with argon2id, a few at a time: each takes 64 MiB, and strangers may ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pwdlib.exceptions import UnknownHashError
from pwdlib.hashers.argon2 import Argon2Hasher

from stagecoach.core.errors import TooManyRequests

T = TypeVar("T")

AT_ONCE = 2
MAX_WAITING = 20
WAIT_SECONDS = 2


class Passwords:
    """Threads of its own, so that log-ins do not keep files and keys waiting."""

    def __init__(self, hasher: Argon2Hasher | None = None) -> None:
        self._hasher = hasher or Argon2Hasher()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="passwords")
        self._under_way = 0
        self._nobodys = self._hasher.hash("nobody's password")

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False)

    async def hash(self, password: str) -> str:
        """With a salt of its own. Raises TooManyRequests."""
        return await self._in_thread(self._hasher.hash, password)

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Takes as long without a hash to compare with, so that time does not tell whether there is such an account.

        Raises TooManyRequests.
        """
        return await self._in_thread(self._matches, password, password_hash or self._nobodys) and password_hash is not None

    def is_outdated(self, password_hash: str) -> bool:
        """Whether it was hashed with other costs than are right today."""
        return self._hasher.check_needs_rehash(password_hash)

    def _matches(self, password: str, password_hash: str) -> bool:
        try:
            return self._hasher.verify(password, password_hash)
        except UnknownHashError:
            return False

    async def _in_thread(self, work: Callable[..., T], *arguments: str) -> T:
        if self._under_way >= MAX_WAITING:
            raise TooManyRequests(
                "Many people log in at this moment; try again in a few seconds.", data={"retry_after_seconds": WAIT_SECONDS}
            )
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        finally:
            self._under_way -= 1
