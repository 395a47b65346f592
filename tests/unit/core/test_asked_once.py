"""Equal questions that come together are one question."""

from __future__ import annotations

import asyncio

import pytest

from stagecoach.core.asked_once import AskedOnce


class Desk:
    """Answers with how often it was asked, when it is let."""

    def __init__(self) -> None:
        self.time = 100.0
        self.asked = 0
        self.open = asyncio.Event()
        self.trouble: Exception | None = None
        self.questions = AskedOnce(lambda: self.time, fresh_seconds=1.5)

    async def answer(self) -> int:
        self.asked += 1
        number = self.asked
        await self.open.wait()
        if self.trouble is not None:
            raise self.trouble
        return number

    async def ask(self, username: str = "alice", what: str = "jobs", system: str = "alps") -> int:
        return await self.questions.ask(system, username, what, self.answer)


async def test_those_who_ask_while_it_is_under_way_get_the_one_answer() -> None:
    desk = Desk()
    asking = [asyncio.create_task(desk.ask()) for _ in range(50)]
    await asyncio.sleep(0)
    desk.open.set()
    assert set(await asyncio.gather(*asking)) == {1}


async def test_the_answer_stays_fresh_for_a_moment() -> None:
    desk = Desk()
    desk.open.set()
    assert await desk.ask() == 1
    desk.time += 1.4
    assert await desk.ask() == 1
    desk.time += 0.2
    assert await desk.ask() == 2


async def test_another_person_question_or_system_is_another_question() -> None:
    desk = Desk()
    desk.open.set()
    assert [await desk.ask(), await desk.ask("bob"), await desk.ask(what="nodes"), await desk.ask(system="bora")] == [1, 2, 3, 4]


async def test_what_the_person_changed_is_asked_anew() -> None:
    desk = Desk()
    desk.open.set()
    assert [await desk.ask(), await desk.ask("bob")] == [1, 2]
    desk.questions.forget("alps", "alice")
    assert [await desk.ask(), await desk.ask("bob")] == [3, 2]


async def test_a_question_under_way_before_a_change_does_not_answer_one_after_it() -> None:
    desk = Desk()
    before = asyncio.create_task(desk.ask())
    await asyncio.sleep(0)
    desk.questions.forget("alps", "alice")
    after = asyncio.create_task(desk.ask())
    await asyncio.sleep(0)
    desk.open.set()
    assert [await before, await after] == [1, 2]
    assert await desk.ask() == 2


async def test_a_failure_is_told_to_those_who_wait_and_asked_again_by_the_next() -> None:
    desk = Desk()
    desk.trouble = ValueError("no")
    asking = [asyncio.create_task(desk.ask()) for _ in range(3)]
    await asyncio.sleep(0)
    desk.open.set()
    assert [type(answer) for answer in await asyncio.gather(*asking, return_exceptions=True)] == [ValueError] * 3
    assert desk.asked == 1
    desk.trouble = None
    assert await desk.ask() == 2


async def test_one_who_goes_away_takes_nobodys_answer_with_them() -> None:
    desk = Desk()
    first, second = asyncio.create_task(desk.ask()), asyncio.create_task(desk.ask())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    desk.open.set()
    assert await second == 1


async def test_nothing_is_kept_for_ever() -> None:
    desk = Desk()
    desk.open.set()
    for number in range(200):
        await desk.ask(f"user{number}")
        desk.time += 1
    assert len(desk.questions._asked) <= 3
