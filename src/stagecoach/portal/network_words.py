"""What a node's network check found, for a page: its verdicts, and its measures as bars. Pure.

An agent wrote it on a machine that is not ours, so whatever has another shape than expected is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MOST_SECONDS = 3600.0
MOST_BYTES_PER_SECOND = 1e15
MOST_WORDS = 1000
LEVELS = ("failure", "warning", "good", "advice")
WAYS = {"service": "To this service", "store": "To the staging area"}
_STEPS = (
    ("dns_seconds", "Name looked up"),
    ("connect_seconds", "Connection"),
    ("handshake_seconds", "TLS"),
    ("round_trip_seconds", "Shortest round trip"),
    ("median_round_trip_seconds", "Median round trip"),
    ("longest_round_trip_seconds", "Longest round trip"),
)
_SPEEDS = (
    ("put_bytes_per_second", "One stream to it"),
    ("get_bytes_per_second", "One stream back"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``level`` is failure, warning, good or advice."""

    level: str
    words: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One measure in milliseconds; ``share`` of the longest bar in percent."""

    name: str
    milliseconds: float
    share: int


@dataclass(frozen=True, slots=True)
class Way:
    """From the node to one place."""

    name: str
    place: str
    is_reachable: bool | None
    verdicts: tuple[Verdict, ...]
    bars: tuple[Bar, ...]
    speeds: tuple[tuple[str, float], ...] = ()
    """What was probed, in bytes per second."""


def way_between(report: object) -> Way:
    """From a sending node to the receiving one."""
    known = _mapping(report)
    measures = _measures(known)
    return _way("To the receiving node", known, measures, max((seconds for _, seconds in measures), default=0.0))


def ways_of(result: object) -> list[Way]:
    """In the order in which the node looked."""
    ways = _mapping(_mapping(result).get("ways"))
    reports = {name: _mapping(ways.get(name)) for name in WAYS if name in ways}
    measured = {name: _measures(report) for name, report in reports.items()}
    longest = max((seconds for each in measured.values() for _, seconds in each), default=0.0)
    return [_way(WAYS[name], report, measured[name], longest) for name, report in reports.items()]


def verdicts_of(ways: Sequence[Way]) -> list[Verdict]:
    """Of all ways, first what is wrong, each once."""
    found = dict.fromkeys(verdict for level in LEVELS for way in ways for verdict in way.verdicts if verdict.level == level)
    return list(found)


def _way(name: str, report: Mapping[str, object], measures: Sequence[tuple[str, float]], longest: float) -> Way:
    host, port, reachable = report.get("host"), report.get("port"), report.get("reachable")
    place = f"{host}:{port}" if isinstance(host, str) and isinstance(port, int) else ""
    return Way(
        name,
        place[:300],
        reachable if isinstance(reachable, bool) else None,
        tuple(_verdicts(report.get("verdicts"))),
        tuple(Bar(words, 1000 * seconds, _share(seconds, longest)) for words, seconds in measures),
        tuple((words, speed) for key, words in _SPEEDS if (speed := _number(report.get(key), MOST_BYTES_PER_SECOND)) is not None),
    )


def _share(seconds: float, longest: float) -> int:
    return max(1, round(100 * seconds / longest)) if longest else 1


def _measures(report: Mapping[str, object]) -> list[tuple[str, float]]:
    """What was measured, in seconds. Of several connections the slowest tells of trouble."""
    found = []
    for name, words in _STEPS:
        value = report.get(name)
        each = [_seconds(one) for one in (value if isinstance(value, list) else [value])]
        known = [seconds for seconds in each if seconds is not None]
        if known:
            found.append((f"{words}, the slowest of {len(known)}" if len(known) > 1 else words, max(known)))
    return found


def _seconds(value: object) -> float | None:
    return _number(value, MOST_SECONDS)


def _number(value: object, most: float) -> float | None:
    """At most ``most``; None for what is no number, or below nothing."""
    # Whole numbers of a report may be too long for a float; what is no number at all compares as False.
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
        return None
    return float(min(value, most))


def _verdicts(value: object) -> list[Verdict]:
    lines = [_mapping(one) for one in value] if isinstance(value, list) else []
    return [
        Verdict(str(line["level"]), str(line["words"])[:MOST_WORDS])
        for line in lines
        if line.get("level") in LEVELS and isinstance(line.get("words"), str)
    ]


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
