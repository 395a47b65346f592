"""Has the mover carry out one command ``move``, as a child process that lives in the journal while it runs.

The mover's state directory belongs to the transfer and not to the command: another command for the same transfer, after
a failure that passed, goes on from the same journal.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from stagecoach.agent import durable_files, launch
from stagecoach.agent.journal import Ending, Entry, ProcessMark
from stagecoach.agent.processes import GRACE_SECONDS, mark_of, signal_group
from stagecoach.mover import stagecoach_mover
from stagecoach.mover.stagecoach_mover import Failed

# The mover gets these of the agent's own variables and no other: one may hold an enrolment token.
_ENVIRONMENT = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "STAGECOACH_STALL_SECONDS"),
)
# As long as a service may keep what a failed transfer has staged, so that it can go on.
KEEP_UNFINISHED_SECONDS = 7 * 24 * 3600.0
DISCARDING_SECONDS = 600.0
CANCELLED = "cancelled"

OnStart = Callable[[ProcessMark | None], None]
"""Writes the process down (None: it cannot be told); it does nothing before this returns."""


class Mover:
    """What the agent knows of the mover. ``places`` are the directories for ``fetch`` and ``put``."""

    def __init__(self, moves: Path, places: dict[str, str], python: str = sys.executable) -> None:
        self._moves = moves
        self._places = places
        self._python = python

    def keep_ticket_url(self, entry: Entry, url: str) -> None:
        """Where the mover reads it, also while it runs. Raises OSError."""
        directory = self._directory(entry)
        directory.mkdir(mode=0o700, exist_ok=True)
        durable_files.write_text(directory / "ticket-url", url)

    async def run(self, entry: Entry, on_start: OnStart, stop: asyncio.Event) -> Ending:
        """Until the mover ends, which it is asked to when ``stop`` is set. Raises OSError when it cannot be started."""
        directory, direction = self._directory(entry), entry.spec.get("direction")
        if direction not in self._places:
            return Ending(1, "command_unsupported", "The command says no direction that this agent knows; update the agent.")
        directory.mkdir(mode=0o700, exist_ok=True)
        receipt = directory / "receipt.json"
        if not _is_good(receipt):
            # Or an earlier run's failure would be taken for this one's.
            durable_files.remove(receipt)
        arguments = [direction, "--ticket-url-file", str(directory / "ticket-url"), "--state-directory", str(directory)]
        process = await self._start(directory, [*arguments, "--place", self._places[direction]], on_start)
        ended, stopped = asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not ended.done():
                await _end(process)
        return _ending(await ended, receipt)

    async def _start(self, directory: Path, arguments: list[str], on_start: OnStart) -> asyncio.subprocess.Process:
        descriptor = os.open(directory / "output.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *(self._python, "-I", "-S", launch.__file__, stagecoach_mover.__file__, *arguments),
                cwd="/",
                env=mover_environment(),
                stdin=subprocess.PIPE,
                stdout=descriptor,
                stderr=descriptor,
                # A signal to the agent's group, as of Ctrl-C, is the agent's alone; and all of it can be ended at once.
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        assert process.stdin is not None  # noqa: S101 - it was asked for above
        try:
            on_start(mark_of(process.pid))
            process.stdin.write(launch.GO)
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended by itself, and says so by its exit code
        except BaseException:
            await _end(process)
            raise
        finally:
            process.stdin.close()
        return process

    async def discard(self, transfer_id: str) -> None:
        """Removes what a fetch has left hidden, and the journal: the transfer does not go on. Raises Failed, OSError."""
        directory = self._moves / transfer_id
        if not directory.is_dir():
            return
        arguments = ("discard", "--state-directory", str(directory), "--place", self._places["fetch"])
        process = await asyncio.create_subprocess_exec(
            *(self._python, "-I", "-S", stagecoach_mover.__file__, *arguments),
            cwd="/",
            env=mover_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            exit_code = await asyncio.wait_for(process.wait(), DISCARDING_SECONDS)
        except TimeoutError:
            exit_code = await _end(process)
        except BaseException:
            await _end(process)
            raise
        if exit_code != 0:
            raise Failed("discard_failed", f"The mover could not remove what it had left hidden (exit code {exit_code}).")
        self.forget(transfer_id)

    def forget(self, transfer_id: str) -> None:
        """It is done; nothing is hidden any more."""
        shutil.rmtree(self._moves / transfer_id, ignore_errors=True)

    def old_transfers(self, now: float) -> list[str]:
        """Whose journals nobody has touched for as long as they are kept."""
        found = [path for path in self._moves.iterdir() if re.fullmatch("[0-9a-z]{1,64}", path.name)]
        return [path.name for path in found if now - _last_change(path) > KEEP_UNFINISHED_SECONDS]

    def _directory(self, entry: Entry) -> Path:
        return self._moves / (entry.transfer_id or entry.id)


def mover_environment() -> dict[str, str]:
    """What of the agent's own a mover needs to know."""
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}


async def _end(process: asyncio.subprocess.Process) -> int:
    """Asked first, so that it can write its journal."""
    signal_group(process.pid, signal.SIGTERM)
    try:
        return await asyncio.wait_for(process.wait(), GRACE_SECONDS)
    except TimeoutError:
        signal_group(process.pid, signal.SIGKILL)
        return await process.wait()


def _is_good(receipt: Path) -> bool:
    return (durable_files.read_document(receipt) or {}).get("ok") is True


def _ending(exit_code: int, receipt: Path) -> Ending:
    said = durable_files.read_document(receipt) or {}
    if exit_code == 0:
        return Ending(0, None, str(said.get("message") or "")[:1000])
    if said.get("ok") is False and said.get("code"):
        return Ending(exit_code, str(said["code"])[:64], str(said.get("message") or "")[:1000])
    if exit_code < 0:
        name = signal.Signals(-exit_code).name if -exit_code in set(signal.Signals) else str(-exit_code)
        code = "interrupted" if name in {"SIGKILL", "SIGTERM", "SIGHUP", "SIGINT"} else "mover_error"
        return Ending(128 - exit_code, code, f"The mover on the node was ended by {name} before it could say why.")
    code = "interrupted" if exit_code == os.EX_TEMPFAIL else "mover_error"
    return Ending(exit_code, code, f"The mover on the node ended with exit code {exit_code} and left no receipt.")


def _last_change(directory: Path) -> float:
    times = [directory.stat().st_mtime, *(path.stat().st_mtime for path in directory.iterdir())]
    return max(times, default=time.time())
