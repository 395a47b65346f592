"""Blocking work in a thread of its own, which does not keep the program from ending while a name or a disk is silent."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(look: Callable[[], T], name: str = "stagecoach-check") -> T:
    """What ``look`` gives or raises. When the caller is cancelled the thread goes on, and nobody waits for it."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def give(result: T | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, failure = None, None
        try:
            result = look()
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the program has ended meanwhile
            loop.call_soon_threadsafe(give, result, failure)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await answer
