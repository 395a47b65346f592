"""Numbers and times in words for people."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_SIZE = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,3})?)\s*([kMGTP]i?)?B?\s*", re.IGNORECASE | re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
# Of a cap on a transfer, by the API.
LEAST_RATE = 1024
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_STEPS = ((60, "minute"), (24, "hour"), (30, "day"), (12, "month"))


def size_words(size_bytes: int | float | None) -> str:
    """Decimal units, three digits: 1.43 GB."""
    if size_bytes is None:
        return "unknown"
    size = float(size_bytes)
    unit = 0
    # What would be shown as 1000 is 1 of the next.
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    if unit == 0:
        return f"{int(size)} B"
    return f"{size:.{2 if size < 9.995 else 1 if size < 99.95 else 0}f} {_UNITS[unit]}"


def bytes_of(text: str) -> int | None:
    """The size that people write: 5000, 500 GB, 1.5 GiB; None for what is none."""
    found = _SIZE.fullmatch(text)
    if found is None:
        return None
    unit = (found[2] or "").lower()
    factor: int = (1024 if unit.endswith("i") else 1000) ** (" kmgtp".index(unit[0]) if unit else 0)
    return round(float(found[1]) * factor)


def rate_of(text: str) -> int | None:
    """Bytes in a second as people write them: 20 MB, 20 MB/s; None for what is none, or too few for a transfer."""
    size_bytes = bytes_of(text.strip().removesuffix("/s"))
    return size_bytes if size_bytes is not None and size_bytes >= LEAST_RATE else None


def port_of(text: str) -> int | None:
    """1 to 65535; None for anything else."""
    found = _PORT.fullmatch(text.strip())
    return int(found[0]) if found is not None and 0 < int(found[0]) < 65536 else None


def rate_words(bytes_per_second: float) -> str:
    """Nothing where nothing moves."""
    return f"{size_words(bytes_per_second)}/s" if bytes_per_second >= 1 else ""


def duration_words(seconds: float) -> str:
    """Roughly: 3 minutes."""
    amount = max(0.0, seconds)
    if amount < 59.5:
        return _counted(round(amount), "second")
    amount /= 60
    for size, unit in _STEPS:
        if round(amount) < size:
            return _counted(round(amount), unit)
        amount /= size
    return _counted(round(amount), "year")


def ago_words(moment: datetime, now: datetime) -> str:
    """How long ago, or in how long."""
    seconds = (now - moment).total_seconds()
    if abs(seconds) < 5:
        return "just now"
    words = duration_words(abs(seconds))
    return f"{words} ago" if seconds > 0 else f"in {words}"


def moment_words(moment: datetime) -> str:
    """17 May 2030, 12:00 UTC."""
    moment = moment.astimezone(UTC)
    return f"{moment.day} {moment:%b %Y, %H:%M} UTC"


def moment_of(text: str | None) -> datetime | None:
    """A time of the API's; those of file listings have no zone, and are UTC."""
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def end_of_day(text: str) -> datetime | None:
    """The last second of a day as browsers write it, 2030-12-31, in UTC; None for what is no day."""
    if not _DAY.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(f"{text}T23:59:59+00:00")
    except ValueError:
        return None


def percent(part: int | None, whole: int | None) -> int:
    """0 to 100, and 100 only when it is all there."""
    if not whole:
        return 100 if whole == 0 else 0
    return max(0, min(100, math.floor(100 * (part or 0) / whole)))


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
