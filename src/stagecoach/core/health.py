"""Whether a service of a system is healthy, told from probes: one that fails once is not ill, one that works once is not well."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

PROBES_UNTIL_ILL = 3
PROBES_UNTIL_WELL = 2


@dataclass(frozen=True, slots=True)
class Probe:
    """One look. ``message`` says what was seen, or what failed."""

    at: datetime
    seconds: float
    ok: bool
    message: str


@dataclass(frozen=True, slots=True)
class Health:
    """What is believed of one service; ``probe`` is the last look at it."""

    is_healthy: bool
    probe: Probe
    against: int = 0
    """How many of the last probes in a row said otherwise."""

    def after(self, probe: Probe) -> Health:
        """What is believed after one more look."""
        if probe.ok == self.is_healthy:
            return Health(self.is_healthy, probe)
        against = self.against + 1
        if against >= (PROBES_UNTIL_ILL if self.is_healthy else PROBES_UNTIL_WELL):
            return Health(probe.ok, probe)
        return replace(self, probe=probe, against=against)


def first_health(probe: Probe) -> Health:
    """Before the first look nothing is believed, so it decides."""
    return Health(probe.ok, probe)
