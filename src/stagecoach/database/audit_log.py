"""What is asked of the audit log: append, read, and forget what is older than the settings keep. Nothing changes a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from stagecoach.core.audit_log import AuditFilter, AuditLine
from stagecoach.database.engine import reading, writing
from stagecoach.database.tables import audit_log


class AuditLog:
    """The audit_log table behind plain methods. Text that is too long for its column is cut off, never refused."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def append(self, line: AuditLine) -> None:
        """Write it down; the database gives it its number."""
        row = asdict(line)
        del row["number"]
        for column in audit_log.c:
            length = getattr(column.type, "length", None)
            if length is not None and row[column.name] is not None:
                # PostgreSQL takes no NUL in a text.
                row[column.name] = str(row[column.name]).replace("\0", "\ufffd")[:length]
        async with writing(self._engine) as connection:
            await connection.execute(insert(audit_log).values(**row))

    async def page(self, wanted: AuditFilter) -> Sequence[AuditLine]:
        """Oldest first."""
        query = select(audit_log).where(audit_log.c.number > wanted.after).order_by(audit_log.c.number).limit(wanted.limit)
        if wanted.since is not None:
            query = query.where(audit_log.c.at >= wanted.since)
        if wanted.until is not None:
            query = query.where(audit_log.c.at < wanted.until)
        if wanted.who is not None:
            query = query.where(audit_log.c.who == wanted.who)
        async with reading(self._engine) as connection:
            return [AuditLine(**row) for row in (await connection.execute(query)).mappings()]

    async def forget_older(self, before: datetime, limit: int) -> int:
        """At most ``limit`` of the lines from before then; how many went."""
        old = select(audit_log.c.number).where(audit_log.c.at < before).order_by(audit_log.c.number).limit(limit)
        async with writing(self._engine) as connection:
            return (await connection.execute(delete(audit_log).where(audit_log.c.number.in_(old.scalar_subquery())))).rowcount
