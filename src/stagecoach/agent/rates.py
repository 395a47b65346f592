"""How a copy went over time, in few enough points for a chart. Pure but for the clock handed in."""

from __future__ import annotations

from collections.abc import Callable

from stagecoach.wire.direct_commands import MOST_RATES

_FIRST_STEP_SECONDS = 2.0


class Rates:
    """Points of seconds since the start and bytes so far; when they are too many, every other one goes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._step_seconds = _FIRST_STEP_SECONDS
        self._points: list[tuple[float, int]] = [(0.0, 0)]

    def add(self, bytes_done: int) -> None:
        """Kept unless the last one is of just now."""
        seconds = round(self._clock() - self._began, 1)
        if seconds - self._points[-1][0] < self._step_seconds:
            return
        self._points.append((seconds, bytes_done))
        if len(self._points) >= MOST_RATES:
            self._points = self._points[::2]
            self._step_seconds *= 2

    def ended(self, bytes_done: int) -> list[tuple[float, int]]:
        """All of them, with the last word."""
        return [*self._points, (round(self._clock() - self._began, 1), bytes_done)]
