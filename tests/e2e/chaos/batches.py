"""Transfers that wait at their gates together, for one kill, and are watched until all have ended."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.chaos.gates import Gate, Gates, Phase, Point
from tests.e2e.chaos.replicas import Replicas
from tests.e2e.chaos.trips import LARGE_BYTES, OLD, PATIENCE_SECONDS, SMALL_BYTES, Trip
from tests.e2e.testbed import Person, Testbed, wait_until


@dataclass
class Batch:
    """Transfers that wait at their gates at the same time, for one kill."""

    testbed: Testbed
    replicas: Replicas
    gates: Gates
    folder: Path
    system: str
    name: str
    trips: list[Trip] = field(default_factory=list)

    def start(self, plan: str, point: Point | None, phase: Phase) -> Trip:
        """Begin one; it goes on until its gate by itself. One at a time, until the service was seen to begin it."""
        trip = self._new_trip(plan, point, phase)
        self.gates.expect(trip.gate)
        trip.start()
        wait_until(lambda: trip.gate.transfer_id or trip.trouble, 30, f"{trip} is begun", pause=0.01)
        return trip

    def begin_freely(self, plan: str) -> Trip:
        """Begin one that stops nowhere, and that begins again when it is told to."""
        trip = self._new_trip(plan, None, "before")
        trip.is_patient = True
        trip.gate.opened.set()
        trip.start()
        return trip

    def _new_trip(self, plan: str, point: Point | None, phase: Phase) -> Trip:
        person, number = self.testbed.alice, len(self.trips)
        moves = point is not None and point.who == "mover"
        content = random.Random(f"{self.name}{number}").randbytes(LARGE_BYTES if moves else SMALL_BYTES)
        path = self.folder / f"{self.name.replace(' ', '-')}-{number}.bin"
        path.write_bytes(content if plan == "download" else OLD)
        os.chown(path, person.uid, person.uid)
        gate = Gate(point, phase, counts=not (point and point.late))
        trip = Trip(plan, gate, self.replicas, person, path, content, self.system)
        self.trips.append(trip)
        return trip

    def wait_until_all_are_there(self) -> None:
        def look() -> bool:
            for trip in self.trips:
                if trip.trouble is not None:
                    raise trip.trouble
            return all(trip.gate.reached.is_set() for trip in self.trips)

        deadline = time.monotonic() + 100
        while not look():
            late = [str(trip) for trip in self.trips if not trip.gate.reached.is_set()]
            assert time.monotonic() < deadline, f"never came to their gates: {late}"
            time.sleep(0.02)

    def open(self, phase: Phase) -> None:
        self.gates.open(*(trip.gate for trip in self.trips if trip.gate.phase == phase))

    def wait_until_all_have_ended(self, seconds: float = PATIENCE_SECONDS) -> None:
        open_trips = list(self.trips)
        deadline, hurried_at = time.monotonic() + seconds, 0.0
        while open_trips:
            open_trips = [trip for trip in open_trips if not trip.look()]
            if time.monotonic() > hurried_at + 5:
                hurried_at = time.monotonic()
                hurry(self.testbed)
            assert time.monotonic() < deadline, f"never ended: {[str(trip) for trip in open_trips]}"
            time.sleep(0.3)


def hurry(testbed: Testbed) -> None:
    """A job that was put back waits two minutes; three seconds here. Not less: a node refuses a credential of the same second."""
    for line in testbed.slurm("squeue", "-h", "-o", "%i %r").splitlines():
        job_id, reason = line.split(" ", 1)
        if reason == "BeginTime":
            with contextlib.suppress(subprocess.CalledProcessError):  # it may have started meanwhile
                testbed.slurm("scontrol", "update", f"jobid={job_id}", "StartTime=now+3")


@contextlib.contextmanager
def own_folder(person: Person, name: str) -> Iterator[Path]:
    """In the person's home, gone at the end."""
    folder = person.home / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.chown(folder, person.uid, person.uid)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
