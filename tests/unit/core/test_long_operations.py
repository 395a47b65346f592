"""Who may work on files for long, and who waits."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

from stagecoach.core.long_operations import LongOperations


class Workers:
    """Operations that last until they are told to end."""

    def __init__(self) -> None:
        self.operations = LongOperations()
        self.working: list[str] = []

    async def work(self, username: str, end: asyncio.Event) -> None:
        async with self.operations.turn(username, of_user=2, of_all=3):
            self.working.append(username)
            await end.wait()
            self.working.remove(username)


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_one_user_has_so_many_and_all_together_so_many() -> None:
    workers, ends = Workers(), [asyncio.Event() for _ in range(7)]
    tasks = [asyncio.create_task(workers.work(name, end)) for name, end in zip("aaabbcd", ends, strict=True)]
    await settle()
    assert sorted(workers.working) == ["a", "a", "b"]
    ends[0].set()
    await settle()
    assert len(workers.working) == 3
    for end in ends:
        end.set()
    await asyncio.gather(*tasks)
    assert workers.operations._under_way == {}


async def test_who_gives_up_waiting_or_working_keeps_no_place() -> None:
    workers, never = Workers(), asyncio.Event()
    tasks = [asyncio.create_task(workers.work("a", never)) for _ in range(5)]
    await settle()
    assert workers.working == ["a", "a"]
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await settle()
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await asyncio.wait_for(stack.enter_async_context(workers.operations.turn("a", of_user=2, of_all=3)), 5)
