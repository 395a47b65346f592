"""What a network check found, in numbers with their units, and what it means, in words. Pure; ready for JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["good", "advice", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """``code`` is stable; ``words`` say what was found and what to do."""

    code: str
    level: Level
    words: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The first step that did not work: ``dns``, ``tcp``, ``tls``, ``request`` or ``probe``. ``detail`` holds no secret."""

    step: str
    code: str
    detail: str


@dataclass(slots=True)
class NetworkReport:
    """None stands for what was not measured, because an earlier step failed or it was not asked for.

    ``round_trip_seconds`` is the shortest seen; ``stalls`` are round trips that took at least 0.2 s longer, as a lost
    packet does that nobody reports. ``retransmitted_segments`` are of what was sent from here.
    """

    host: str
    port: int
    addresses: list[str] = field(default_factory=list)
    dns_seconds: float | None = None
    connect_seconds: list[float] = field(default_factory=list)
    failed_connects: int = 0
    handshake_seconds: float | None = None
    tls_version: str | None = None
    certificate_sha256: str | None = None
    http_status: int | None = None
    clock_skew_seconds: float | None = None
    round_trip_seconds: float | None = None
    median_round_trip_seconds: float | None = None
    longest_round_trip_seconds: float | None = None
    round_trips: int = 0
    stalls: int = 0
    put_bytes: int = 0
    put_bytes_per_second: float | None = None
    get_bytes: int = 0
    get_bytes_per_second: float | None = None
    sent_segments: int | None = None
    retransmitted_segments: int | None = None
    path_mtu_bytes: int | None = None
    largest_send_buffer_bytes: int | None = None
    largest_receive_buffer_bytes: int | None = None
    free_bytes: dict[str, int] = field(default_factory=dict)
    failure: Failure | None = None
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def reachable(self) -> bool:
        """Whether every step that was asked for worked."""
        return self.failure is None

    def as_json(self) -> dict[str, Any]:
        """Plain values alone."""
        return {**asdict(self), "reachable": self.reachable}
