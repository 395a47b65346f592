"""Clocks for tests: none of them lets a test sleep."""

from __future__ import annotations

import threading

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
    """Stops the transfer at its first pause."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop

    def pause(self, seconds: float, halt: threading.Event) -> None:
        self.stop.set()
        halt.wait(5)
