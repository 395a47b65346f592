"""How fast a transfer went, from the samples that are kept of it: bars over its time, and a sentence. Pure.

An agent told the samples, from a machine that is not ours, so what is none is passed over.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from stagecoach.portal.words import duration_words, rate_words

MOST_BARS = 60
_MOST_SECONDS, _MOST_BYTES = 1e9, 1e18


@dataclass(frozen=True, slots=True)
class RateBar:
    """From ``left``, so wide, so high: percent of all the time, and of the fastest bar."""

    left: float
    width: float
    height: int


@dataclass(frozen=True, slots=True)
class RateBars:
    """Of one transfer, from its first sample to its last."""

    bars: tuple[RateBar, ...]
    peak_bytes_per_second: float
    mean_bytes_per_second: float
    seconds: float

    @property
    def words(self) -> str:
        """What the bars show."""
        mean, peak = (rate_words(rate) or "nothing" for rate in (self.mean_bytes_per_second, self.peak_bytes_per_second))
        return f"{mean} on average in {duration_words(self.seconds)}, {peak} at most."


def rate_bars(samples: object) -> RateBars | None:
    """``samples`` are pairs of seconds since the start and bytes until then. None where they make no line."""
    points = _points(samples)
    if len(points) < 2:
        return None
    # The last point closes the last bar, whatever the step is.
    step = max(1, math.ceil((len(points) - 1) / MOST_BARS))
    chosen = [*points[:-1:step], points[-1]]
    pieces = [
        (before[0], after[0] - before[0], (after[1] - before[1]) / (after[0] - before[0]))
        for before, after in itertools.pairwise(chosen)
    ]
    (begin, first), (end, last) = points[0], points[-1]
    span, peak = end - begin, max(rate for _, _, rate in pieces)
    bars = tuple(
        RateBar(round(100 * (at - begin) / span, 2), round(100 * seconds / span, 2), round(100 * rate / peak) if peak else 0)
        for at, seconds, rate in pieces
    )
    return RateBars(bars, peak, (last - first) / span, span)


def _points(samples: object) -> list[tuple[float, float]]:
    """In the order of time, each later than the one before; bytes never become fewer: what came twice is counted once."""
    points: list[tuple[float, float]] = []
    for pair in samples if isinstance(samples, list | tuple) else ():
        point = _point(pair)
        if point is not None and (not points or point[0] > points[-1][0]):
            points.append((point[0], max(point[1], points[-1][1]) if points else point[1]))
    return points


def _point(pair: object) -> tuple[float, float] | None:
    if not isinstance(pair, Sequence) or isinstance(pair, str | bytes) or len(pair) != 2:
        return None
    seconds, size_bytes = pair
    for number, most in ((seconds, _MOST_SECONDS), (size_bytes, _MOST_BYTES)):
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= most:
            return None
    return float(seconds), float(size_bytes)
