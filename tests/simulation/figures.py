"""What a simulated day took, in figures for people and for assertions."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.counted import Calls


@dataclass
class Figures:
    """What a day took."""

    transfers: int
    workers: int
    seconds: float = 0.0
    most_open: int = 0
    asks: Calls = field(default_factory=Calls)
    scheduler_calls: dict[str, int] = field(default_factory=dict)
    jobs_asked_for: int = 0
    store_calls: int = 0
    most_store_calls_a_minute: int = 0
    rounds: int = 0
    memory_mib: list[tuple[float, float]] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    not_ended: int = 0
    done_twice: int = 0
    submitted_twice: int = 0
    ended_after_hours: float = 0.0

    def memory_growth(self) -> float:
        """The last third of the day against its first."""
        third = max(len(self.memory_mib) // 3, 1)
        first, last = self.memory_mib[:third], self.memory_mib[-third:]
        return (sum(mib for _, mib in last) / len(last)) / (sum(mib for _, mib in first) / len(first))

    def text(self) -> str:
        """For people."""
        hours = max(self.ended_after_hours, 1e-9)
        lines = [
            f"{self.transfers} transfers, {self.workers} workers, {self.most_open} open at once; "
            f"all over after {hours:.1f} h of theirs and {self.seconds:.0f} s of ours, {self.rounds} rounds",
            f"asks of the scheduler: {self.asks.total}, for {self.jobs_asked_for} jobs; "
            f"{self.asks.total / hours / 60:.2f} a minute, {self.asks.most_in_a_minute} in the fullest minute",
            f"other calls, one transfer each: {self.scheduler_calls}",
            f"store: {self.store_calls} calls, {self.store_calls / hours / 60:.0f} a minute, "
            f"{self.most_store_calls_a_minute} in the fullest minute",
            "memory (hour: MiB): " + ", ".join(f"{hour:.0f}: {mib:.0f}" for hour, mib in self.memory_mib),
            f"ends: {self.ends}; not ended {self.not_ended}, left outside {len(self.left)}, "
            f"done twice {self.done_twice}, submitted twice {self.submitted_twice}",
        ]
        return "\n".join(lines)


def memory_mib() -> float:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
