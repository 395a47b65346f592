"""Which faults were injected and what became of the transfers: printed at the end of the run."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.e2e.chaos.trips import Trip


@dataclass
class Tally:
    """One line for each transfer that met a kill."""

    lines: list[tuple[str, str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    trips: list[Trip] = field(default_factory=list)

    def add(self, victim: str, trip: Trip) -> None:
        self.lines.append((victim, trip.plan, str(trip.gate), trip.outcome))
        self.trips.append(trip)

    def as_text(self) -> list[str]:
        table = [f"{victim:<12} {plan:<9} {gate:<42} {outcome}" for victim, plan, gate, outcome in self.lines]
        ends: dict[str, int] = {}
        for *_, outcome in self.lines:
            end = outcome.split(" ")[0]
            ends[end] = ends.get(end, 0) + 1
        counts = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
        return [*table, *([f"{len(self.lines)} faults injected: {counts}"] if self.lines else []), *self.notes]
