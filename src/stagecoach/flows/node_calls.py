"""The open questions of nodes' agents in this process: each waits until there is something to tell, and not for ever.

Who puts something into a queue wakes the question at once where this process has it; for the others one poller a
process asks the database three times a second about all of them. No question holds a connection while it waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator

from stagecoach.core.errors import StagecoachError, Unavailable
from stagecoach.database.node_commands import NodeCommands

log = logging.getLogger(__name__)

POLL_SECONDS = 0.3


class Call:
    """One agent's open question."""

    def __init__(self) -> None:
        self.has_room = False
        """Whether its agent would take another command."""
        self.is_over = False
        """A newer one of the same agent came, or the process ends."""
        self.news = asyncio.Event()

    async def wait(self, seconds: float) -> bool:
        """Whether there was news within so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.news.wait()
        return self.news.is_set() and not self.is_over

    def end(self) -> None:
        """It is to be answered as things are."""
        self.is_over = True
        self.news.set()


class NodeCalls:
    """All of this process, by node."""

    def __init__(self) -> None:
        self._open: dict[str, Call] = {}
        self._poller: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    @contextlib.contextmanager
    def opened(self, node_id: str, commands: NodeCommands, most: int) -> Iterator[Call]:
        """A question, which takes the place of an earlier one of the same node. Raises Unavailable: ``most`` are open."""
        if node_id not in self._open and len(self._open) >= most:
            raise Unavailable("As many agents as this process takes wait for their answers; ask again in a moment.")
        if (earlier := self._open.pop(node_id, None)) is not None:
            earlier.end()
        call = self._open[node_id] = Call()
        if self._closing.is_set():
            call.end()
        elif self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(commands))
        try:
            yield call
        finally:
            if self._open.get(node_id) is call:
                del self._open[node_id]

    def wake(self, node_id: str) -> None:
        """There may be news for this node."""
        if (call := self._open.get(node_id)) is not None:
            call.news.set()

    def close(self) -> None:
        """The process ends: all are answered now, and whoever comes at once."""
        self._closing.set()
        for call in self._open.values():
            call.end()

    async def ended(self) -> None:
        """After :meth:`close`: when nothing of it uses the database any more."""
        if self._poller is not None:
            await asyncio.wait({self._poller})

    async def _poll(self, commands: NodeCommands) -> None:
        while self._open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._closing.wait()
            if self._closing.is_set():
                return
            waiting = {node_id: call for node_id, call in self._open.items() if not call.news.is_set()}
            with_room = [node_id for node_id, call in waiting.items() if call.has_room]
            without = [node_id for node_id, call in waiting.items() if not call.has_room]
            try:
                for node_id in await commands.nodes_with_news(with_room, without):
                    self.wake(node_id)
            except StagecoachError as error:
                log.warning("the queues of nodes could not be looked at: %s", error.message)
            except Exception:
                log.exception("the queues of nodes could not be looked at")
