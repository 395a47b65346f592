"""Keeps transfers moving: takes the rows that are due, looks at the truth outside, and moves each row on.

Level-triggered: it remembers nothing between rounds, so any number of workers may run, and one may die anywhere.
The scheduler is asked once per system for all jobs followed in a round, never once per transfer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from stagecoach.core.errors import StagecoachError, StaleVersion, SystemNotFound, SystemUnavailable, Unavailable
from stagecoach.core.polling import retry_seconds
from stagecoach.core.transfer import FOLLOWS, State, Transfer, advance
from stagecoach.flows.look_at_transfer import follows_job, look_at_transfer
from stagecoach.flows.reconcile_buckets import reconcile_buckets
from stagecoach.flows.toolbox import Toolbox
from stagecoach.ports.scheduler import JobKey, JobReport, ReportsIncomplete

log = logging.getLogger(__name__)

BUCKET_RETRY_SECONDS = 60.0
# What trying again does not mend by itself (a login refused, a quota) is often mended by somebody within the half hour
# that so many looks take, and the data of hours is in the staging area.
LOOKS_BEFORE_GIVING_UP = 15
LOOK_SECONDS = 120
STOP_SECONDS = 10
LOOKS_AT_ONCE_PER_SYSTEM = 16


class Worker:
    """One reconciler. ``nudge`` makes the next round begin at once."""

    def __init__(self, tools: Toolbox, name: str, nudged: asyncio.Event) -> None:
        self._tools = tools
        self._name = name
        self._nudged = nudged
        self._under_way: set[asyncio.Task[None]] = set()
        self._rows_under_way: Counter[str] = Counter()
        """By system, so that one that hangs keeps no room from the others."""

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``; then what is under way is brought to its end."""
        buckets = asyncio.create_task(self._keep_buckets(stop))
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._nudged.clear()
                try:
                    taken = await self.round()
                except Exception:
                    # The database may be away for a while; the round is tried again, and the log says so each time.
                    log.exception("a round of the worker failed")
                    taken = 0
                if not taken:
                    await self._pause(stopped)
        finally:
            stopped.cancel()
            buckets.cancel()
            await self._end_looks()

    async def round(self) -> int:
        """Take what is due and set it going; returns how many rows were taken."""
        worker = self._tools.settings.worker
        full = [system for system, count in self._rows_under_way.items() if count >= worker.batch_size]
        rows = await self._tools.transfers.claim_due(
            self._name, self._tools.now(), worker.lease_seconds, worker.batch_size, without_systems=full
        )
        by_system: dict[str, list[Transfer]] = defaultdict(list)
        for transfer in rows:
            by_system[transfer.system].append(transfer)
        for system, transfers in by_system.items():
            self._rows_under_way[system] += len(transfers)
            task = asyncio.create_task(self._look_at_all(system, transfers))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        return len(rows)

    async def settle(self) -> None:
        """Wait for all looks under way (tests, shutdown)."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def _pause(self, stopped: asyncio.Task[bool]) -> None:
        nudge = asyncio.create_task(self._nudged.wait())
        await asyncio.wait(
            {nudge, stopped},
            timeout=self._tools.settings.worker.poll_min_seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
        nudge.cancel()

    async def _end_looks(self) -> None:
        """What does not end by itself is left to the next worker: its leases run out."""
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()

    async def _look_at_all(self, system: str, transfers: Sequence[Transfer]) -> None:
        answers = await self._ask_scheduler(system, [transfer for transfer in transfers if follows_job(transfer)])
        bound = asyncio.Semaphore(LOOKS_AT_ONCE_PER_SYSTEM)

        async def look(transfer: Transfer) -> None:
            try:
                async with bound:
                    await self._look(transfer, answers.get(transfer.job_id or ""))
            except Exception:
                # The database, most likely. The lease runs out by itself, so nothing is lost.
                log.exception("transfer %s: the look could not be ended", transfer.id)
            finally:
                self._rows_under_way[system] -= 1

        await asyncio.gather(*(look(transfer) for transfer in transfers))

    async def _ask_scheduler(self, system: str, followed: Sequence[Transfer]) -> Mapping[str, JobReport | StagecoachError]:
        """Reports by job id; an error for each job that could not be asked about, which is not an unknown job."""
        if not followed:
            return {}
        keys = [JobKey(transfer.job_id or "", transfer.job_name, transfer.owner) for transfer in followed]
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await self._tools.system(system).scheduler.reports(keys)
        except ReportsIncomplete as error:
            return {**error.reports, **dict.fromkeys(error.unanswered, error)}
        except StagecoachError as error:
            return {key.job_id: error for key in keys}
        except TimeoutError:
            late = SystemUnavailable(f"The scheduler of {system} did not answer within {LOOK_SECONDS} seconds.")
            return {key.job_id: late for key in keys}
        except Exception as error:
            log.exception("asking the scheduler of %s failed", system)
            return {key.job_id: _mistake(error) for key in keys}

    async def _look(self, transfer: Transfer, answer: JobReport | StagecoachError | None) -> None:
        try:
            if isinstance(answer, StagecoachError):
                await self._failed_look(transfer, answer)
                return
            async with asyncio.timeout(LOOK_SECONDS):
                await look_at_transfer(self._tools, transfer, answer)
        except StaleVersion:
            # Somebody (a cancel, say) moved it while we acted; what we made after their clean-up must go as well.
            await self._tools.transfers.demand_cleaning(transfer.id, self._tools.now())
        except StagecoachError as error:
            await self._failed_look(transfer, error)
        except TimeoutError:
            await self._failed_look(transfer, Unavailable(f"A look at it did not end within {LOOK_SECONDS} seconds."))
        except Exception as error:
            log.exception("transfer %s: the look failed", transfer.id)
            await self._failed_look(transfer, _mistake(error))

    async def _failed_look(self, transfer: Transfer, error: StagecoachError) -> None:
        tools = self._tools
        looks = transfer.failed_looks + 1
        hopeless = not error.retryable and not isinstance(error, SystemNotFound) and looks >= LOOKS_BEFORE_GIVING_UP
        try:
            if hopeless and State.FAILED in FOLLOWS[transfer.direction].get(transfer.state, ()):
                failed = advance(transfer, State.FAILED, tools.now(), code=error.code, reason=error.message)
                await tools.transfers.save(failed, error.message, next_check_at=tools.now())
                return
            jitter = tools.random_bits(24) / 2**24
            wait = retry_seconds(looks, tools.settings.worker.poll_min_seconds, jitter)
            log.warning("transfer %s (%s): %s; looking again in %.1f s", transfer.id, transfer.state, error.message, wait)
            # Why it waits is for its owner to see; an ended one keeps the reason of its end.
            reason = transfer.reason if transfer.state.is_end else error.message
            if await tools.transfers.put_off(replace(transfer, failed_looks=looks, reason=reason), tools.soon(wait)):
                return
        except StaleVersion:
            pass
        log.info("transfer %s was moved by somebody else", transfer.id)
        await tools.transfers.demand_cleaning(transfer.id, tools.now())

    async def _keep_buckets(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                if not await reconcile_buckets(self._tools):
                    return
            except Exception:
                log.exception("bucket rules could not be compared with the settings")
            await asyncio.sleep(BUCKET_RETRY_SECONDS)


def _mistake(error: Exception) -> Unavailable:
    return Unavailable(f"The service made a mistake while looking at it ({type(error).__name__}); it is logged and tried again.")
