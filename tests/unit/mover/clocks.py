"""Clocks for tests: none of them lets a test wait for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from stagecoach.mover.stagecoach_mover import Clock


class QuickClock(Clock):
    """Pauses take no time but are remembered, and the wall clock moves on by them."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def wall(self) -> float:
        return super().wall() + sum(self.pauses)

    def pause(self, seconds: float, halt: threading.Event) -> None:
        self.pauses.append(seconds)

    def jitter(self, ceiling: float) -> float:
        return ceiling


class Stopper(Clock):
    """Stops the transfer at its first pause, as soon as ``once`` holds."""

    def __init__(self, stop: threading.Event, once: Callable[[], bool] = lambda: True) -> None:
        self.stop = stop
        self.once = once

    def pause(self, seconds: float, halt: threading.Event) -> None:
        deadline = time.monotonic() + 60
        while not self.once():
            assert time.monotonic() < deadline, "it never came so far"
            time.sleep(0.01)
        self.stop.set()
        halt.wait(60)
