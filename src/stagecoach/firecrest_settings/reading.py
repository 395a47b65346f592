"""Reads FirecREST's configuration so that nothing in it is passed over: a setting is taken, left with a reason, or unknown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from stagecoach.core.errors import SettingsError

UNKNOWN = "is no setting of FirecREST that is known here"


@dataclass(frozen=True, slots=True)
class LeftSetting:
    """A setting of theirs that was not carried over: its path in their file, and why."""

    place: str
    why: str


@dataclass
class Record:
    """What was left, in the order in which it was met. Never holds a value: it may be a secret."""

    left: list[LeftSetting] = field(default_factory=list)

    def leave(self, place: str, why: str) -> None:
        """``place`` was not carried over; said twice, it is one."""
        left = LeftSetting(printable(place), printable(why))
        if left not in self.left:
            self.left.append(left)


class Theirs:
    """A section of theirs. Keys are asked for in one form (``max_clients``) and found in both (``maxClients``).

    Raises:
        SettingsError: it is no mapping, or says one thing twice.
    """

    def __init__(self, values: object, place: str, record: Record) -> None:
        if not isinstance(values, dict):
            raise wrong(place or "the file", "must hold settings by name")
        self.place = place
        self.record = record
        self._values: dict[str, Any] = {}
        self._written: dict[str, str] = {}
        self._read: set[str] = set()
        self._inner: list[Theirs] = []
        for key, value in values.items():
            name = one_form(str(key))
            if name in self._values:
                raise wrong(self._below(str(key)), f"is written twice, as {self._written[name]} too")
            self._values[name], self._written[name] = value, str(key)

    def has(self, name: str) -> bool:
        """Whether it says anything: nothing and the empty text, list and mapping say nothing."""
        return self._values.get(name) not in (None, "", [], {})

    def at(self, name: str) -> str:
        """Where it stands, as they wrote it."""
        return self._below(self._written.get(name, name))

    def take(self, name: str) -> Any:
        """The value as it is, or None."""
        self._read.add(name)
        return self._values[name] if self.has(name) else None

    def text(self, name: str) -> str | None:
        """One word or sentence. Raises SettingsError for a list or mapping."""
        value = self.take(name)
        if isinstance(value, list | dict):
            raise wrong(self.at(name), "must be one value")
        return None if value is None else str(value)

    def number(self, name: str) -> float | int | None:
        """Raises SettingsError for anything else."""
        value = self.take(name)
        try:
            number = None if value is None else float(value)
        except (TypeError, ValueError, OverflowError):
            raise wrong(self.at(name), "must be a number") from None
        return int(number) if number is not None and number.is_integer() else number

    def is_true(self, name: str) -> bool:
        """As YAML or a word says it."""
        return str(self.take(name)).lower() in {"true", "yes", "on", "1"}

    def section(self, name: str) -> Theirs | None:
        """One below it."""
        value = self.take(name)
        return None if value is None else self._section(value, self.at(name))

    def sections(self, name: str) -> list[Theirs]:
        """A list of them. Raises SettingsError where it is no list."""
        value = self.take(name)
        if value is not None and not isinstance(value, list):
            raise wrong(self.at(name), "must be a list")
        return [self._section(one, f"{self.at(name)}[{number}]") for number, one in enumerate(value or [])]

    def other(self, values: object, place: str) -> Theirs:
        """A section of another file that this one names."""
        return self._section(values, place)

    def each(self) -> Iterator[tuple[str, Theirs]]:
        """Every section below, with its key as written: for mappings whose keys are names of people."""
        for name, value in self._values.items():
            self._read.add(name)
            yield self._written[name], self._section(value, self.at(name))

    def leave(self, name: str, why: str) -> None:
        """Not carried over, where it says anything."""
        self._read.add(name)
        if self.has(name):
            self.record.leave(self.at(name), why)

    def leave_whole(self, why: str) -> None:
        """Nothing below it is looked at."""
        self._read.update(self._values)
        self._inner.clear()
        self.record.leave(self.place, why)

    def leave_unread(self) -> None:
        """Record what nobody asked for, here and below."""
        for name, written in self._written.items():
            if name not in self._read:
                self.record.leave(self._below(written), UNKNOWN)
        for section in self._inner:
            section.leave_unread()

    def _section(self, value: object, place: str) -> Theirs:
        made = Theirs(value, place, self.record)
        self._inner.append(made)
        return made

    def _below(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key


def one_form(key: str) -> str:
    """``maxClients`` and ``max_clients`` are both the latter."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).lower() if re.fullmatch(r"[A-Za-z0-9_]+", key) else key


def wrong(place: str, what: str) -> SettingsError:
    """The one line for a file that cannot be converted."""
    return SettingsError(printable(f"FirecREST's configuration: {place}: {what}."))


def printable(text: str) -> str:
    """``text`` on one line, without what a terminal or YAML would take for more than text."""
    return "".join(letter if letter.isprintable() else "�" for letter in " ".join(text.split()))
