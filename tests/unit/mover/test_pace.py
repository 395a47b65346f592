"""How many connections work at once: as asked, or as many as still bring something."""

from __future__ import annotations

import threading

import pytest

from stagecoach.mover import stagecoach_mover
from stagecoach.mover.stagecoach_mover import PACE_AGAIN_SECONDS, Clock, Halted, Line, Pace, Road


class Ticking(Clock):
    """Stands still until told."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Network:
    """So much a second with so many connections; how busy the processor is can be said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cores: int = 4) -> None:
        self.clock = Ticking()
        self.moved = self.spent = 0.0
        monkeypatch.setattr(stagecoach_mover, "usable_cores", lambda: cores)
        monkeypatch.setattr(stagecoach_mover, "processor_seconds", lambda: self.spent)

    def seconds(self, pace: Pace, count: int, rates: dict[int, float], busy: float = 0.5) -> list[int]:
        """What was allowed after each second."""
        allowed = []
        for _ in range(count):
            self.clock.now += 1.0
            self.moved += rates[pace.allowed]
            self.spent += busy
            pace.adapt(int(self.moved))
            allowed.append(pace.allowed)
        return allowed


EACH = {connections: 10.0 * connections for connections in range(1, 65)}


def test_it_doubles_while_that_makes_it_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch)
    pace = Pace(network.clock, None, 100)
    assert pace.allowed == 4
    assert network.seconds(pace, 4, EACH) == [8, 16, 16, 16]


def test_a_doubling_that_brings_nothing_is_taken_back_and_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch)
    pace = Pace(network.clock, None, 100)
    full = {4: 100.0, 8: 104.0, 16: 104.0}
    assert network.seconds(pace, 4, full) == [8, 4, 4, 4]
    later = network.seconds(pace, int(PACE_AGAIN_SECONDS) + 2, full)
    assert later.count(8) == 1
    assert later[-1] == 4


def test_a_busy_processor_is_not_given_more_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, cores=2)
    pace = Pace(network.clock, None, 100)
    assert network.seconds(pace, 3, EACH, busy=1.8) == [4, 4, 4]


def test_a_number_that_was_asked_for_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch)
    pace = Pace(network.clock, 3, 100)
    assert network.seconds(pace, 3, EACH) == [3, 3, 3]
    assert Pace(network.clock, 1000, 1000).most == 64
    assert Pace(network.clock, None, 2).most == 2


def test_no_more_are_at_work_than_allowed_and_who_waits_can_be_halted() -> None:
    pace, halt = Pace(Clock(), 1, 10), threading.Event()
    line = Line(Road(), Clock(), halt)
    pace.begin(line)
    halt.set()
    with pytest.raises(Halted):
        pace.begin(line)
    halt.clear()
    pace.end()
    pace.begin(line)


def test_one_more_waits_until_another_ends() -> None:
    pace = Pace(Clock(), 2, 10)
    line = Line(Road(), Clock(), threading.Event())
    pace.begin(line)
    pace.begin(line)
    waiting = threading.Thread(target=pace.begin, args=(line,), daemon=True)
    waiting.start()
    waiting.join(0.25)
    assert waiting.is_alive()
    pace.end()
    waiting.join(5)
    assert not waiting.is_alive()
