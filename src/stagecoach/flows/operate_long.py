"""Lets an operation on files take its time: as much as one request may take, and not too many at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stagecoach.core.errors import OperationTooLong
from stagecoach.flows.toolbox import System

# What is left of the time when a command on the system ends itself, for the answer's way back.
ANSWER_SECONDS = 1.0


@asynccontextmanager
async def long_operation(system: System, username: str, what: str) -> AsyncIterator[float]:
    """Around it: waits for a turn, and gives the seconds that are left to it. Raises OperationTooLong."""
    limits = system.settings.limits
    end = asyncio.get_running_loop().time() + limits.max_operation_seconds
    try:
        async with (
            asyncio.timeout_at(end),
            system.long_operations.turn(username, of_user=limits.max_operations_per_user, of_all=limits.max_operations),
        ):
            yield max(1.0, end - asyncio.get_running_loop().time() - ANSWER_SECONDS)
    except TimeoutError as error:
        raise OperationTooLong(
            f"{what} did not end within the {limits.max_operation_seconds} s that one request may take; have it done by a "
            "job (transfer, compute).",
            data={"limit_seconds": limits.max_operation_seconds},
        ) from error
