"""Local accounts and their sessions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from stagecoach.core.accounts import Account, Session
from stagecoach.core.errors import NameTaken
from stagecoach.database.engine import reading, writing
from stagecoach.database.tables import accounts, personal_tokens, sessions

_ACCOUNT = ("id", "name", "password_hash", "username", "is_admin", "is_disabled", "created_at", "password_changed_at")
_SESSION = ("id", "account_id", "secret_sha256", "created_at", "last_used_at", "expires_at")


class Accounts:
    """The tables accounts and sessions behind plain methods."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, account: Account) -> None:
        """Raises NameTaken."""
        try:
            async with writing(self._engine) as connection:
                await connection.execute(insert(accounts).values(**{name: getattr(account, name) for name in _ACCOUNT}))
        except IntegrityError:
            raise NameTaken("There is an account of this name already; choose another.") from None

    async def find(self, name: str) -> Account | None:
        """By name."""
        async with reading(self._engine) as connection:
            row = (await connection.execute(select(accounts).where(accounts.c.name == name))).one_or_none()
        return None if row is None else _account(row)

    async def get(self, account_id: str) -> Account | None:
        """By id."""
        async with reading(self._engine) as connection:
            row = (await connection.execute(select(accounts).where(accounts.c.id == account_id))).one_or_none()
        return None if row is None else _account(row)

    async def page(self, after: str | None, limit: int) -> Sequence[Account]:
        """By name; from the one after ``after`` on."""
        query = select(accounts).order_by(accounts.c.name).limit(limit)
        if after is not None:
            query = query.where(accounts.c.name > after)
        async with reading(self._engine) as connection:
            return [_account(row) for row in await connection.execute(query)]

    async def change(self, account_id: str, **values: Any) -> None:
        """Its user, whether it is an administrator's, whether it is disabled; a disabled one's sessions and tokens end for
        good: what made somebody disable it may have them."""
        async with writing(self._engine) as connection:
            await connection.execute(update(accounts).where(accounts.c.id == account_id).values(**values))
            if values.get("is_disabled"):
                await connection.execute(delete(sessions).where(sessions.c.account_id == account_id))
                await connection.execute(delete(personal_tokens).where(personal_tokens.c.account_id == account_id))

    async def rehash(self, account: Account, password_hash: str) -> None:
        """The same password, hashed as is right today."""
        same = (accounts.c.id == account.id) & (accounts.c.password_hash == account.password_hash)
        async with writing(self._engine) as connection:
            await connection.execute(update(accounts).where(same).values(password_hash=password_hash))

    async def change_password(
        self, account: Account, password_hash: str, now: datetime, *, keep_session: str | None, revoke_tokens: bool
    ) -> bool:
        """All sessions but ``keep_session`` end, and where asked for, tokens that the account made are revoked.

        False, and nothing done, where the password was changed since ``account`` was read.
        """
        same = (accounts.c.id == account.id) & (accounts.c.password_hash == account.password_hash)
        changed = update(accounts).where(same).values(password_hash=password_hash, password_changed_at=now)
        async with writing(self._engine) as connection:
            if not (await connection.execute(changed)).rowcount:
                return False
            others = (sessions.c.account_id == account.id) & (sessions.c.id != (keep_session or ""))
            await connection.execute(delete(sessions).where(others))
            if revoke_tokens:
                await connection.execute(delete(personal_tokens).where(personal_tokens.c.account_id == account.id))
        return True

    async def add_session(self, session: Session, account: Account, idle_seconds: float) -> bool:
        """A new one; all that are over are forgotten.

        False, and nothing done, where the account was changed since it was read: a password that was just changed, or an
        account just disabled, must not be outlived by a log-in that was under way.
        """
        now = session.created_at
        over = or_(sessions.c.expires_at <= now, sessions.c.last_used_at <= now - timedelta(seconds=idle_seconds))
        same = (accounts.c.id == account.id) & (accounts.c.password_changed_at == account.password_changed_at)
        still = select(accounts.c.id).where(same, accounts.c.is_disabled.is_(False)).with_for_update()
        async with writing(self._engine) as connection:
            if (await connection.execute(still)).one_or_none() is None:
                return False
            await connection.execute(delete(sessions).where(over))
            await connection.execute(insert(sessions).values(**{name: getattr(session, name) for name in _SESSION}))
        return True

    async def find_session(self, secret_sha256: str) -> tuple[Session, Account] | None:
        """With the account that it is of, whether it still holds or not."""
        wanted = sessions.c.secret_sha256 == secret_sha256
        named = [sessions.c[name].label(f"session_{name}") for name in _SESSION]
        query = select(*named, *accounts.c).join(accounts, accounts.c.id == sessions.c.account_id).where(wanted)
        async with reading(self._engine) as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        return Session(*(getattr(row, f"session_{name}") for name in _SESSION)), _account(row)

    async def touch_session(self, session_id: str, now: datetime) -> None:
        """It was used."""
        async with writing(self._engine) as connection:
            await connection.execute(update(sessions).where(sessions.c.id == session_id).values(last_used_at=now))

    async def end_session(self, session_id: str) -> None:
        """Log out of one."""
        async with writing(self._engine) as connection:
            await connection.execute(delete(sessions).where(sessions.c.id == session_id))

    async def end_sessions(self, account_id: str) -> None:
        """Log out of all."""
        async with writing(self._engine) as connection:
            await connection.execute(delete(sessions).where(sessions.c.account_id == account_id))


def _account(row: Row[Any]) -> Account:
    return Account(*(getattr(row, name) for name in _ACCOUNT))
