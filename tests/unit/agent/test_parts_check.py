"""The list of parts at the receiver is the last word, whichever of its requests took longest."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Self

from stagecoach.agent.part_digests import FileDigests
from stagecoach.agent.parts import PartedFile, PartName, read_list
from stagecoach.agent.parts_at_receiver import PartsAtReceiver
from stagecoach.agent.parts_check import PartsCheck
from stagecoach.agent.parts_source import PartsSource, Source
from stagecoach.mover.stagecoach_mover import Handle


class Receiver(PartsAtReceiver):
    """Keeps how far each list says that the parts were compared; a request waits for ``goes_on``."""

    def __init__(self, stored: list[int], goes_on: threading.Event, begun: threading.Event) -> None:
        self.stored, self.goes_on, self.begun = stored, goes_on, begun

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """There is no connection."""

    def store_list(self, written: bytes) -> None:
        (file,) = read_list(written)
        self.begun.set()
        assert self.goes_on.wait(20)
        self.stored.append(file.compared_parts)


def no_handle() -> Handle:
    raise AssertionError("nothing is read")


async def test_a_list_whose_sender_was_cancelled_is_stored_before_the_next_and_not_after(tmp_path: object) -> None:
    file = PartedFile("large", 4, 1, 0, "0123456789abcdef")
    stored: list[int] = []
    slow, begun = threading.Event(), threading.Event()
    source = Source(file, [], FileDigests.__new__(FileDigests), no_handle)
    check = PartsCheck([source], PartsSource([source]), lambda: Receiver(stored, slow, begun))
    check.missing = {PartName(1, 3), PartName(1, 4)}
    saying = asyncio.create_task(check.say())
    assert await asyncio.to_thread(begun.wait, 20)
    saying.cancel()
    await asyncio.wait({saying})
    check.missing = set()
    last = asyncio.create_task(check.say())
    await asyncio.sleep(0)
    slow.set()
    assert await last is None
    assert stored == [2, 4]
