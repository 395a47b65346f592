"""What Slurm's JSON wraps its numbers, words and times in, taken out of it. Pure.

Shapes of 22.05 and of 24.05: a state is a word or a list, a number plain, null or ``{set, infinite, number}``, an exit
code a raw wait status or an object.
"""

from __future__ import annotations

from typing import Any

from stagecoach.clusters.slurm_states import exit_of_wait_status


def number(value: object) -> int | None:
    """A number, plain or wrapped in ``{set, infinite, number}``; None when unset or endless."""
    if isinstance(value, dict):
        if not value.get("set") or value.get("infinite"):
            return None
        value = value.get("number")
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def exit_in(value: object) -> tuple[int | None, int | None]:
    """(exit code, signal), from an object or a raw wait status."""
    if isinstance(value, dict):
        signal = value.get("signal")
        # 24.05: signal {id: {set, …}}; older: signal {signal_id: 9, name}.
        signal_id = number(signal.get("id", signal.get("signal_id"))) if isinstance(signal, dict) else None
        return number(value.get("return_code")), signal_id or None
    status = number(value)
    return exit_of_wait_status(status) if status is not None else (None, None)


def words_of_state(value: object) -> list[str]:
    """A state is a word or a list of them."""
    return [str(word) for word in value] if isinstance(value, list) else [str(value or "")]


def object_in(value: object) -> dict[str, Any]:
    """Empty where there is none."""
    return value if isinstance(value, dict) else {}


def times_of(submit: object, start: object, end: object) -> tuple[int | None, int | None, int | None]:
    """Epoch seconds; 0 is none."""
    return number(submit) or None, number(start) or None, number(end) or None
