"""A copy whose cap changes: it is ended and begun again, and what has arrived counts on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stagecoach.agent.rate_caps import CappedCopy, RateCaps
from stagecoach.agent.rclone_copy import Outcome
from stagecoach.agent.rclone_progress import Progress
from stagecoach.agent.rclone_words import Trouble
from stagecoach.agent.source_survey import Survey

SURVEY = Survey(4, 100, 25, (), False)


class FakeCopy:
    """Tells that it has sent 40 bytes, and then waits until it is stopped, or for ``ends``."""

    def __init__(self, rate: int | None) -> None:
        self.rate = rate
        self.stopped, self.ends = asyncio.Event(), asyncio.Event()
        self.has_told = asyncio.Event()

    def stop(self) -> None:
        self.stopped.set()

    async def run(self, told: Callable[[Progress], None]) -> Outcome:
        progress = Progress("running", 40, 100, 2, 4)
        told(progress)
        self.has_told.set()
        waiting = [asyncio.create_task(event.wait()) for event in (self.stopped, self.ends)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if self.stopped.is_set():
            return Outcome(progress, SURVEY, Trouble("stopped", "It was stopped.", retryable=False))
        done = Progress("done", 100, 100, 4, 4)
        told(done)
        return Outcome(done, SURVEY)


class Making:
    """All copies that were begun."""

    def __init__(self, *, keeps_files: bool = True, asked: int | None = None) -> None:
        self.caps = RateCaps()
        self.copies: list[FakeCopy] = []
        self.told: list[int] = []
        self.whole = CappedCopy(self._begin, self.caps.of("c", asked), keeps_files=keeps_files)  # type: ignore[arg-type]
        self.running = asyncio.create_task(self.whole.run(lambda progress: self.told.append(progress.bytes_done)))

    def _begin(self, rate: int | None) -> FakeCopy:
        self.copies.append(FakeCopy(rate))
        return self.copies[-1]

    async def begun(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.copies) < count or not self.copies[-1].has_told.is_set():
                await asyncio.sleep(0.001)


async def test_it_goes_on_at_another_rate_and_counts_on() -> None:
    making = Making(asked=10)
    await making.begun(1)
    making.caps.change("c", 10)
    making.caps.change("unknown", 5)
    making.caps.change("c", 20)
    await making.begun(2)
    making.caps.change("c", None)
    await making.begun(3)
    making.copies[-1].ends.set()
    outcome = await making.running
    assert outcome.trouble is None
    assert [copy.rate for copy in making.copies] == [10, 20, None]
    assert making.told == [40, 80, 100, 100], "never more than there is"


async def test_one_file_begins_anew() -> None:
    making = Making(keeps_files=False)
    await making.begun(1)
    making.caps.change("c", 5)
    await making.begun(2)
    assert making.told == [40, 40]
    making.copies[-1].ends.set()
    assert (await making.running).trouble is None


async def test_a_stop_is_a_stop_also_beside_a_change() -> None:
    making = Making()
    await making.begun(1)
    making.caps.change("c", 5)
    making.whole.stop()
    outcome = await making.running
    assert outcome.trouble is not None
    assert (outcome.trouble.code, len(making.copies)) == ("stopped", 1)


async def test_what_has_ended_is_forgotten() -> None:
    caps = RateCaps()
    caps.of("c", None)
    caps.forget("c")
    caps.change("c", 5)
    assert caps.of("c", 7).bytes_per_second == 7
