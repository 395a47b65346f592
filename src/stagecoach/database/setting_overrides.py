"""The settings that administrators changed, one row each; all processes read the same few rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from stagecoach.database.engine import Turn, reading, take_turn, writing
from stagecoach.database.tables import setting_overrides
from stagecoach.settings.run_time import Override


class SettingOverrides:
    """The setting_overrides table behind plain methods."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def all(self) -> Sequence[Override]:
        """By name."""
        async with reading(self._engine) as connection:
            rows = await connection.execute(select(setting_overrides).order_by(setting_overrides.c.name))
            return [Override(**row) for row in rows.mappings()]

    async def change(self, values: Mapping[str, Any], unset: Collection[str], changed_by: str, now: datetime) -> None:
        """All of it or nothing; of two at once the later one stays."""
        rows = [{"name": name, "value": value, "changed_at": now, "changed_by": changed_by} for name, value in values.items()]
        async with writing(self._engine) as connection:
            await take_turn(connection, Turn.CHANGE_SETTINGS)
            gone = setting_overrides.c.name.in_([*values, *unset])
            await connection.execute(delete(setting_overrides).where(gone))
            if rows:
                await connection.execute(insert(setting_overrides), rows)
