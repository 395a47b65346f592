"""Which settings administrators may change while the service runs, and what the settings are with their changes.

The file stays what it is: a change lies over it until it is unset. Every change is held to the file's own rules.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from stagecoach.core.errors import SettingRefused
from stagecoach.settings import Settings, require_uploads_outlive_no_rule
from stagecoach.settings.systems import SystemSettings

log = logging.getLogger(__name__)

S3_NAMES = (
    "max_part_size",
    "bucket_lifecycle_configuration.days",
    "bucket_lifecycle_configuration.abort_incomplete_multipart_days",
    "max_staged_bytes_per_user",
    "max_staged_bytes",
)
SYSTEM_NAMES = ("enabled", "disabled_reason", "limits.max_open_transfers_per_user", "limits.max_open_transfers")

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Override:
    """One setting that an administrator changed."""

    name: str
    value: Any
    changed_at: datetime
    changed_by: str


class SettingsInForce:
    """The file's settings with the changes over them; one object a process, which every reader asks anew."""

    def __init__(self, file: Settings) -> None:
        self.file = file
        self.now = file
        self.overrides: Mapping[str, Override] = {}
        self._systems = {system.name: system for system in file.systems}

    def system(self, name: str) -> SystemSettings | None:
        """One system's, as they are now."""
        return self._systems.get(name)

    def apply(self, overrides: Sequence[Override]) -> None:
        """These, and no others. One that the file's rules no longer allow is left out, and the log says so."""
        if {override.name: override for override in overrides} == self.overrides:
            return
        settings = self.file
        for override in overrides:
            try:
                settings = changed(settings, override.name, override.value)
            except SettingRefused as error:
                log.error("a setting changed by %s does not hold any more: %s", override.changed_by, error.message)
        self.overrides = {override.name: override for override in overrides}
        self._systems = {system.name: system for system in settings.systems}
        self.now = settings


def changeable(settings: Settings) -> Iterator[str]:
    """The names of all settings that may be changed, as in the file with dots between."""
    yield from (f"s3.{name}" for name in S3_NAMES)
    for system in settings.systems:
        yield from (f"systems.{system.name}.{name}" for name in SYSTEM_NAMES)


def value_of(settings: Settings, name: str) -> Any:
    """What a changeable setting is. Raises SettingRefused for any other."""
    model, path = _found(settings, name)
    for piece in path:
        model = getattr(model, _field(type(model), piece))
    return model


def description_of(settings: Settings, name: str) -> str:
    """The setting's sentence. Raises SettingRefused."""
    model, (*path, last) = _found(settings, name)
    for piece in path:
        model = getattr(model, _field(type(model), piece))
    return type(model).model_fields[_field(type(model), last)].description or ""


def changed(settings: Settings, name: str, value: Any) -> Settings:
    """The settings with one value changed, checked as the file is. Raises SettingRefused, naming it."""
    model, path = _found(settings, name)
    try:
        new = _with(model, path, value)
        if isinstance(new, SystemSettings):
            systems = tuple(new if system.name == new.name else system for system in settings.systems)
            whole = settings.model_copy(update={"systems": systems})
        else:
            whole = settings.model_copy(update={"s3": new})
        require_uploads_outlive_no_rule(whole)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]["msg"].removeprefix("Value error, ")
        raise SettingRefused(f"{name}: {problem}.", data={"name": name}) from error
    except ValueError as error:
        raise SettingRefused(f"{name}: {error}.", data={"name": name}) from error
    return whole


def _found(settings: Settings, name: str) -> tuple[Any, list[str]]:
    """The section that is checked as one, and the way from there."""
    if name not in set(changeable(settings)):
        raise SettingRefused(f"{name}: there is no such setting, or it is changed in the file only.", data={"name": name})
    room, rest = name.split(".", 1)
    if room == "s3":
        return settings.s3, rest.split(".")
    system, rest = rest.split(".", 1)
    return next(one for one in settings.systems if one.name == system), rest.split(".")


def _with(model: Model, path: Sequence[str], value: Any) -> Model:
    name, *rest = path
    field = _field(type(model), name)
    new = _with(getattr(model, field), rest, value) if rest else value
    # The file's text may stand for a number or a truth; here true is not a quota of one byte.
    return type(model).model_validate({**dict(model), field: new}, strict=True)


def _field(model: type[BaseModel], name: str) -> str:
    return next(field for field, info in model.model_fields.items() if name in {field, info.alias})
