"""One command under way, as whoever carries it out sees it: when to stop and why, and what to say meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum


class Stop(Enum):
    """Why a command is stopped."""

    CANCELLED = "cancelled"
    GONE = "gone"
    """The service does not know it any more."""
    AGENT_ENDS = "agent ends"


@dataclass
class Work:
    """``why`` is set before ``stop`` is."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    why: Stop | None = None
    task: asyncio.Task[None] | None = None
    started: Callable[[], None] = lambda: None
    """To be called when it has begun in truth; writes it down and tells the service. Raises OSError."""
    sent: Callable[[], None] = lambda: None
    """To be called before the first byte goes to somebody else; writes it down. Raises OSError."""

    async def stopped_within(self, seconds: float) -> bool:
        """Waits so long for the stop."""
        try:
            async with asyncio.timeout(seconds):
                await self.stop.wait()
        except TimeoutError:
            return False
        return True
