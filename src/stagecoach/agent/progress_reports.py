"""Says to the service how far copies are: the newest word alone, at most one of a command in two seconds.

Nothing depends on these: one that is lost is made good by the next, and how a command ended is said elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from stagecoach.agent.journal import Journal
from stagecoach.agent.one_sending import Standing
from stagecoach.agent.service import GONE, AgentService
from stagecoach.client.asking import Clock
from stagecoach.client.errors import ServiceError
from stagecoach.wire.agent import ProgressAnswer, ProgressReport

_log = logging.getLogger(__name__)

LEAST_SECONDS = 2.0
_LONGEST_NAME = 4096


class ProgressReports:
    """Of one agent. ``on_gone`` hears of a command that the service knows no more, ``on_answer`` what holds of one; one that
    ``is_due`` waits until the service knows that it has begun."""

    def __init__(
        self,
        service: AgentService,
        instance_id: str,
        journal: Journal,
        clock: Clock,
        is_due: Callable[[str], bool],
        on_gone: Callable[[str], None],
        on_answer: Callable[[str, ProgressAnswer], None],
    ) -> None:
        self._service = service
        self._instance_id = instance_id
        self._journal = journal
        self._clock = clock
        self._is_due = is_due
        self._on_gone = on_gone
        self._on_answer = on_answer
        self._newest: dict[str, Standing] = {}
        self._checks_told: dict[str, dict[str, Any]] = {}
        self._something = asyncio.Event()

    def tell(self, command_id: str, standing: Standing) -> None:
        """In a while."""
        self._newest[command_id] = standing
        self._something.set()

    async def run(self) -> None:
        """For ever. Raises CredentialRefused."""
        while True:
            await self._something.wait()
            self._something.clear()
            newest, self._newest = self._newest, {}
            for command_id, standing in newest.items():
                if self._is_due(command_id):
                    self._newest.setdefault(command_id, standing)
                    self._something.set()
                else:
                    await self._report(command_id, standing)
            self._checks_told = {one: check for one, check in self._checks_told.items() if self._is_unfinished(one)}
            await self._clock.sleep(LEAST_SECONDS)

    def _is_unfinished(self, command_id: str) -> bool:
        entry = self._journal.get(command_id)
        return entry is not None and entry.is_unfinished

    async def _report(self, command_id: str, standing: Standing) -> None:
        entry = self._journal.get(command_id)
        if entry is None or not entry.is_unfinished:
            return
        is_new = standing.check is not None and self._checks_told.get(command_id) != standing.check
        progress = standing.progress
        report = ProgressReport(
            instance_id=self._instance_id,
            attempt=entry.attempt,
            bytes_done=progress.bytes_done,
            bytes_total=progress.bytes_total,
            files_done=progress.files_done,
            files_total=progress.files_total,
            rate_bytes_per_second=max(0.0, min(progress.bytes_per_second, 1e15)),
            current_file=progress.current_file and progress.current_file[:_LONGEST_NAME],
            errors=progress.errors,
            notices=list(standing.notices),
            check=standing.check if is_new else None,
        )
        try:
            answer = await self._service.progress(command_id, report)
        except ServiceError as error:
            if error.status in GONE and error.code != "http_error":
                _log.info("Command %s is no longer this node's (%s).", command_id, error.code)
                self._on_gone(command_id)
            return
        if answer is not None:
            self._on_answer(command_id, answer)
        if is_new and standing.check is not None:
            self._checks_told[command_id] = standing.check
