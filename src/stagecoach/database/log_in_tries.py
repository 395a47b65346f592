"""Tries to log in of the last minutes. In the database, so that neither another replica nor a restart gives more of them."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stagecoach.core.errors import TooManyRequests
from stagecoach.database.engine import Turn, take_turn, writing
from stagecoach.database.tables import log_in_tries

WINDOW_SECONDS = 15 * 60
_rows = log_in_tries.c


class LogInTries:
    """The table log_in_tries behind plain methods."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def count(self, account_key: str | None, address: str, now: datetime, *, per_account: int, per_address: int) -> None:
        """One more try, before the password is looked at: many at once are not more than many one after the other.

        Raises TooManyRequests; a refused try is not counted.
        """
        async with writing(self._engine) as connection:
            await take_turn(connection, Turn.COUNT_LOG_INS)
            await connection.execute(delete(log_in_tries).where(_rows.at <= now - timedelta(seconds=WINDOW_SECONDS)))
            await _require_room(connection, _rows.address == address, per_address, now)
            if account_key is not None:
                await _require_room(connection, _rows.account_key == account_key, per_account, now)
            await connection.execute(insert(log_in_tries).values(account_key=account_key, address=address, at=now))

    async def forgive(self, account_key: str, address: str) -> None:
        """This address knew the account's password: its tries at that account count no more, those of others do."""
        mine = (_rows.account_key == account_key) & (_rows.address == address)
        async with writing(self._engine) as connection:
            await connection.execute(delete(log_in_tries).where(mine))


async def _require_room(connection: AsyncConnection, which: ColumnElement[bool], most: int, now: datetime) -> None:
    # The try that must be forgotten before there is room for one more.
    query = select(_rows.at).where(which).order_by(_rows.number.desc()).offset(most - 1).limit(1)
    earliest = (await connection.execute(query)).scalar_one_or_none()
    if earliest is None:
        return
    seconds = max(1, int((earliest + timedelta(seconds=WINDOW_SECONDS) - now).total_seconds()) + 1)
    raise TooManyRequests(
        f"There were too many tries to log in; try again in {seconds} s.", data={"retry_after_seconds": seconds}
    )
