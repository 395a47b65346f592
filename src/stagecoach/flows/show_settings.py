"""What administrators look at: the settings that may be changed while the service runs, the systems, and who uses how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stagecoach.database.usage import UserUsage
from stagecoach.flows.change_settings import refresh_settings
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.settings.run_time import Override, changeable, description_of, value_of


@dataclass(frozen=True, slots=True)
class Setting:
    """One that may be changed. ``override`` is the change that lies over the file's value, if any."""

    name: str
    description: str
    value: Any
    file_value: Any
    override: Override | None


async def show_settings(tools: Toolbox) -> Sequence[Setting]:
    """In the file's order, as they are in the database at this moment."""
    await refresh_settings(tools)
    force = tools.settings_in_force
    return [
        Setting(
            name,
            description_of(force.now, name),
            value_of(force.now, name),
            value_of(force.file, name),
            force.overrides.get(name),
        )
        for name in changeable(force.file)
    ]


@dataclass(frozen=True, slots=True)
class SystemReport:
    """A system, and what is under way on it."""

    system: System
    open_transfers: int
    staged_bytes: int


async def show_systems(tools: Toolbox) -> Sequence[SystemReport]:
    """In the file's order."""
    await refresh_settings(tools)
    load = await tools.inventory.load()
    return [SystemReport(tools.system(name), *load.get(name, (0, 0))) for name in tools.systems]


async def show_usage(tools: Toolbox, limit: int) -> Sequence[UserUsage]:
    """Of at most ``limit`` users, who has most in the staging area first."""
    return await tools.inventory.usage_of_users(limit)
