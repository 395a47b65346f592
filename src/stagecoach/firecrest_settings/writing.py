"""Builds our settings bit by bit, and writes them as YAML with a comment where a person has to look."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from stagecoach.firecrest_settings.reading import Record, printable, wrong
from stagecoach.settings.values import SECRET_FILE_PREFIX

WIDTH = 110
CHECK = "CHECK: "


class Ours:
    """Settings of ours by path (``systems.0.ssh.port``), each with where it came from and what is to be said of it."""

    def __init__(self) -> None:
        # A list is a mapping of its numbers until it is written.
        self._tree: dict[str, Any] = {}
        self._origins: dict[str, str] = {}
        self._remarks: dict[str, list[str]] = {}

    def put(self, path: str, value: Any, origin: str | None = None) -> None:
        """Nothing for None, so that our own default holds. ``origin``: the setting of theirs that it is."""
        if value is None:
            return
        *parents, last = path.split(".")
        here = self._tree
        for name in parents:
            here = here.setdefault(name, {})
        here[last] = value
        if origin is not None:
            self._origins[path] = origin

    def remark(self, path: str, sentence: str) -> None:
        """A comment above it."""
        self._remarks.setdefault(path, []).append(printable(sentence))

    def check(self, path: str, sentence: str) -> None:
        """A comment that asks a person to look."""
        self.remark(path, CHECK + sentence)

    @property
    def checks(self) -> int:
        """How many ask a person to look."""
        return sum(remark.startswith(CHECK) for remarks in self._remarks.values() for remark in remarks)

    @property
    def values(self) -> dict[str, Any]:
        """As the settings are made from."""
        return {name: _as_lists(value) for name, value in self._tree.items()}

    def settle(self, record: Record, models: Mapping[str, type[BaseModel]]) -> None:
        """Hold the sections at these paths to their models; what one refuses is taken out and recorded, where it can be.

        Raises:
            SettingsError: it cannot be done without.
        """
        reasons: dict[str, str] = {}
        for path, model in models.items():
            while (refused := _refusal(model, self._at(path), path)) is not None:
                place, why = refused
                origin = self._origins.get(place)
                if origin is None or not self._remove(place):
                    raise wrong(origin or place, reasons.get(place, why))
                reasons[place] = why
                record.leave(origin, f"is not taken here: {why}")
                self.check(path, f"{place} was left out, since its value is not taken here.")

    def text(self, heading: list[str]) -> str:
        """The file."""
        lines = [f"# {line}" for line in heading]
        for name, value in self._tree.items():
            lines += ["", *self._lines({name: value}, "", 0)]
        return "\n".join(lines) + "\n"

    def _lines(self, section: dict[str, Any], prefix: str, depth: int) -> Iterator[str]:
        indent = "  " * depth
        for name, value in section.items():
            path = f"{prefix}{name}"
            yield from self._comments(path, indent)
            if isinstance(value, dict) and value and all(key.isdigit() for key in value):
                yield f"{indent}{name}:"
                for number, item in value.items():
                    first, *rest = self._lines(item, f"{path}.{number}.", depth + 2)
                    # The item's own remarks, and those of its first setting, stand before the dash.
                    yield from self._comments(f"{path}.{number}", f"{indent}    ")
                    while first.lstrip().startswith("#"):
                        yield first
                        first, *rest = rest
                    yield f"{indent}  - {first.lstrip()}"
                    yield from rest
            elif isinstance(value, dict):
                yield f"{indent}{name}:"
                yield from self._lines(value, f"{path}.", depth + 1)
            else:
                yield f"{indent}{name}: {_flow(value)}"

    def _comments(self, path: str, indent: str) -> Iterator[str]:
        for remark in self._remarks.get(path, []):
            line = ""
            for word in remark.split():
                if line and len(indent) + 2 + len(line) + 1 + len(word) > WIDTH:
                    yield f"{indent}# {line}"
                    line = word
                else:
                    line = f"{line} {word}".strip()
            yield f"{indent}# {line}"

    def _at(self, path: str) -> Any:
        here: Any = self._tree
        for name in path.split("."):
            here = here.get(name, {})
        return _as_lists(here)

    def _remove(self, path: str) -> bool:
        """False where it is not there. A section that is empty then goes too, but for the place in a list."""
        *parents, last = path.split(".")
        sections: list[dict[str, Any]] = [self._tree]
        for name in parents:
            inner = sections[-1].get(name)
            if not isinstance(inner, dict):
                return False
            sections.append(inner)
        if last not in sections[-1]:
            return False
        del sections.pop()[last]
        for name, section in zip(reversed(parents), reversed(sections), strict=True):
            if section[name] or name.isdigit():
                break
            del section[name]
        return True


def _refusal(model: type[BaseModel], values: Any, path: str) -> tuple[str, str] | None:
    """Path and reason of the first setting that ``model`` does not take."""
    try:
        model.model_validate(_without_secret_files(values))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join([path, *(str(piece) for piece in first["loc"])])
        return place, first["msg"].removeprefix("Value error, ")
    return None


def _without_secret_files(values: Any) -> Any:
    """The files are where the service will run, not here."""
    if isinstance(values, dict):
        return {name: _without_secret_files(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_without_secret_files(value) for value in values]
    return "x" if isinstance(values, str) and values.startswith(SECRET_FILE_PREFIX) else values


def _as_lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return copy.deepcopy(value)
    if value and all(key.isdigit() for key in value):
        return [_as_lists(item) for item in value.values()]
    return {name: _as_lists(item) for name, item in value.items()}


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=100_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()
