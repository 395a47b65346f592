"""A program that lives no longer than the agent, and whose words reach the log without the secrets in them.

The kernel kills it when the thread that started it ends, so it must be started from the agent's main thread: the one
that runs the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stagecoach.core.errors import RcloneUnavailable

_LAUNCH = Path(__file__).with_name("bound_launch.py")
_KEPT_LINES = 20
_LONGEST_LINE_BYTES = 65_536
_SHOWN_CHARACTERS = 500
_STOP_SECONDS = 5.0


class BoundProcess:
    """One run of one program. ``redacted`` is applied to each line before anybody keeps it; ``heard`` gets each after that."""

    def __init__(
        self,
        name: str,
        *,
        redacted: Callable[[str], str],
        log: logging.Logger,
        heard: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._name = name
        self._redacted = redacted
        self._log = log
        self._heard = heard
        self._child: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._last: deque[str] = deque(maxlen=_KEPT_LINES)

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    @property
    def last_words(self) -> str:
        """The last line that it wrote, without secrets."""
        return self._last[-1] if self._last else "it wrote nothing"

    async def start(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        ready: re.Pattern[str],
        start_seconds: float,
    ) -> str:
        """Returns the first group of ``ready`` in the line that says that it serves.

        Raises RcloneUnavailable when it ends or says nothing of the kind in time; it is ended then.
        """
        started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", str(_LAUNCH), str(os.getpid())),
            *command,
            env=dict(environment),
            cwd=directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE_BYTES,
            # Ctrl-C at a terminal is the agent's to act on, in its own order.
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read(self._child, started, ready), name=f"words of {self._name}")
        try:
            async with asyncio.timeout(start_seconds):
                return await started
        except TimeoutError:
            await self.stop()
            raise RcloneUnavailable(f"{self._name} did not start within {start_seconds:g} s: {self.last_words}") from None
        except BaseException:
            await self.stop()
            raise

    async def ended(self) -> int:
        """Waits for its end; the exit code, or minus the signal."""
        if self._child is None:
            return 0
        return await self._child.wait()

    async def stop(self, grace_seconds: float = _STOP_SECONDS) -> None:
        """Ends it, by force when it has not ended after ``grace_seconds``. May be called twice, and of one never started."""
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, _STOP_SECONDS)):
                if not seconds:
                    continue
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(number)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await child.wait()
                        break
        if self._reader is not None:
            with contextlib.suppress(TimeoutError):
                # A grandchild may hold the pipe open; its words are not waited for.
                await asyncio.wait_for(self._reader, _STOP_SECONDS)
            self._reader = None

    async def _read(self, child: asyncio.subprocess.Process, started: asyncio.Future[str], ready: re.Pattern[str]) -> None:
        """Its words, until it closes them."""
        while child.stderr is not None:
            try:
                line = await child.stderr.readline()
            except ValueError:  # longer than the limit: what was read of it is gone, the rest comes next
                continue
            if not line:
                break
            text = line.decode("utf-8", errors="replace").strip()
            shown = self._redacted(text)[:_SHOWN_CHARACTERS]
            self._last.append(shown)
            self._log.info("%s: %s", self._name, shown)
            self._heard(shown)
            if (found := ready.search(text)) is not None and not started.done():
                started.set_result(found.group(1))
        code = await child.wait()
        if not started.done():
            started.set_exception(RcloneUnavailable(f"{self._name} ended with {code} at its start: {self.last_words}"))
