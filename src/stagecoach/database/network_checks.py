"""What the look at the way between two nodes found, and how fast it was used: one report a transfer, the newest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stagecoach.database.engine import reading
from stagecoach.database.tables import network_checks, transfers


@dataclass(frozen=True, slots=True)
class NetworkCheck:
    """``report`` as the agent wrote it; ``rates`` are pairs of seconds since the start and bytes until then."""

    at: datetime
    report: Mapping[str, Any]
    rates: Sequence[Sequence[float]] = ()


class NetworkChecks:
    """The table network_checks behind plain methods."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def of(self, transfer_id: str) -> NetworkCheck | None:
        """Of the row that sends: a relay's source leg."""
        query = select(network_checks).where(network_checks.c.transfer_id == transfer_id)
        async with reading(self._engine) as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else NetworkCheck(row.at, row.report, row.rates)


async def keep_check(connection: AsyncConnection, transfer_id: str, check: NetworkCheck) -> None:
    """In the place of an earlier one; nothing where the transfer is forgotten."""
    found = await connection.scalar(select(transfers.c.id).where(transfers.c.id == transfer_id))
    if found is None:
        return
    await connection.execute(delete(network_checks).where(network_checks.c.transfer_id == transfer_id))
    values = {"at": check.at, "report": dict(check.report), "rates": [list(pair) for pair in check.rates]}
    await connection.execute(insert(network_checks).values(transfer_id=transfer_id, **values))
