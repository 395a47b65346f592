"""Keeps what is surely broken from being tried by everybody: after a failure its answer comes at once for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stagecoach.core.errors import StagecoachError

REST_SECONDS = 5.0


class Breaker:
    """Remembers the last failure of one kind. After its rest one caller tries; the others still get the answer."""

    def __init__(self, kind: type[StagecoachError], clock: Callable[[], float], rest_seconds: float = REST_SECONDS) -> None:
        self._kind = kind
        self._clock = clock
        self._rest_seconds = rest_seconds
        self._failure: StagecoachError | None = None
        self._closed_until = 0.0
        self._probing = False

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Try what is inside, or raise the remembered failure without trying."""
        probe = False
        if self._failure is not None:
            if self._probing or self._clock() < self._closed_until:
                # A new exception: one instance raised in many tasks would collect all their tracebacks.
                raise type(self._failure)(self._failure.message, data=self._failure.data)
            self._probing = probe = True
        try:
            yield
        except self._kind as failure:
            self._failure = failure.with_traceback(None)
            self._closed_until = self._clock() + self._rest_seconds
            raise
        except StagecoachError:
            # Another kind of failure: what this breaker guards did answer.
            self._failure = None
            raise
        else:
            self._failure = None
        finally:
            if probe:
                self._probing = False
