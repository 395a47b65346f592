"""Which buckets exist and which rules they were last given, so that a change of settings reaches all of them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from stagecoach.database.engine import reading, writing
from stagecoach.database.tables import buckets


class Buckets:
    """The buckets table behind plain methods."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def fingerprint(self, name: str) -> str | None:
        """Of the rules the bucket was last given; None for a bucket never seen."""
        async with reading(self._engine) as connection:
            result = await connection.execute(select(buckets.c.rules_fingerprint).where(buckets.c.name == name))
            return result.scalar_one_or_none()

    async def remember(self, name: str, owner: str, fingerprint: str, now: datetime) -> None:
        """The bucket exists and has these rules."""
        values = {"rules_fingerprint": fingerprint, "checked_at": now}
        async with writing(self._engine) as connection:
            result = await connection.execute(update(buckets).where(buckets.c.name == name).values(**values))
            if result.rowcount:
                return
        try:
            async with writing(self._engine) as connection:
                await connection.execute(insert(buckets).values(name=name, owner=owner, **values))
        except IntegrityError:
            # Another request was first with the same bucket and the same settings.
            return

    async def with_other_rules(self, fingerprint: str) -> list[tuple[str, str]]:
        """(name, owner) of every bucket whose rules differ."""
        query = select(buckets.c.name, buckets.c.owner).where(buckets.c.rules_fingerprint != fingerprint)
        async with reading(self._engine) as connection:
            return [(name, owner) for name, owner in (await connection.execute(query)).all()]
