"""How many operations on files may be under way at once, so that one user's checksums keep nobody from a listing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class LongOperations:
    """Of one system in this process. Belongs to one event loop."""

    def __init__(self) -> None:
        self._under_way: Counter[str] = Counter()
        self._ended = asyncio.Condition()

    @asynccontextmanager
    async def turn(self, username: str, *, of_user: int, of_all: int) -> AsyncIterator[None]:
        """One more, as soon as there are fewer than ``of_user`` of this user's and fewer than ``of_all`` in all."""
        async with self._ended:
            await self._ended.wait_for(lambda: self._under_way[username] < of_user and self._under_way.total() < of_all)
            self._under_way[username] += 1
        try:
            yield
        finally:
            self._under_way[username] -= 1
            if not self._under_way[username]:
                del self._under_way[username]
            # Nobody holds the lock for longer than a look, so a cancelled caller may wait for it.
            await asyncio.shield(self._tell())

    async def _tell(self) -> None:
        async with self._ended:
            self._ended.notify_all()
