"""Carries out the commands that were taken, each from wherever it stands, and writes down how it ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from stagecoach.agent.checking import CHECK_NETWORK, Checker
from stagecoach.agent.direct import RECEIVE, SEND, DirectRoad
from stagecoach.agent.journal import CommandState, Ending, Entry, Journal, ProcessMark
from stagecoach.agent.moving import CANCELLED, Mover
from stagecoach.agent.processes import GRACE_SECONDS, KILLED_SECONDS, end_orphan
from stagecoach.agent.stopping import Stop, Work
from stagecoach.client.asking import Clock
from stagecoach.mover.stagecoach_mover import Failed

_log = logging.getLogger(__name__)

MOVE = "move"
DISCARD = "discard"
ENDED_BY_SIGTERM = 143
JOURNAL_SECONDS = 5.0
# Of a service that gives no other way to a ticket the old one is tried.
TICKET_LOOKS, TICKET_LOOK_SECONDS = 300, 0.5


class Workshop:
    """The commands under way. ``on_change`` hears of each that has started or ended."""

    def __init__(
        self,
        journal: Journal,
        mover: Mover,
        checker: Checker,
        direct: DirectRoad,
        clock: Clock,
        on_change: Callable[[str], None],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._wall_clock = wall_clock
        self._journal = journal
        self._mover = mover
        self._checker = checker
        self._direct = direct
        self._clock = clock
        self._on_change = on_change
        self._works: dict[str, Work] = {}
        self._discarding: set[asyncio.Task[object]] = set()

    def begin(self, command_id: str) -> None:
        """Or go on with it."""
        work = self._works[command_id] = Work()
        work.task = asyncio.create_task(self._carry_out(command_id, work), name=command_id)

    def stop(self, command_id: str, why: Stop) -> None:
        """Nothing where it is not under way (any more)."""
        work = self._works.get(command_id)
        if work is not None:
            # What is gone stays so; only the agent's own end must not hide that it was cancelled.
            work.why = why if work.why in {None, Stop.AGENT_ENDS} else work.why
            work.stop.set()

    async def stop_all(self) -> None:
        """The agent ends: the movers write their journals, and what they have not done is still to be done."""
        for command_id in list(self._works):
            self.stop(command_id, Stop.AGENT_ENDS)
        tasks = {work.task for work in self._works.values() if work.task is not None} | self._discarding
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE_SECONDS + KILLED_SECONDS)

    def drop(self, command_id: str) -> None:
        """It has ended, and the service will not have it: nothing of it is kept."""
        if self._journal.get(command_id) is not None:
            self._later(self._drop(command_id))

    def acknowledge(self, command_id: str) -> None:
        """The service knows how it ended. Raises OSError."""
        if self._journal.get(command_id) is None:
            return
        entry = self._journal.change(command_id, state=CommandState.ACKNOWLEDGED)
        is_done = entry.ending is not None and entry.ending.code is None
        if is_done and entry.transfer_id is not None and not self._is_wanted(entry.transfer_id):
            self._mover.forget(entry.transfer_id)

    def clean_up(self, now: float) -> None:
        """Forgets what is old: commands, and what transfers that never went on have left."""
        self._journal.forget_old()
        self._direct.forget_old(now)
        for transfer_id in {*self._mover.old_transfers(now), *self._direct.arrivals.old_transfers(now)}:
            if not self._is_wanted(transfer_id):
                self._later(self._discard(transfer_id))

    async def _carry_out(self, command_id: str, work: Work) -> None:
        try:
            entry = self._journal.get(command_id)
            if entry is None:
                return
            if entry.process is not None and not await end_orphan(entry.process, self._clock.sleep):
                _log.error("Process %d of command %s does not end.", entry.process.pid, command_id)
            await self._await_turn(entry, work)
            stopped = Ending(ENDED_BY_SIGTERM, "interrupted", "The command was stopped before it began.")
            ending = stopped if work.stop.is_set() else await self._ending_of(entry, work)
            await self._settle(entry, work, ending)
        except Exception as error:
            # Nobody may wait for ever for a command that nothing works on.
            _log.exception("Command %s cannot be carried out.", command_id)
            ending = Ending(1, "agent_error", f"The agent on the node failed ({type(error).__name__}); its log says more.")
            await self._note_ending(command_id, ending)
        finally:
            self._works.pop(command_id, None)

    async def _await_turn(self, entry: Entry, work: Work) -> None:
        # Two that work at the same thing would stand in each other's way.
        earlier = [(self._journal.get(command_id), other) for command_id, other in self._works.items()]
        tasks = []
        for before, other in earlier:
            if before is not None and other.task is not None and _is_in_the_way(before, entry):
                if before.kind == RECEIVE:
                    # It never ends by itself; what comes after it means its end.
                    self.stop(before.id, Stop.CANCELLED)
                tasks.append(other.task)
        stopped = asyncio.create_task(work.stop.wait())
        for task in tasks:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()

    async def _ending_of(self, entry: Entry, work: Work) -> Ending:
        if entry.kind == DISCARD and entry.transfer_id is not None:
            path = entry.spec.get("targetPath")
            trouble = await self._discard_of(entry, path if isinstance(path, str) else None)
            if trouble is not None:
                return Ending(1, "discard_failed", f"{trouble} It is tried again in seven days."[:1000])
            return Ending(0, None, "What the transfer had left on the node was removed.")
        if entry.kind == CHECK_NETWORK:
            self._journal.change(entry.id, state=CommandState.RUNNING)
            self._on_change(entry.id)
            return await self._checker.run(entry.spec, work.stop)
        if self._direct.knows(entry.kind):
            return await self._by_direct_road(entry, work)
        if entry.kind != MOVE:
            return Ending(1, "command_unsupported", f"This agent does not know the command {entry.kind[:32]!r}; update it.")

        def on_start(process: ProcessMark | None) -> None:
            self._journal.change(entry.id, state=CommandState.RUNNING, process=process)
            self._on_change(entry.id)

        _log.info("Command %s begins: %s of transfer %s.", entry.id, entry.spec.get("direction"), entry.transfer_id)
        try:
            if entry.transfer_id is not None:
                # Of the direct road, if the transfer had begun to go there: its folder has the name of the hidden file.
                await self._direct.discard(entry.transfer_id)
            if not await self._has_ticket(entry.id, work):
                return Ending(ENDED_BY_SIGTERM, "interrupted", "The command was stopped before it began.")
            return await self._mover.run(entry, on_start, work.stop)
        except Failed as failed:
            return Ending(1, failed.code, failed.message[:1000])
        except OSError as error:
            return Ending(1, "interrupted", f"The agent could not start the mover ({error.strerror}).")

    async def _has_ticket(self, command_id: str, work: Work) -> bool:
        """Whether it may begin: one that has waited for longer than the way to its ticket works is given another one, which
        is asked for meanwhile. False: it is to stop."""
        for _ in range(TICKET_LOOKS):
            entry = self._journal.get(command_id)
            if entry is None or entry.ticket_until is None or self._wall_clock() < entry.ticket_until:
                break
            if await work.stopped_within(TICKET_LOOK_SECONDS):
                return False
        return True

    async def _by_direct_road(self, entry: Entry, work: Work) -> Ending:
        def started() -> None:
            self._journal.change(entry.id, state=CommandState.RUNNING)
            self._on_change(entry.id)

        def sent() -> None:
            self._journal.change(entry.id, has_sent=True)

        work.started, work.sent = started, sent
        _log.info("Command %s begins: %s of transfer %s.", entry.id, entry.kind, entry.transfer_id)
        try:
            return await self._direct.run(entry, work)
        except OSError as error:
            return Ending(1, "interrupted", f"The node's disk failed ({error.strerror or type(error).__name__}).")

    async def _settle(self, entry: Entry, work: Work, ending: Ending) -> None:
        is_done = ending.code is None
        if work.why is Stop.AGENT_ENDS and not is_done:
            _log.info("Command %s is left for the next start of the agent.", entry.id)
            self._journal.change(entry.id, state=CommandState.TAKEN, process=None)
            return
        if work.why is Stop.GONE:
            _log.info("Command %s is no longer this node's; what it left is removed.", entry.id)
            await self._drop(entry.id)
            return
        if work.why is Stop.CANCELLED and not is_done:
            if entry.kind == MOVE:
                trouble = await self._discard_of(entry)
                words = f"The command was cancelled. {trouble or 'What it had done was removed.'}"
                ending = Ending(ENDED_BY_SIGTERM, CANCELLED, words[:1000])
            else:
                # What has arrived of a direct transfer stays, until it is discarded by a command of its own.
                ending = Ending(ENDED_BY_SIGTERM, CANCELLED, "The command was cancelled.", ending.result)
        await self._note_ending(entry.id, ending)

    async def _note_ending(self, command_id: str, ending: Ending) -> None:
        if self._journal.get(command_id) is None:
            return  # forgotten meanwhile
        _log.info("Command %s ended: %s %s", command_id, ending.code or "done.", ending.message)
        while True:
            try:
                self._journal.change(command_id, state=CommandState.ENDED, process=None, ending=ending)
                self._direct.secrets.forget(command_id)
                break
            except OSError as error:
                _log.error("The journal cannot be written (%s); tried again.", error.strerror)
                await self._clock.sleep(JOURNAL_SECONDS)
        self._on_change(command_id)

    async def _drop(self, command_id: str) -> None:
        entry = self._journal.get(command_id)
        if entry is None:
            return
        try:
            self._journal.forget(command_id)
            self._direct.secrets.forget(command_id)
        except OSError as error:
            _log.error("Command %s cannot be forgotten (%s).", command_id, error.strerror)
        if entry.kind == MOVE:
            await self._discard_of(entry)

    async def _discard_of(self, entry: Entry, target_path: str | None = None) -> str | None:
        """Why it could not be removed, in a sentence."""
        if entry.transfer_id is None or self._is_wanted(entry.transfer_id, but=entry.id):
            return None
        return await self._discard(entry.transfer_id, target_path)

    async def _discard(self, transfer_id: str, target_path: str | None = None) -> str | None:
        troubles = []
        for remove in (self._mover.discard, partial(self._direct.discard, target_path=target_path)):
            try:
                await remove(transfer_id)
            except Failed as failed:
                troubles.append(failed.message)
            except OSError as error:
                troubles.append(f"What the transfer has left cannot be removed ({error.strerror or type(error).__name__}).")
        for trouble in troubles:
            # Tried again when it is old.
            _log.error("Transfer %s: %s", transfer_id, trouble)
        return " ".join(troubles) or None

    def _is_wanted(self, transfer_id: str, but: str = "") -> bool:
        return any(entry.transfer_id == transfer_id and entry.is_unfinished and entry.id != but for entry in self._journal)

    def _later(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)


def _is_in_the_way(other: Entry, entry: Entry) -> bool:
    """Whether an earlier one has to end first. A sender needs a receiver to run, be it on the same node."""
    is_earlier = other.transfer_id == entry.transfer_id is not None and other.number < entry.number
    return is_earlier and not (other.kind == RECEIVE and entry.kind == SEND)
