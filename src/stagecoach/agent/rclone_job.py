"""One job of a running rclone: begun, asked after, ended. Nothing that is raised holds a key."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from stagecoach.core.errors import CommandFailed, RcloneUnavailable

log = logging.getLogger(__name__)

_STOP_SECONDS = 10.0
_STOP_LOOK_SECONDS = 0.1


class Rclone(Protocol):
    """The running rclone, as far as jobs ask it."""

    async def call(self, method: str, parameters: Mapping[str, object] | None = None) -> dict[str, Any]: ...
    def redacted(self, text: str) -> str: ...
    def admit(self, url: str) -> None: ...
    def refuse(self, url: str) -> None: ...


@dataclass(frozen=True, slots=True)
class JobId:
    """One job of one run of rclone: another run counts from 1 again, so a number alone may be a stranger's."""

    number: int
    execute_id: str
    group: str


async def begin(rclone: Rclone, method: str, parameters: Mapping[str, object]) -> JobId:
    """Raises RcloneUnavailable, and CommandFailed for what it will not do."""
    # rclone keeps each remote with the settings of its first use, and those are no part of what it finds it by.
    await rclone.call("fscache/clear")
    group = f"stagecoach-{secrets.token_hex(8)}"
    answer = await rclone.call(method, {**parameters, "_async": True, "_group": group})
    return JobId(int(answer["jobid"]), str(answer["executeId"]), group)


async def status_of(rclone: Rclone, job: JobId) -> dict[str, Any]:
    """Raises RcloneUnavailable when rclone was started again since and has forgotten it."""
    try:
        status = await rclone.call("job/status", {"jobid": job.number})
    except CommandFailed as failure:
        raise RcloneUnavailable(f"rclone has forgotten the job: {failure.message}") from failure
    if status.get("executeId") != job.execute_id:
        raise RcloneUnavailable("rclone was started again, and has forgotten the job.")
    return status


async def end(rclone: Rclone, job: JobId, clock: Callable[[], float]) -> None:
    """Stops it and waits, but not for ever: one that waits for a dead receiver ends at its own timeouts."""
    await rclone.call("job/stop", {"jobid": job.number})
    deadline = clock() + _STOP_SECONDS
    while clock() < deadline:
        if (await status_of(rclone, job)).get("finished"):
            await rclone.call("core/stats-delete", {"group": job.group})
            return
        await asyncio.sleep(_STOP_LOOK_SECONDS)
    log.warning("job %s of rclone does not end at once; it ends at its own timeouts", job.number)


async def abandon(rclone: Rclone, job: JobId, clock: Callable[[], float]) -> None:
    """Stops it for somebody who was cancelled himself; an rclone that is gone has no jobs."""
    try:
        await asyncio.shield(end(rclone, job, clock))
    except (RcloneUnavailable, CommandFailed) as failure:
        log.info("a cancelled job of rclone: %s", failure.message)
