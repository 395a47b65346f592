"""Keeps what is surely broken from being tried by everybody: after a failure its answer comes at once for a while.

After the rest one caller tries, and the others still get the answer; so what works again is used again by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from stagecoach.core.errors import StagecoachError

REST_SECONDS = 5.0


@dataclass(slots=True)
class _Rest:
    failure: StagecoachError
    until: float
    probing: bool = False


class Breaker:
    """Remembers failures of one kind. Where a caller may have trouble of his own (start files that hang, say),
    ``callers_needed`` is 2: one caller's failure closes the way for that caller alone, those of two callers without a
    success between them close it for everybody.
    """

    def __init__(
        self,
        kind: type[StagecoachError],
        clock: Callable[[], float],
        rest_seconds: float = REST_SECONDS,
        *,
        callers_needed: int = 1,
    ) -> None:
        self._kind = kind
        self._clock = clock
        self._rest_seconds = rest_seconds
        self._callers_needed = callers_needed
        self._failed_in_a_row: set[str] = set()
        self._everybody: _Rest | None = None
        self._own: dict[str, _Rest] = {}

    @contextmanager
    def attempt(self, caller: str = "") -> Iterator[None]:
        """Try what is inside, or raise the remembered failure without trying. A failure of the kind is remembered; any
        other of ours shows that what this breaker guards did answer."""
        with self.gate(caller):
            try:
                yield
            except StagecoachError as failure:
                if isinstance(failure, self._kind):
                    self.broke(failure, caller)
                else:
                    self.worked(caller)
                raise
            self.worked(caller)

    @contextmanager
    def gate(self, caller: str = "") -> Iterator[None]:
        """The same for who says himself how it ended, with :meth:`worked` and :meth:`broke`, or nothing if he knows nothing."""
        self.require(caller)
        rests = self._rests(caller)
        for rest in rests:
            rest.probing = True
        try:
            yield
        finally:
            for rest in rests:
                rest.probing = False

    def require(self, caller: str = "") -> None:
        """Raise the remembered failure, with ``retry_after_seconds``, where an attempt would; nothing is tried."""
        now = self._clock()
        for rest in self._rests(caller):
            if rest.probing or now < rest.until:
                seconds = max(1, math.ceil(rest.until - now)) if now < rest.until else math.ceil(self._rest_seconds)
                # A new exception: one instance raised in many tasks would collect all their tracebacks. And of the plain
                # kind: nothing is tried, so what was uncertain about the first failure is certain of this one.
                raise self._kind(
                    f"{rest.failure.message} It is tried again within {seconds} s.",
                    data={**rest.failure.data, "retry_after_seconds": seconds},
                )

    def worked(self, caller: str = "") -> None:
        """It did answer."""
        self._everybody = None
        self._failed_in_a_row.clear()
        self._own.pop(caller, None)

    def broke(self, failure: StagecoachError, caller: str = "") -> None:
        """It did not."""
        rest = _Rest(failure.with_traceback(None), self._clock() + self._rest_seconds)
        self._failed_in_a_row.add(caller)
        if len(self._failed_in_a_row) >= self._callers_needed:
            self._everybody = rest
        else:
            self._own[caller] = rest

    def _rests(self, caller: str) -> list[_Rest]:
        return [rest for rest in (self._everybody, self._own.get(caller)) if rest is not None]
