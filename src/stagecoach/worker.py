"""Keeps transfers moving: takes the rows that are due, looks at the truth outside, and moves each row on.

Level-triggered: it remembers nothing between rounds, so any number of workers may run, and one may die anywhere.
A scheduler is asked once for all followed jobs that are due, by one of all workers at a time, never once per transfer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

from stagecoach.core.errors import StagecoachError, StaleVersion, SystemNotFound, Unavailable
from stagecoach.core.nodes import node_id_of
from stagecoach.core.polling import retry_seconds
from stagecoach.core.state_machine import Event, can
from stagecoach.core.transfer import Transfer
from stagecoach.database.followed_jobs import LIVELY_SECONDS, Sight
from stagecoach.flows.ask_scheduler import Answer, Asked, ask_queue, ask_scheduler, whose_turn
from stagecoach.flows.fail_transfer import end_line, fail
from stagecoach.flows.forget_ended import forget_ended
from stagecoach.flows.look_at_transfer import look_at_transfer, look_between_asks
from stagecoach.flows.reconcile_buckets import reconcile_buckets
from stagecoach.flows.record_act import forget_old_lines
from stagecoach.flows.toolbox import Toolbox

log = logging.getLogger(__name__)

BUCKET_RETRY_SECONDS = 60.0
FORGET_SECONDS = 3600.0
# What trying again does not mend by itself (a login refused, a quota) is often mended by somebody within the half hour
# that so many looks take, and the data of hours is in the staging area.
LOOKS_BEFORE_GIVING_UP = 15
LOOK_SECONDS = 120
STOP_SECONDS = 10
LOOKS_AT_ONCE_PER_SYSTEM = 16
TAKEN_AT_ONCE = 50
# Two requests to the store each. Where more jobs run than this can follow, each is looked at less often.
LOOKS_PER_SECOND = 100
# Longer than a look at what a job told; a transfer that is held for longer is looked at after the next ask.
HELD_SECONDS = 5.0
HELD_LOOK_SECONDS = 0.1


class Worker:
    """One reconciler. ``nudge`` makes the next round begin at once."""

    def __init__(self, tools: Toolbox, name: str, nudged: asyncio.Event) -> None:
        self._tools = tools
        self._name = name
        self._nudged = nudged
        self._under_way: set[asyncio.Task[None]] = set()
        self._rows_under_way: Counter[str] = Counter()
        """By system, so that one that hangs keeps no room from the others."""
        self._jobs_under_way: Counter[str] = Counter()
        self._asks_under_way: set[str] = set()
        self._looks_between_asks = 0
        self._bound_between_asks = asyncio.Semaphore(LOOKS_AT_ONCE_PER_SYSTEM)
        self._ends = False

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``; then what is under way is brought to its end."""
        buckets = asyncio.create_task(self._keep_buckets(stop))
        forgetting = asyncio.create_task(self._forget_ended(stop))
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
            forgetting.cancel()
            await self._end_looks()

    async def round(self) -> int:
        """Take what is due, ask the schedulers whose turn it is, and set all of it going; how many tasks that made."""
        worker = self._tools.settings.worker
        full = [system for system, count in self._rows_under_way.items() if count >= worker.batch_size]
        rows = await self._tools.transfers.claim_due(
            self._name,
            self._tools.now(),
            worker.lease_seconds,
            worker.batch_size,
            without_systems=full,
            without_jobs_of=list(self._tools.systems),
        )
        by_system: dict[str, list[Transfer]] = defaultdict(list)
        for transfer in rows:
            by_system[transfer.system].append(transfer)
        for system, transfers in by_system.items():
            self._rows_under_way[system] += len(transfers)
            self._start(self._look_at_claimed(system, transfers))
        busy = {system for system, count in self._jobs_under_way.items() if count >= worker.batch_size}
        turns = await whose_turn(self._tools)
        asked = [system for system in turns.to_ask if system not in busy | self._asks_under_way]
        await self._look_between_asks([*turns.to_wait, *self._asks_under_way.difference(turns.to_wait)])
        for system in asked:
            self._asks_under_way.add(system)
            self._start(self._ask(system))
        return len(rows) + len(asked)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

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
        self._ends = True
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()

    async def _look_at_claimed(self, system: str, transfers: Sequence[Transfer]) -> None:
        bound = asyncio.Semaphore(LOOKS_AT_ONCE_PER_SYSTEM)
        # Of a cluster's jobs only those come here that need no report.
        answers = await ask_queue(self._tools, system, transfers) if node_id_of(system) is not None else {}

        async def look(transfer: Transfer) -> None:
            try:
                async with bound:
                    await self._look(transfer, answers.get(transfer.id))
            finally:
                self._rows_under_way[system] -= 1

        await asyncio.gather(*(look(transfer) for transfer in transfers))

    async def _ask(self, system: str) -> None:
        """One question about all jobs of the system that are due, then a look at each transfer that has news."""
        try:
            asked = await ask_scheduler(self._tools, system)
        except Exception:
            # The database, most likely; what is due stays due.
            log.exception("system %s: its scheduler could not be asked", system)
            asked = None
        finally:
            self._asks_under_way.discard(system)
        if asked is not None and asked.sights:
            self._jobs_under_way[system] += len(asked.sights)
            try:
                await self._look_at_jobs(asked)
            finally:
                self._jobs_under_way[system] -= len(asked.sights)

    async def _look_between_asks(self, systems: Sequence[str]) -> None:
        """Begin to look at what the lively jobs of ``systems`` have told of themselves; none waits for another's look."""
        room = TAKEN_AT_ONCE - self._looks_between_asks
        tools, now = self._tools, self._tools.now()
        lively = await tools.followed_jobs.lively(systems, now, room) if systems and room > 0 else []
        taken = await tools.transfers.take(lively, self._name, now, tools.settings.worker.lease_seconds) if lively else []
        self._looks_between_asks += len(taken)
        for transfer in taken:
            self._start(self._look_at_lively(transfer))

    async def _look_at_lively(self, transfer: Transfer) -> None:
        try:
            async with self._bound_between_asks:
                await self._guard(transfer, look_between_asks(self._tools, transfer))
        finally:
            self._looks_between_asks -= 1

    async def _look_at_jobs(self, asked: Asked) -> None:
        untaken, taken, held = list(asked.sights), list[Transfer](), list[Sight]()
        taking = asyncio.Lock()
        least_seconds = len(untaken) / LOOKS_PER_SECOND
        lease_seconds = self._tools.settings.worker.lease_seconds

        async def take() -> Transfer | None:
            """The next one; some are leased at a time, so that no lease runs out while its transfer waits."""
            async with taking:
                while untaken and not taken and not self._ends:
                    some, untaken[:TAKEN_AT_ONCE] = untaken[:TAKEN_AT_ONCE], []
                    now = self._tools.now()
                    taken.extend(
                        await self._tools.transfers.take(some, self._name, now, lease_seconds, due_in_seconds=LIVELY_SECONDS)
                    )
                    ours = {transfer.id for transfer in taken}
                    if others := [sight for sight in some if sight.transfer_id not in ours]:
                        # Whom somebody else has moved needs no look of ours.
                        held.extend(await self._tools.followed_jobs.still_due(others, now, LIVELY_SECONDS))
                return taken.pop() if taken else None

        async def look_at_some() -> None:
            try:
                while (transfer := await take()) is not None:
                    await self._look(transfer, asked.answers.get(transfer.id), least_seconds)
            except Exception:
                log.exception("not all transfers with news could be taken; what is due stays due")

        async def look_at_all() -> None:
            await asyncio.gather(*(look_at_some() for _ in range(min(LOOKS_AT_ONCE_PER_SYSTEM, len(untaken)))))

        await look_at_all()
        give_up_at = asyncio.get_running_loop().time() + HELD_SECONDS
        while held and not self._ends and asyncio.get_running_loop().time() < give_up_at:
            # A look between two asks holds them; without this answer it may take a minute until a job's death is seen.
            await asyncio.sleep(HELD_LOOK_SECONDS)
            untaken, held = held, []
            await look_at_all()

    async def _look(self, transfer: Transfer, answer: Answer, least_seconds: float = 0.0) -> None:
        if isinstance(answer, StagecoachError):
            await self._guard(transfer, _cannot_be_asked(answer))
        else:
            await self._guard(transfer, look_at_transfer(self._tools, transfer, answer, least_seconds))

    async def _guard(self, transfer: Transfer, look: Coroutine[Any, Any, None]) -> None:
        """A look whose every failure is noted; it raises nothing."""
        try:
            await self._try_look(transfer, look)
        except Exception:
            # The database, most likely. The lease runs out by itself, so nothing is lost.
            log.exception("transfer %s: the look could not be ended", transfer.id)

    async def _try_look(self, transfer: Transfer, look: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await look
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
            if hopeless and can(transfer, Event.FAILED):
                failed = fail(tools, transfer, error.code, error.message)
                await tools.transfers.save(failed, end_line(failed), next_check_at=tools.now())
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
                await reconcile_buckets(self._tools)
            except Exception:
                log.exception("bucket rules could not be compared with the settings")
            await asyncio.sleep(BUCKET_RETRY_SECONDS)

    async def _forget_ended(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                if forgotten := await forget_ended(self._tools):
                    log.info("forgot %d transfers that ended long ago", forgotten)
                if forgotten := await forget_old_lines(self._tools):
                    log.info("removed %d lines of the audit log that are older than audit_log.keep_days", forgotten)
            except Exception:
                log.exception("old transfers could not be forgotten")
            await asyncio.sleep(FORGET_SECONDS)


async def _cannot_be_asked(error: StagecoachError) -> None:
    raise error


def _mistake(error: Exception) -> Unavailable:
    return Unavailable(f"The service made a mistake while looking at it ({type(error).__name__}); it is logged and tried again.")
