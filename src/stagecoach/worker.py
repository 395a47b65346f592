"""Keeps transfers moving: takes the rows that are due, looks at the truth outside, and moves each row on.

Level-triggered: it remembers nothing between rounds, so any number of workers may run, and one may die anywhere.
The scheduler is asked once per system for all jobs followed in a round, never once per transfer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from stagecoach.core.errors import StagecoachError, StaleVersion, SystemNotFound
from stagecoach.core.polling import retry_seconds
from stagecoach.core.transfer import FOLLOWS, State, Transfer, advance
from stagecoach.flows.look_at_transfer import follows_job, look_at_transfer
from stagecoach.flows.reconcile_buckets import reconcile_buckets
from stagecoach.flows.toolbox import Toolbox
from stagecoach.ports.scheduler import JobKey, JobReport, ReportsIncomplete

log = logging.getLogger(__name__)

BUCKET_RETRY_SECONDS = 60.0
# Errors that trying again does not mend (permission, quota) are given this many looks, in case somebody mends them.
LOOKS_BEFORE_FAILING = 5
LOOKS_AT_ONCE_PER_SYSTEM = 16


class Worker:
    """One reconciler. ``nudge`` makes the next round begin at once."""

    def __init__(self, tools: Toolbox, name: str, nudged: asyncio.Event) -> None:
        self._tools = tools
        self._name = name
        self._nudged = nudged
        self._under_way: set[asyncio.Task[None]] = set()
        self._rows_under_way = 0

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
            if self._under_way:
                await asyncio.wait(self._under_way)

    async def round(self) -> int:
        """Take what is due and set it going; returns how many rows were taken."""
        worker = self._tools.settings.worker
        room = worker.batch_size - self._rows_under_way
        if room <= 0:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
            return 1
        rows = await self._tools.transfers.claim_due(self._name, self._tools.now(), worker.lease_seconds, room)
        by_system: dict[str, list[Transfer]] = defaultdict(list)
        for transfer in rows:
            by_system[transfer.system].append(transfer)
        for system, transfers in by_system.items():
            self._rows_under_way += len(transfers)
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

    async def _look_at_all(self, system: str, transfers: Sequence[Transfer]) -> None:
        taken = len(transfers)
        try:
            followed = [transfer for transfer in transfers if follows_job(transfer)]
            reports: Mapping[str, JobReport] = {}
            if followed:
                try:
                    reports = await self._reports(system, followed)
                except ReportsIncomplete as error:
                    reports = error.reports
                    transfers = await self._without_unanswered(transfers, error.unanswered, error)
                except StagecoachError as error:
                    unanswered = {transfer.job_id for transfer in followed}
                    transfers = await self._without_unanswered(transfers, unanswered, error)
            bound = asyncio.Semaphore(LOOKS_AT_ONCE_PER_SYSTEM)

            async def look(transfer: Transfer) -> None:
                async with bound:
                    await self._look(transfer, reports.get(transfer.job_id or ""))

            await asyncio.gather(*(look(transfer) for transfer in transfers))
        except Exception:
            # Leases run out by themselves, so nothing is lost; the log must say what went wrong.
            log.exception("looking at the transfers of %s failed", system)
        finally:
            self._rows_under_way -= taken

    async def _reports(self, system: str, transfers: Sequence[Transfer]) -> Mapping[str, JobReport]:
        keys = [JobKey(transfer.job_id or "", transfer.job_name, transfer.owner) for transfer in transfers]
        return await self._tools.system(system).scheduler.reports(keys)

    async def _without_unanswered(
        self, transfers: Sequence[Transfer], unanswered: Collection[str | None], error: StagecoachError
    ) -> Sequence[Transfer]:
        """A job that could not be asked about is not an unknown job: those transfers are looked at later."""
        answered = []
        for transfer in transfers:
            if follows_job(transfer) and transfer.job_id in unanswered:
                await self._failed_look(transfer, error)
            else:
                answered.append(transfer)
        return answered

    async def _look(self, transfer: Transfer, report: JobReport | None) -> None:
        try:
            await look_at_transfer(self._tools, transfer, report)
        except StaleVersion:
            # Somebody (a cancel, say) moved it while we acted; what we made after their clean-up must go as well.
            await self._tools.transfers.demand_cleaning(transfer.id, self._tools.now())
        except StagecoachError as error:
            await self._failed_look(transfer, error)
        except Exception as error:
            log.exception("transfer %s: the look failed", transfer.id)
            await self._failed_look(transfer, StagecoachError(f"internal error ({type(error).__name__})"))

    async def _failed_look(self, transfer: Transfer, error: StagecoachError) -> None:
        tools = self._tools
        looks = transfer.failed_looks + 1
        hopeless = not error.retryable and not isinstance(error, SystemNotFound) and looks >= LOOKS_BEFORE_FAILING
        try:
            if hopeless and State.FAILED in FOLLOWS[transfer.direction].get(transfer.state, ()):
                failed = advance(transfer, State.FAILED, tools.now(), code=error.code, reason=error.message)
                await tools.transfers.save(failed, error.message, next_check_at=tools.now())
                return
            jitter = tools.random_bits(24) / 2**24
            wait = retry_seconds(looks, tools.settings.worker.poll_min_seconds, jitter)
            log.warning("transfer %s (%s): %s; looking again in %.1f s", transfer.id, transfer.state, error.message, wait)
            await tools.transfers.put_off(replace(transfer, failed_looks=looks), tools.soon(wait))
        except StaleVersion:
            log.info("transfer %s was moved by somebody else", transfer.id)

    async def _keep_buckets(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                if not await reconcile_buckets(self._tools):
                    return
            except Exception:
                log.exception("bucket rules could not be compared with the settings")
            await asyncio.sleep(BUCKET_RETRY_SECONDS)
