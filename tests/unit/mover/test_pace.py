"""How many connections work at once: as asked, or as many as still bring something."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from stagecoach.mover import stagecoach_mover
from stagecoach.mover.stagecoach_mover import PACE_AGAIN_SECONDS, Clock, Halted, Line, Pace, Road, idle_seconds, usable_cores


class Ticking(Clock):
    """Stands still until told."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Network:
    """So much a second with so many connections; how busy the processor is can be said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cores: int = 4) -> None:
        self.clock = Ticking()
        self.cores = cores
        self.moved = self.spent = self.idle = 0.0
        monkeypatch.setattr(stagecoach_mover, "usable_cores", lambda: cores)
        monkeypatch.setattr(stagecoach_mover, "processor_seconds", lambda: self.spent)
        monkeypatch.setattr(stagecoach_mover, "idle_seconds", lambda: self.idle)

    def seconds(self, pace: Pace, count: int, rates: dict[int, float], busy: float = 0.5, others_busy: float = 0.0) -> list[int]:
        """What was allowed after each second, in which the cores worked so long for the mover and so long for others."""
        allowed = []
        for _ in range(count):
            self.clock.now += 1.0
            self.moved += rates[pace.allowed]
            self.spent += busy
            self.idle += self.cores - busy - others_busy
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
    assert network.seconds(pace, 3, EACH, busy=1.8) == [2, 2, 2]


def test_a_processor_that_a_store_keeps_busy_is_not_given_more_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, cores=2)
    pace = Pace(network.clock, None, 100)
    assert network.seconds(pace, 3, EACH, busy=0.8, others_busy=1.1) == [2, 2, 2]


def test_who_hardly_needs_a_processor_does_not_mind_that_others_keep_it_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, cores=2)
    pace = Pace(network.clock, None, 100)
    assert network.seconds(pace, 3, EACH, busy=0.1, others_busy=1.9) == [4, 8, 16]


@pytest.mark.parametrize(("cores", "first"), [(1, 2), (2, 2), (3, 3), (8, 8), (128, 8)])
def test_it_begins_with_as_many_as_there_are_cores(monkeypatch: pytest.MonkeyPatch, cores: int, first: int) -> None:
    network = Network(monkeypatch, cores)
    assert Pace(network.clock, None, 100).allowed == first


def test_the_rest_of_the_cores_that_may_be_used_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    statistics = tmp_path / "stat"
    monkeypatch.setattr(stagecoach_mover, "PROCESSOR_STATISTICS", str(statistics))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {1, 12})
    monkeypatch.setattr(os, "sysconf", lambda _name: 100)
    cores = [f"cpu{number} 5 6 7 {number}00 50 1 1 0 0 0" for number in range(16)]
    statistics.write_text("\n".join(["cpu 80 96 112 12000 800 16 16 0 0 0", *cores, "intr 1 2 3", ""]))
    assert idle_seconds() == 1 + 12 + 2 * 0.5
    for what_says_nothing in ("", "cpu1 5\n", "cpu1 a b c d e\n"):
        statistics.write_text(what_says_nothing)
        before = usable_cores() * time.monotonic()
        assert before <= idle_seconds() <= usable_cores() * time.monotonic()
    statistics.unlink()
    assert idle_seconds() >= before


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
