"""The agent itself: asks the service for work again and again, and lives until it is asked to end, or refused."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx

from stagecoach.agent.backoff import Backoff
from stagecoach.agent.checking import CHECK_NETWORK, Checker
from stagecoach.agent.direct import RECEIVE, DirectRoad
from stagecoach.agent.durable_files import write_document
from stagecoach.agent.journal import CommandState, Ending, Entry, Journal, transfer_of
from stagecoach.agent.moving import CANCELLED, Mover
from stagecoach.agent.one_sending import Standing
from stagecoach.agent.parts import PartRule
from stagecoach.agent.progress_reports import ProgressReports
from stagecoach.agent.receiver_address import ReceiverAddress
from stagecoach.agent.reports import Reports
from stagecoach.agent.service import AgentService
from stagecoach.agent.state_directory import Enrolment, StateDirectory
from stagecoach.agent.stopping import Stop
from stagecoach.agent.surroundings import Surroundings, platform_name, version
from stagecoach.agent.work import DISCARD, ENDED_BY_SIGTERM, MOVE, Workshop
from stagecoach.client.asking import Clock
from stagecoach.client.errors import ServiceError
from stagecoach.wire.agent import MAX_RUNNING, MAX_WAIT_SECONDS, Command, PollAnswer, PollRequest, TicketUrl

_log = logging.getLogger(__name__)

MOST_AT_ONCE = 16
"""The service decides how many run; this bounds what it can ask of the machine."""
# Of a service that answers at once although it was asked to wait.
LEAST_POLL_SECONDS = 1.0
CLEANING_SECONDS = 3600.0


class Agent:
    """One node's, with its state directory locked by the caller."""

    def __init__(
        self,
        state: StateDirectory,
        enrolment: Enrolment,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        mover: Mover | None = None,
        checker: Checker | None = None,
        receiver: ReceiverAddress | None = None,
        rule: PartRule | None = None,
        least_free_bytes: int | None = None,
        clock: Clock | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._enrolment = enrolment
        self._transport = transport
        self._clock = clock or Clock()
        self._wall_clock = wall_clock
        self._surroundings = Surroundings(Path(enrolment.send), Path(enrolment.receive), state.path)
        self._journal = Journal(state.commands, wall_clock)
        self._mover = mover or Mover(state.moves, {"fetch": enrolment.receive, "put": enrolment.send})
        places = {"send": Path(enrolment.send), "receive": Path(enrolment.receive)}
        self._checker = checker or Checker(enrolment.server, places)
        self.direct = DirectRoad(
            state,
            enrolment.send,
            enrolment.receive,
            receiver,
            tell=lambda command_id, standing: self._told(command_id, standing),
            rule=rule,
            least_free_bytes=least_free_bytes,
        )
        self._wait_seconds = min(MAX_WAIT_SECONDS, enrolment.poll_seconds)
        self._clean_due = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set. Raises CredentialRefused; in any case what it began has ended when this returns."""
        enrolment = self._enrolment
        async with AgentService(enrolment.server, enrolment.credential, transport=self._transport, clock=self._clock) as service:
            self._workshop = Workshop(
                self._journal,
                self._mover,
                self._checker,
                self.direct,
                self._clock,
                lambda command_id: self._reports.tell(command_id),
                self._wall_clock,
            )
            self._reports = Reports(
                service, enrolment.instance_id, self._journal, Backoff(self._clock), self._workshop.acknowledge, self._refused
            )
            self._progress = ProgressReports(
                service,
                enrolment.instance_id,
                self._journal,
                self._clock,
                self._reports.is_due,
                self._refused,
                self.direct.heed,
            )
            self.direct.secrets.forget_all_but({entry.id for entry in self._journal if entry.is_unfinished})
            await self.direct.start()
            self._take_up_again()
            work = (self._poll(service), self._reports.run(), self._progress.run(), stop.wait())
            tasks = [asyncio.create_task(one) for one in work]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await self._workshop.stop_all()
                await self.direct.stop()
                await asyncio.gather(*tasks, return_exceptions=True)
            for task in done:
                task.result()

    def _take_up_again(self) -> None:
        for entry in self._journal:
            if entry.is_unfinished:
                _log.info("Command %s is taken up again.", entry.id)
                self._workshop.begin(entry.id)
            elif entry.is_open:
                self._reports.tell(entry.id)

    async def _poll(self, service: AgentService) -> None:
        backoff, is_away = Backoff(self._clock), False
        while True:
            self._clean_up_if_due()
            await self._surroundings.look()
            asked_at = self._clock.monotonic()
            try:
                answer = await service.poll(self._request())
            except ServiceError as error:
                if not is_away:
                    _log.warning("No word from the service: %s It is asked again and again.", error.message)
                is_away = True
                self._note_contact(error.message)
                await backoff.pause(error.retry_after_seconds)
                continue
            if is_away:
                _log.info("The service answers again.")
            is_away = False
            backoff.reset()
            self._heed(answer)
            self._note_contact(None)
            took = self._clock.monotonic() - asked_at
            if not answer.commands and took < LEAST_POLL_SECONDS:
                await self._clock.sleep(LEAST_POLL_SECONDS - took)

    def _request(self) -> PollRequest:
        # Who waits for what others send does nothing by himself.
        unfinished = sum(1 for entry in self._journal if entry.is_unfinished and entry.kind != RECEIVE)
        return PollRequest(
            instance_id=self._enrolment.instance_id,
            version=version(),
            platform=platform_name(),
            free_bytes=self._surroundings.free,
            running=[entry.id for entry in self._journal if entry.is_open][:MAX_RUNNING],
            capacity=max(0, MOST_AT_ONCE - unfinished) if self._surroundings.is_writable else 0,
            health=[*self._surroundings.health, *self.direct.health()],
            receiver=self.direct.receiver,
            kinds=[MOVE, DISCARD, CHECK_NETWORK, *self.direct.kinds],
            wait_seconds=self._wait_seconds,
            expiring=[entry.id for entry in self._journal if entry.needs_ticket(self._wall_clock())][:MAX_RUNNING],
        )

    def _heed(self, answer: PollAnswer) -> None:
        # So that a lease never runs out while the service waits for something to happen.
        longest = min(MAX_WAIT_SECONDS, self._enrolment.poll_seconds)
        self._wait_seconds = max(1, min(longest, answer.lease_seconds // 3))
        for command_id in answer.cancel:
            self._cancel(command_id)
        for command_id in answer.unknown:
            self._let_go(command_id)
        for command in answer.commands:
            try:
                self._take(command)
            except OSError as error:
                # Not acknowledged, so it is delivered again.
                _log.error("Command %s cannot be taken: the state directory cannot be written (%s).", command.id, error.strerror)
        for renewed in answer.ticket_urls:
            self._renew_ticket(renewed)
        if answer.rename_to is not None and answer.rename_to != self._enrolment.name:
            renamed = replace(self._enrolment, name=answer.rename_to)
            with contextlib.suppress(OSError):  # said again with the next answer
                self._state.save_enrolment(renamed)
                self._enrolment = renamed

    def _take(self, command: Command) -> None:
        known = self._journal.get(command.id)
        if known is None:
            entry = self._written_down(command)
            _log.info("Command %s is taken.", entry.id)
            self._workshop.begin(entry.id)
            return
        # Delivered again: its acknowledgement was lost, or its ticket has a new address.
        if known.is_unfinished:
            self._keep_secrets(known, command)
        state = CommandState.ENDED if known.ending is not None else known.state
        life = self._journal.ticket_life(command.ticket_seconds) if command.ticket_url is not None else {}
        self._journal.change(known.id, attempt=command.attempt, state=state, **life)
        self._reports.tell(known.id)

    def _renew_ticket(self, renewed: TicketUrl) -> None:
        entry = self._journal.get(renewed.id)
        if entry is None or not entry.is_unfinished or entry.kind != MOVE:
            return
        try:
            self._mover.keep_ticket_url(entry, renewed.ticket_url)
            self._journal.change(entry.id, **self._journal.ticket_life(renewed.ticket_seconds))
        except OSError as error:
            # Asked for again with the next question.
            _log.error("The ticket of command %s cannot be renewed (%s).", entry.id, error.strerror)

    def _written_down(self, command: Command) -> Entry:
        entry = Entry(command.id, command.kind, command.attempt, 0, 0.0, transfer_id=transfer_of(command))
        self._keep_secrets(entry, command)
        return self._journal.take(command)

    def _keep_secrets(self, entry: Entry, command: Command) -> None:
        if command.secret is not None:
            self.direct.secrets.keep(entry.id, command.secret)
        if entry.kind == MOVE and command.ticket_url is not None:
            self._mover.keep_ticket_url(entry, command.ticket_url)

    def _cancel(self, command_id: str) -> None:
        entry = self._journal.get(command_id)
        if entry is not None and entry.is_unfinished:
            self._workshop.stop(command_id, Stop.CANCELLED)
            return
        with contextlib.suppress(OSError):  # asked again with the next answer
            if entry is None:
                # Delivered, and never arrived: the service waits for a word all the same.
                self._journal.take(Command(id=command_id, kind=MOVE, attempt=1, spec={}))
                ending = Ending(ENDED_BY_SIGTERM, CANCELLED, "The command was cancelled before it reached the node.")
                self._journal.change(command_id, state=CommandState.ENDED, ending=ending)
            else:
                self._journal.change(command_id, state=CommandState.ENDED)
            self._reports.tell(command_id)

    def _let_go(self, command_id: str) -> None:
        """The service says that it ended, or never was this node's."""
        entry = self._journal.get(command_id)
        if entry is None or not entry.is_open:
            return
        if entry.is_unfinished:
            self._workshop.stop(command_id, Stop.GONE)
            return
        # Perhaps by our own report, whose answer is still under way or was lost. What may go on is kept.
        with contextlib.suppress(OSError):
            self._workshop.acknowledge(command_id)
            self._reports.forget(command_id)

    def _refused(self, command_id: str) -> None:
        """The service does not take a report of it."""
        self._workshop.stop(command_id, Stop.GONE)
        entry = self._journal.get(command_id)
        if entry is not None and entry.ending is not None:
            self._workshop.drop(command_id)

    def _told(self, command_id: str, standing: Standing) -> None:
        self._progress.tell(command_id, standing)

    def _clean_up_if_due(self) -> None:
        if self._clock.monotonic() >= self._clean_due:
            self._clean_due = self._clock.monotonic() + CLEANING_SECONDS
            with contextlib.suppress(OSError):  # tried again in an hour
                self._workshop.clean_up(self._wall_clock())

    def _note_contact(self, trouble: str | None) -> None:
        document = {
            "pid": os.getpid(),
            "version": version(),
            "at": self._wall_clock(),
            "trouble": trouble,
            "health": [*self._surroundings.health, *self.direct.health()],
        }
        with contextlib.suppress(OSError):  # for people's eyes alone
            write_document(self._state.status_file, document)
