"""Personal tokens: never the secret, only its SHA-256."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from stagecoach.core.access import Scope
from stagecoach.core.accounts import PersonalToken
from stagecoach.database.engine import Turn, reading, take_turn, writing
from stagecoach.database.tables import personal_tokens

_FIELDS = ("id", "owner", "account_id", "name", "scopes", "secret_sha256", "created_at", "last_used_at", "expires_at")
_rows = personal_tokens.c


class PersonalTokens:
    """The table personal_tokens behind plain methods."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, token: PersonalToken, most: int) -> bool:
        """False, and nothing done, where its owner has ``most`` already. Those that expired are forgotten."""
        values = {name: getattr(token, name) for name in _FIELDS}
        values["scopes"] = sorted(scope.value for scope in token.scopes)
        async with writing(self._engine) as connection:
            await take_turn(connection, Turn.COUNT_TOKENS)
            await connection.execute(delete(personal_tokens).where(_rows.expires_at <= token.created_at))
            count = select(func.count()).select_from(personal_tokens).where(_rows.owner == token.owner)
            if (await connection.execute(count)).scalar_one() >= most:
                return False
            await connection.execute(insert(personal_tokens).values(**values))
        return True

    async def find(self, secret_sha256: str) -> PersonalToken | None:
        """By its secret's digest, whether it still holds or not."""
        async with reading(self._engine) as connection:
            query = select(personal_tokens).where(_rows.secret_sha256 == secret_sha256)
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _token(row)

    async def get(self, token_id: str) -> PersonalToken | None:
        """By id."""
        async with reading(self._engine) as connection:
            row = (await connection.execute(select(personal_tokens).where(_rows.id == token_id))).one_or_none()
        return None if row is None else _token(row)

    async def of_owner(self, owner: str, now: datetime) -> Sequence[PersonalToken]:
        """Newest first; without those that expired."""
        query = select(personal_tokens).where(_rows.owner == owner, _rows.expires_at > now).order_by(_rows.id.desc())
        async with reading(self._engine) as connection:
            return [_token(row) for row in await connection.execute(query)]

    async def touch(self, token_id: str, now: datetime) -> None:
        """It was used."""
        async with writing(self._engine) as connection:
            await connection.execute(update(personal_tokens).where(_rows.id == token_id).values(last_used_at=now))

    async def remove(self, token_id: str) -> None:
        """Revoke it."""
        async with writing(self._engine) as connection:
            await connection.execute(delete(personal_tokens).where(_rows.id == token_id))


def _token(row: Row[Any]) -> PersonalToken:
    values = {name: getattr(row, name) for name in _FIELDS}
    # A scope that a later version made and this one does not know gives nothing.
    values["scopes"] = frozenset(Scope(name) for name in row.scopes if name in set(Scope))
    return PersonalToken(**values)
