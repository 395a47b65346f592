"""Follows the transfers that somebody watches: one poller a process, one query an interval for all of them.

However many watch, and however long nothing happens, no watcher asks the database anything or holds a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from stagecoach.core.errors import StagecoachError
from stagecoach.core.transfer import HistoryEntry, Transfer
from stagecoach.flows.toolbox import Toolbox

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sight:
    """A transfer and its whole story, oldest line first, as they were at one moment."""

    transfer: Transfer
    story: tuple[HistoryEntry, ...]


class Watched:
    """One transfer that somebody watches."""

    def __init__(self) -> None:
        self.latest: Sight | None = None
        self.watchers = 0
        self._changed = asyncio.Event()

    def show(self, sight: Sight | None) -> None:
        """Wake all who wait (None: without news)."""
        self.latest = sight or self.latest
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, seen: Sight | None, seconds: float) -> None:
        """Until there is something newer than ``seen``, or for so long."""
        if self.latest is seen:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)


class Watching:
    """All that is watched in this process."""

    def __init__(self) -> None:
        self._watched: dict[str, Watched] = {}
        self._new = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None
        self.is_closed = False

    @contextlib.asynccontextmanager
    async def watch(self, tools: Toolbox, transfer_id: str) -> AsyncIterator[Watched]:
        """The transfer, seen soon for the first time and then at each change while the context lasts."""
        watched = self._watched.setdefault(transfer_id, Watched())
        watched.watchers += 1
        self._new.set()
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(tools))
        try:
            yield watched
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                del self._watched[transfer_id]

    def close(self) -> None:
        """The process ends: whoever watches is woken to see ``is_closed``."""
        self.is_closed = True
        self._new.set()
        for watched in self._watched.values():
            watched.show(None)

    async def _poll(self, tools: Toolbox) -> None:
        seconds = tools.settings.events.poll_seconds
        look_at_all = time.monotonic()
        while self._watched and not self.is_closed:
            self._new.clear()
            is_due = time.monotonic() >= look_at_all
            if is_due:
                look_at_all = time.monotonic() + seconds
            try:
                await self._look(tools, [name for name, watched in self._watched.items() if is_due or watched.latest is None])
            except StagecoachError as error:
                log.warning("watched transfers could not be looked at: %s", error.message)
            except Exception:
                log.exception("watched transfers could not be looked at")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._new.wait(), max(look_at_all - time.monotonic(), 0.0))

    async def _look(self, tools: Toolbox, transfer_ids: list[str]) -> None:
        if not transfer_ids:
            return  # a watcher came to what is seen already
        known = {name: self._watched[name].latest for name in transfer_ids}
        versions = {name: sight.transfer.version if sight else 0 for name, sight in known.items()}
        for transfer, story in await tools.transfers.changed_since(versions):
            watched = self._watched.get(transfer.id)
            if watched is not None:
                watched.show(Sight(transfer, tuple(story)))
