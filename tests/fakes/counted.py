"""Counts what the service asks of the outside, minute by minute, and keeps no more than that."""

from __future__ import annotations

import inspect
from collections import Counter, deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

WINDOW_SECONDS = 60.0


class Calls:
    """How many there were, in all and in the fullest 60 seconds."""

    def __init__(self) -> None:
        self.total = 0
        self.most_in_a_minute = 0
        self._recent: deque[float] = deque()

    def note(self, moment: float) -> None:
        """One more."""
        self.total += 1
        self._recent.append(moment)
        while self._recent[0] <= moment - WINDOW_SECONDS:
            self._recent.popleft()
        self.most_in_a_minute = max(self.most_in_a_minute, len(self._recent))


class Counted:
    """``thing``, whose every coroutine call is counted: by name, and all together."""

    def __init__(self, thing: Any, now: Callable[[], datetime]) -> None:
        self._thing = thing
        self._now = now
        self.all = Calls()
        self.by_name: dict[str, Calls] = {}
        self.sizes: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._thing, name)
        if not inspect.iscoroutinefunction(member):
            return member

        async def call(*arguments: Any, **options: Any) -> Any:
            moment = self._now().timestamp()
            self.all.note(moment)
            self.by_name.setdefault(name, Calls()).note(moment)
            return await member(*arguments, **options)

        return call
