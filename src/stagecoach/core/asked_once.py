"""Lets equal questions of one person that come within a second or two share one answer.

A page that is opened in five windows, or a program that asks every tenth of a second, costs the scheduler one question.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

FRESH_SECONDS = 1.5

Answer = TypeVar("Answer")


class AskedOnce:
    """Belongs to one event loop. What one person's question brought is never told to another."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, fresh_seconds: float = FRESH_SECONDS) -> None:
        self._clock = clock
        self._fresh_seconds = fresh_seconds
        self._asked: dict[tuple[str, str], dict[Hashable, _Asked]] = {}

    async def ask(
        self, system: str, username: str, what: Hashable, question: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        """The answer to ``question``, or to an equal one (``what``) that is under way or was answered just now.

        A failure is told to those who wait for it, and asked again by whoever comes later.
        """
        self._forget_stale()
        asked = self._asked.setdefault((system, username), {})
        if what not in asked:
            asked[what] = _Asked(asyncio.ensure_future(question()))
            asked[what].task.add_done_callback(lambda task: self._answered(asked, what, task))
        # One who goes away takes nobody else's answer with them.
        answer: Answer = await asyncio.shield(asked[what].task)
        return answer

    def forget(self, system: str, username: str) -> None:
        """Something was changed there by this person: what was answered before may be true no more."""
        self._asked.pop((system, username), None)

    def _answered(self, asked: dict[Hashable, _Asked], what: Hashable, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is not None:
            del asked[what]
        else:
            asked[what].fresh_until = self._clock() + self._fresh_seconds

    def _forget_stale(self) -> None:
        now = self._clock()
        for who, asked in list(self._asked.items()):
            for what in [what for what, one in asked.items() if one.fresh_until is not None and one.fresh_until <= now]:
                del asked[what]
            if not asked:
                del self._asked[who]


class _Asked:
    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.fresh_until: float | None = None
        """None while it is under way."""
