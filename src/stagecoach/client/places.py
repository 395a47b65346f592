"""How a place on a system is written: ``SYSTEM:/path``."""

from __future__ import annotations

import re
from dataclasses import dataclass

# A data transfer node is a system as well, by its id, or by its name: any text without control characters.
_PLACE = re.compile(r"(node:[^/\x00-\x20\x7f][^\x00-\x1f\x7f]*?|[A-Za-z0-9][A-Za-z0-9_.-]*):(/.*)", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """``SYSTEM:/path``."""

    system: str
    path: str


def as_place(text: str) -> Place | None:
    """None for a local path; one that looks like a place is written with ``./`` in front."""
    found = _PLACE.fullmatch(text)
    return Place(found[1], found[2]) if found else None


def the_place(place: Place | str) -> Place:
    """Raises ValueError for a text that is none."""
    found = as_place(place) if isinstance(place, str) else place
    if found is None:
        raise ValueError(f"{place!r} is no place on a system; write SYSTEM:/path")
    return found
