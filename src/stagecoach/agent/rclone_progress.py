"""How far a copy is, as people may be told: never more than there is, never backwards, and whole only when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["running", "done", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class Progress:
    """``current_file`` is one of those under way. Sizes in bytes, ``bytes_per_second`` is rclone's own mean."""

    state: State
    bytes_done: int
    bytes_total: int
    files_done: int
    files_total: int
    current_file: str | None = None
    bytes_per_second: float = 0.0
    errors: int = 0
    attempt: int = 1

    @property
    def percent(self) -> int:
        """0 to 100, and 100 only when it is done: also an empty one that failed is not whole."""
        if self.state == "done":
            return 100
        return min(99, self.bytes_done * 100 // self.bytes_total) if self.bytes_total else 0


def progress_of(stats: Mapping[str, Any], before: Progress, *, attempt: int, already_bytes: int = 0) -> Progress:
    """From an answer to ``core/stats``, with ``already_bytes`` that were there before and are not in it.

    After a crash of the receiver rclone counts bytes again that it has counted."""
    under_way = stats.get("transferring") or []
    current = next((str(item.get("name")) for item in under_way if isinstance(item, Mapping) and item.get("name")), None)
    return Progress(
        state="running",
        bytes_done=max(before.bytes_done, min(already_bytes + _number(stats, "bytes"), before.bytes_total)),
        bytes_total=before.bytes_total,
        # What the other end has already is checked, not sent.
        files_done=max(before.files_done, min(_number(stats, "transfers") + _number(stats, "checks"), before.files_total)),
        files_total=before.files_total,
        current_file=current,
        bytes_per_second=float(stats.get("speed") or 0.0),
        errors=_number(stats, "errors"),
        attempt=attempt,
    )


def movement_of(stats: Mapping[str, Any]) -> tuple[int, ...]:
    """Equal twice when nothing moved between."""
    return tuple(_number(stats, name) for name in ("bytes", "checks", "transfers", "listed", "errors"))


def _number(stats: Mapping[str, Any], name: str) -> int:
    value = stats.get(name)
    return int(value) if isinstance(value, (int, float)) and value > 0 else 0
