"""Accounts, sessions, tries and personal tokens on both databases, many at once where it matters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from stagecoach.core.access import Scope
from stagecoach.core.accounts import Account, PersonalToken, Session
from stagecoach.core.errors import NameTaken, TooManyRequests
from stagecoach.database.accounts import Accounts
from stagecoach.database.engine import migrate, open_engine
from stagecoach.database.log_in_tries import WINDOW_SECONDS, LogInTries
from stagecoach.database.personal_tokens import PersonalTokens

NOW = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
ALICE = Account("a" * 26, "alice", "$argon2id$1", None, False, False, NOW, NOW)
IDLE_SECONDS = 600


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    opened = open_engine(url, 5)
    await migrate(opened)
    yield opened
    await opened.dispose()


def session(number: int, **changes: object) -> Session:
    made = Session(f"{number:026}", ALICE.id, f"{number:064}", NOW, NOW, NOW + timedelta(hours=1))
    return replace(made, **changes)  # type: ignore[arg-type]


def token(number: int, **changes: object) -> PersonalToken:
    scopes = frozenset({Scope.TRANSFERS_READ, Scope.FILES_READ})
    expires_at = NOW + timedelta(days=1)
    made = PersonalToken(f"{number:026}", "alice", None, "nightly é", scopes, f"{number:064}", NOW, None, expires_at)
    return replace(made, **changes)  # type: ignore[arg-type]


async def test_of_many_who_take_a_name_at_once_one_has_it(engine: AsyncEngine) -> None:
    accounts = Accounts(engine)
    made = [accounts.add(replace(ALICE, id=f"{number:026}")) for number in range(8)]
    results = await asyncio.gather(*made, return_exceptions=True)
    assert [type(one) for one in results if one is not None] == [NameTaken] * 7


async def test_an_account_is_read_as_it_was_written(engine: AsyncEngine) -> None:
    accounts = Accounts(engine)
    await accounts.add(ALICE)
    assert await accounts.find("alice") == await accounts.get(ALICE.id) == ALICE
    await accounts.change(ALICE.id, username="alice", is_disabled=False, is_admin=True)
    assert list(await accounts.page(None, 10)) == [replace(ALICE, username="alice", is_admin=True)]
    assert await accounts.find("bob") is None


async def test_a_session_ends_with_its_account_disabled_or_its_password_changed(engine: AsyncEngine) -> None:
    accounts = Accounts(engine)
    await accounts.add(ALICE)
    for number in (1, 2):
        assert await accounts.add_session(session(number), ALICE, IDLE_SECONDS)
    assert await accounts.find_session(f"{1:064}") == (session(1), ALICE)
    later = NOW + timedelta(seconds=5)
    assert await accounts.change_password(ALICE, "$argon2id$2", later, keep_session=f"{1:026}", revoke_tokens=False)
    assert await accounts.find_session(f"{1:064}") is not None
    assert await accounts.find_session(f"{2:064}") is None
    # Who read the account before that is too late, with a password and with a log-in.
    assert not await accounts.change_password(ALICE, "$argon2id$3", later, keep_session=None, revoke_tokens=False)
    assert not await accounts.add_session(session(3), ALICE, IDLE_SECONDS)
    today = await accounts.find("alice")
    assert today is not None
    assert today.password_hash == "$argon2id$2"
    await accounts.change(ALICE.id, username=None, is_disabled=True, is_admin=False)
    assert await accounts.find_session(f"{1:064}") is None
    assert not await accounts.add_session(session(4), today, IDLE_SECONDS)


async def test_sessions_that_are_over_are_forgotten_at_the_next(engine: AsyncEngine) -> None:
    accounts = Accounts(engine)
    await accounts.add(ALICE)
    await accounts.add_session(session(1), ALICE, IDLE_SECONDS)
    await accounts.add_session(session(2), ALICE, IDLE_SECONDS)
    late = NOW + timedelta(seconds=IDLE_SECONDS)
    await accounts.touch_session(f"{2:026}", late)
    await accounts.add_session(session(3, created_at=late, last_used_at=late), ALICE, IDLE_SECONDS)
    assert await accounts.find_session(f"{1:064}") is None
    assert await accounts.find_session(f"{2:064}") is not None


async def test_tries_at_once_are_not_more_than_the_limit(engine: AsyncEngine) -> None:
    tries = LogInTries(engine)

    async def one(number: int) -> bool:
        try:
            await tries.count("k" * 64, f"192.0.2.{number}", NOW, per_account=5, per_address=100)
        except TooManyRequests:
            return False
        return True

    assert sum(await asyncio.gather(*(one(number) for number in range(20)))) == 5
    later = NOW + timedelta(seconds=WINDOW_SECONDS)
    await tries.count("k" * 64, "192.0.2.1", later, per_account=5, per_address=100)


async def test_a_refusal_says_when_there_is_room_again(engine: AsyncEngine) -> None:
    tries = LogInTries(engine)
    for seconds in (0, 100, 200):
        await tries.count(None, "192.0.2.1", NOW + timedelta(seconds=seconds), per_account=9, per_address=3)
    with pytest.raises(TooManyRequests) as refused:
        await tries.count("k" * 64, "192.0.2.1", NOW + timedelta(seconds=300), per_account=9, per_address=3)
    seconds = refused.value.data["retry_after_seconds"]
    assert isinstance(seconds, int)
    assert 0 <= seconds - (WINDOW_SECONDS - 300) <= 1
    again = NOW + timedelta(seconds=300 + seconds)
    await tries.count("k" * 64, "192.0.2.1", again, per_account=9, per_address=3)


async def test_a_personal_token_is_read_as_it_was_written(engine: AsyncEngine) -> None:
    tokens = PersonalTokens(engine)
    assert await tokens.add(token(1), most=2)
    assert await tokens.add(token(2), most=2)
    assert not await tokens.add(token(3), most=2)
    assert await tokens.find(f"{1:064}") == await tokens.get(f"{1:026}") == token(1)
    assert list(await tokens.of_owner("alice", NOW)) == [token(2), token(1)]
    await tokens.touch(f"{1:026}", NOW)
    used = await tokens.get(f"{1:026}")
    assert used is not None
    assert used.last_used_at == NOW
    await tokens.remove(f"{1:026}")
    assert await tokens.find(f"{1:064}") is None
    later = NOW + timedelta(days=1)
    assert list(await tokens.of_owner("alice", later)) == []
    assert await tokens.add(token(4, created_at=later), most=1)
    assert await tokens.get(f"{2:026}") is None


async def test_a_new_password_revokes_what_the_account_made_and_nothing_else(engine: AsyncEngine) -> None:
    accounts, tokens = Accounts(engine), PersonalTokens(engine)
    await accounts.add(ALICE)
    await tokens.add(token(1, account_id=ALICE.id), most=9)
    await tokens.add(token(2), most=9)
    await accounts.change_password(ALICE, "$argon2id$2", NOW, keep_session=None, revoke_tokens=True)
    assert [one.id for one in await tokens.of_owner("alice", NOW)] == [f"{2:026}"]


async def test_of_many_tokens_made_at_once_no_more_are_made_than_one_user_may_have(engine: AsyncEngine) -> None:
    tokens = PersonalTokens(engine)
    # All connections are open, so that they are at it together.
    await asyncio.gather(*(tokens.of_owner("alice", NOW) for _ in range(20)))
    made = await asyncio.gather(*(tokens.add(token(number), 3) for number in range(12)))
    assert made.count(True) == 3
    assert len(await tokens.of_owner("alice", NOW)) == 3
    assert await tokens.add(token(99, owner="bob"), 3)
