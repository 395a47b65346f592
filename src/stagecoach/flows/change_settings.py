"""Changes settings while the service runs, and follows what other processes changed (decision 17)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Any

from stagecoach.core.access import Caller
from stagecoach.core.errors import SettingRefused
from stagecoach.flows.toolbox import Toolbox
from stagecoach.settings.run_time import changeable, changed, value_of

log = logging.getLogger(__name__)

REFRESH_SECONDS = 2.0


async def change_settings(tools: Toolbox, caller: Caller, values: Mapping[str, Any], unset: Collection[str]) -> dict[str, Any]:
    """Put ``values`` in force and give ``unset`` back to the file; all of it or nothing. Returns what they were before.

    Raises:
        SettingRefused: one of them may not be changed, or not to this.
    """
    await refresh_settings(tools)
    settings, known = tools.settings, set(changeable(tools.settings))
    for name in unset:
        if name in values:
            raise SettingRefused(f"{name}: is both set and unset.", data={"name": name})
        if name not in known and name not in tools.settings_in_force.overrides:
            raise SettingRefused(f"{name}: there is no such setting, or it is changed in the file only.", data={"name": name})
    before = {name: value_of(settings, name) for name in (*values, *unset) if name in known}
    for name in unset:
        if name in known:
            settings = changed(settings, name, value_of(tools.settings_in_force.file, name))
    for name, value in values.items():
        settings = changed(settings, name, value)
    await tools.setting_overrides.change(values, unset, caller.username, tools.now())
    await refresh_settings(tools)
    return before


async def refresh_settings(tools: Toolbox) -> None:
    """What any process changed holds in this one from here on."""
    tools.settings_in_force.apply(await tools.setting_overrides.all())
    tools.store.keep_rules_of(tools.settings.s3)


async def follow_settings(tools: Toolbox, stop: asyncio.Event) -> None:
    """Until ``stop``: a few rows are read every few seconds."""
    while not stop.is_set():
        try:
            await refresh_settings(tools)
        except Exception:
            # The database, most likely; what held goes on holding.
            log.exception("changed settings could not be read")
        try:
            async with asyncio.timeout(REFRESH_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue
