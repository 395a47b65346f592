"""The agent's own ``rclone rcd``: found, started on loopback with a new password each time, guarded, asked, ended.

Its password is in its environment, where ``ps`` does not show it. It reads none of the user's own settings, starts again
by itself a bounded number of times, and dies with the agent. All that is asked of it passes the gate first, and all that
it says loses its secrets before anybody keeps it: rclone's error replies repeat what they were asked, keys included.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from stagecoach.agent.bound_process import BoundProcess
from stagecoach.agent.rclone_gate import require_allowed, secrets_in
from stagecoach.agent.rclone_program import rclone_environment, usable_rclone
from stagecoach.core.errors import CommandFailed, RcloneUnavailable
from stagecoach.core.redaction import Redaction

log = logging.getLogger(__name__)

_USER = "stagecoach"
_SERVES = re.compile(r"Serving remote control on (http://127\.0\.0\.1:\d+)/")
_START_SECONDS = 20.0
_ANSWER_SECONDS = 30.0
_MAX_STARTS = 5
_STARTS_WINDOW_SECONDS = 300.0
_MAX_SHOWN_CHARACTERS = 1_000
# Nobody waits long for a tried connection, and few tries are made at the lowest level: trying again is the agent's.
_FLAGS = ("--contimeout", "15s", "--low-level-retries", "3", "--rc-job-expire-duration", "24h", "--stats", "0")


class RcloneProcess:
    """Runs between ``start`` and ``stop``; an async context manager does both.

    ``roots`` are the directories that rclone may be asked to read from. Start it on the agent's main thread.
    """

    def __init__(
        self,
        directory: Path,
        *,
        roots: Sequence[Path],
        clock: Callable[[], float] = time.monotonic,
        max_starts: int = _MAX_STARTS,
    ) -> None:
        self._directory = directory.absolute()
        self._roots = tuple(roots)
        self._clock = clock
        self._max_starts = max_starts
        self._served: set[str] = set()
        self._known: set[str] = set()
        self._redaction = Redaction()
        self._process: BoundProcess | None = None
        self._client: httpx.AsyncClient | None = None
        self._guard: asyncio.Task[None] | None = None
        self._starts: deque[float] = deque(maxlen=max_starts)
        self._serving = asyncio.Event()
        self._given_up = ""

    @property
    def pid(self) -> int | None:
        """Of rclone, while it runs."""
        return self._process.pid if self._process is not None else None

    @property
    def has_given_up(self) -> bool:
        """It has ended too often, or was stopped, and is not started again."""
        return bool(self._given_up)

    async def start(self) -> None:
        """Returns when it answers. Raises SettingsError without a usable rclone, RcloneUnavailable when it does not start."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._spawn()
        self._guard = asyncio.create_task(self._keep_alive(), name="guard of rclone")

    async def stop(self) -> None:
        """Ends it with its jobs. May be called twice."""
        if self._guard is not None:
            self._guard.cancel()
            await asyncio.wait([self._guard])
            self._guard = None
        await self._end()
        self._given_up = self._given_up or "it was stopped"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def call(self, method: str, parameters: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Its answer. While it starts again, waits for that.

        Raises PathRefused or PermissionRefused before it is asked, RcloneUnavailable when it does not answer, and
        CommandFailed, with its own words but without secrets, when it answers that it cannot.
        """
        asked = dict(parameters or {})
        require_allowed(method, asked, self._roots, self._served)
        self.keep_secret(*secrets_in(asked))
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._serving.wait()
        except TimeoutError:
            raise RcloneUnavailable(f"rclone does not run: {self._given_up or 'it is being started'}.") from None
        if self._given_up or self._client is None:
            raise RcloneUnavailable(f"rclone does not run: {self._given_up}.")
        try:
            answer = await self._client.post(f"/{method}", json=asked)
            told = answer.json()
        except httpx.HTTPError as error:
            raise RcloneUnavailable(f"rclone does not answer {method}: {self.redacted(repr(error))}") from None
        except ValueError:
            raise RcloneUnavailable(f"rclone answers {method} with {answer.status_code} and no JSON.") from None
        if answer.status_code != httpx.codes.OK:
            # Only its sentence: beside it stands the whole question, keys included.
            sentence = told.get("error") if isinstance(told, dict) else None
            raise CommandFailed(f"rclone: {self.redacted(str(sentence or answer.status_code))}", data={"method": method})
        return told if isinstance(told, dict) else {}

    def admit(self, url: str) -> None:
        """The address of a server of the agent's own, from which may be read until :meth:`refuse`. Its path is a secret."""
        self.keep_secret(url.rstrip("/").rpartition("/")[2])
        self._served.add(url)

    def refuse(self, url: str) -> None:
        """It is gone."""
        self._served.discard(url)

    def keep_secret(self, *known: str) -> None:
        """From now on none of these stands in what :meth:`redacted` gives back."""
        if new := set(known) - self._known:
            self._known |= new
            self._redaction = Redaction(self._known)

    def redacted(self, text: str) -> str:
        """The text without the secrets of any question so far, of bounded length."""
        return self._redaction.redacted(text)[:_MAX_SHOWN_CHARACTERS]

    async def _spawn(self) -> None:
        binary, password = await usable_rclone(), secrets.token_urlsafe(32)
        self.keep_secret(password)
        self._starts.append(self._clock())
        process = BoundProcess("rclone", redacted=self.redacted, log=log)
        base_url = await process.start(
            [binary, "rcd", "--rc-addr", "127.0.0.1:0", *_FLAGS],
            environment=rclone_environment(os.environ, self._directory, RCLONE_RC_USER=_USER, RCLONE_RC_PASS=password),
            directory=self._directory,
            ready=_SERVES,
            start_seconds=_START_SECONDS,
        )
        self._process = process
        # Loopback, so no proxy of the surroundings has a say.
        self._client = httpx.AsyncClient(
            base_url=base_url, auth=(_USER, password), timeout=_ANSWER_SECONDS, trust_env=False, follow_redirects=False
        )
        self._serving.set()

    async def _keep_alive(self) -> None:
        """Starts it again when it ends, unless it has ended too often of late."""
        while self._process is not None:
            code = await self._process.ended()
            self._serving.clear()
            log.warning("rclone ended with %s: %s", code, self._process.last_words)
            await self._end()
            while self._process is None:
                if len(self._starts) == self._max_starts and self._clock() - self._starts[0] < _STARTS_WINDOW_SECONDS:
                    self._given_up = f"it ended {self._max_starts} times within {_STARTS_WINDOW_SECONDS:g} s"
                    log.error("rclone is not started again: %s", self._given_up)
                    self._serving.set()
                    return
                try:
                    await self._spawn()
                except RcloneUnavailable as failure:
                    log.warning("%s", failure.message)

    async def _end(self) -> None:
        process, self._process = self._process, None
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                await process.stop()
