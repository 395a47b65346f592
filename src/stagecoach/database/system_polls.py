"""Whose turn it is to ask a system's scheduler: one row a system, which all workers of a deployment share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from stagecoach.core.polling import LONGEST_GAP_SECONDS, QUESTIONS_AN_ASK, next_ask_at, recent_questions
from stagecoach.database.engine import reading, writing
from stagecoach.database.tables import system_polls


class SystemPolls:
    """The system_polls table behind plain methods. Each write compares the row's version, so that one of many wins."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def open_systems(self, systems: Collection[str], now: datetime) -> list[str]:
        """Those of ``systems`` whose scheduler may be asked now."""
        query = select(system_polls.c.system, system_polls.c.next_ask_at).where(system_polls.c.system.in_(systems))
        async with reading(self._engine) as connection:
            times = {row[0]: row[1] for row in (await connection.execute(query)).all()}
        return [system for system in systems if system not in times or _is_due(times[system], now)]

    async def win(self, system: str, now: datetime, questions_per_minute: int) -> bool:
        """Whether the caller, and nobody else, may ask now: ``QUESTIONS_AN_ASK`` at most, then :meth:`settle`.

        Whoever dies in between has used them up, and the next interval is another's.
        """
        found = await self._row(system)
        if found is None:
            return await self._first(system, now, questions_per_minute)
        version, asked, at = found
        if not _is_due(at, now):
            return False
        reserved = [*asked, *[now.timestamp()] * QUESTIONS_AN_ASK]
        return await self._write(system, version, reserved, now, questions_per_minute)

    async def settle(self, system: str, won_at: datetime, now: datetime, questions: int, questions_per_minute: int) -> None:
        """What the ask won at ``won_at`` really took: ``questions``, the last of them at ``now``."""
        while (found := await self._row(system)) is not None:
            version, asked, _ = found
            unused = [moment for moment in asked if moment != won_at.timestamp()]
            if await self._write(system, version, [*unused, *[now.timestamp()] * questions], now, questions_per_minute):
                return

    async def _row(self, system: str) -> tuple[int, list[float], datetime] | None:
        query = select(system_polls.c.version, system_polls.c.recent_asks, system_polls.c.next_ask_at)
        async with reading(self._engine) as connection:
            row = (await connection.execute(query.where(system_polls.c.system == system))).first()
        return (row[0], row[1], row[2]) if row is not None else None

    async def _first(self, system: str, now: datetime, questions_per_minute: int) -> bool:
        values = _values([now.timestamp()] * QUESTIONS_AN_ASK, now, questions_per_minute)
        try:
            async with writing(self._engine) as connection:
                await connection.execute(insert(system_polls).values(system=system, version=1, **values))
        except IntegrityError:
            # Another worker was first.
            return False
        return True

    async def _write(self, system: str, version: int, asked: Sequence[float], now: datetime, questions_per_minute: int) -> bool:
        values = _values(asked, now, questions_per_minute)
        async with writing(self._engine) as connection:
            result = await connection.execute(
                update(system_polls)
                .where(system_polls.c.system == system, system_polls.c.version == version)
                .values(version=version + 1, **values)
            )
        return result.rowcount == 1


def _is_due(at: datetime, now: datetime) -> bool:
    """A time further away than any that the rule gives was written by a clock that went wrong."""
    return at <= now or (at - now).total_seconds() > LONGEST_GAP_SECONDS


def _values(asked: Sequence[float], now: datetime, questions_per_minute: int) -> dict[str, object]:
    at = next_ask_at(asked, now.timestamp(), questions_per_minute)
    return {"recent_asks": recent_questions(asked, now.timestamp()), "next_ask_at": datetime.fromtimestamp(at, UTC)}
