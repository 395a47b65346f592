"""Says to the service how commands stand, as often as it takes: what has ended stays in the journal until it is acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from stagecoach.agent.backoff import Backoff
from stagecoach.agent.journal import CommandState, Entry, Journal
from stagecoach.agent.service import GONE, AgentService
from stagecoach.client.errors import ServiceError
from stagecoach.wire.agent import EndedReport, StartedReport

_log = logging.getLogger(__name__)

OnAnswer = Callable[[str], None]
"""Hears of which command the end is acknowledged, or that it is no longer ours."""


class Reports:
    """What is still to be said, at most one thing a command: its end goes before its beginning."""

    def __init__(
        self,
        service: AgentService,
        instance_id: str,
        journal: Journal,
        backoff: Backoff,
        on_acknowledged: OnAnswer,
        on_gone: OnAnswer,
    ) -> None:
        self._service = service
        self._instance_id = instance_id
        self._journal = journal
        self._backoff = backoff
        self._on_acknowledged = on_acknowledged
        self._on_gone = on_gone
        self._due: dict[str, None] = {}
        self._something = asyncio.Event()

    def tell(self, command_id: str) -> None:
        """How it stands now, in a while at the latest."""
        self._due[command_id] = None
        self._something.set()

    def is_due(self, command_id: str) -> bool:
        """Whether the service does not know yet how it stands."""
        return command_id in self._due

    def forget(self, command_id: str) -> None:
        """The service does not want to know."""
        self._due.pop(command_id, None)

    async def run(self) -> None:
        """For ever. Raises CredentialRefused."""
        while True:
            await self._something.wait()
            self._something.clear()
            for command_id in list(self._due):
                try:
                    await self._report(command_id)
                except ServiceError as error:
                    if error.status in GONE and error.code != "http_error":
                        self._take_leave(command_id, error)
                        continue
                    # All of them go the same way: what kept this one would keep the others.
                    await self._wait("The service does not take reports (%s); they are kept.", error.message)
                    break
                except OSError as error:
                    await self._wait("The journal cannot be written (%s); what is in it is reported again.", error.strerror)
                    break
                self._backoff.reset()

    async def _wait(self, why: str, detail: str | None) -> None:
        self._something.set()
        _log.warning(why, detail)
        await self._backoff.pause()

    async def _report(self, command_id: str) -> None:
        entry = self._journal.get(command_id)
        if entry is None or not entry.is_open:
            self._due.pop(command_id, None)
            return
        if entry.ending is None:
            if entry.state is CommandState.RUNNING:
                await self._service.started(entry.id, StartedReport(instance_id=self._instance_id, attempt=entry.attempt))
        else:
            await self._service.ended(entry.id, self._ended(entry))
            self._on_acknowledged(entry.id)
        # It may have moved on while this was said.
        if entry.ending is not None or self._journal.get(command_id) == entry:
            self._due.pop(command_id, None)

    def _ended(self, entry: Entry) -> EndedReport:
        assert entry.ending is not None  # noqa: S101 - who calls has looked
        return EndedReport(
            instance_id=self._instance_id,
            attempt=entry.attempt,
            exit_code=entry.ending.exit_code,
            code=entry.ending.code,
            message=entry.ending.message,
            result=entry.ending.result,
        )

    def _take_leave(self, command_id: str, error: ServiceError) -> None:
        _log.info("Command %s is no longer this node's (%s).", command_id, error.code)
        self._due.pop(command_id, None)
        self._on_gone(command_id)
