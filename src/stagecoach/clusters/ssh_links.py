"""What the pool remembers: a lane for each user, and in it the connection (link) that new sessions go over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import asyncssh

from stagecoach.clusters.ssh_login import OpenConnection
from stagecoach.core.breaker import Breaker


class Link:
    """One connection and how many sessions use it. ``open`` is set before anybody else sees the link."""

    open: OpenConnection

    def __init__(self, idle_timeout_seconds: float, on_idle: Callable[[Link], None]) -> None:
        self.sessions = 0
        self.served = 0
        self.lost = False
        self.closing = False
        self.idle_since = 0.0
        self._retired = False
        self._idle_timeout_seconds = idle_timeout_seconds
        self._on_idle = on_idle
        self._timer: asyncio.TimerHandle | None = None
        self._sftp: asyncssh.SFTPClient | None = None

    @property
    def usable(self) -> bool:
        """Whether a new session may be opened on it."""
        return not (self.lost or self.closing or self._retired or self.open.connection.is_closed())

    @contextmanager
    def session(self, keep_idle_sftp: Callable[[Link], bool]) -> Iterator[None]:
        """Counts one session; the last one out starts the idle timer."""
        self.sessions += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not keep_idle_sftp(self):
            self.drop_sftp()
        try:
            yield
        finally:
            self.sessions -= 1
            if self.sessions == 0:
                self._rest()

    def _rest(self) -> None:
        if self._retired or self.closing:
            self.close()
            return
        self._timer = asyncio.get_running_loop().call_later(self._idle_timeout_seconds, self.close)
        self._on_idle(self)

    def take_sftp(self) -> asyncssh.SFTPClient | None:
        """The SFTP client that waits for work, if any: opening one costs several round trips."""
        client, self._sftp = self._sftp, None
        return client

    def give_back(self, client: asyncssh.SFTPClient) -> None:
        """Keep a working client for the next; one is enough."""
        self.served += 1
        if self._sftp is None and self.usable:
            self._sftp = client
        else:
            client.exit()

    @property
    def keeps_sftp(self) -> bool:
        """Whether a waiting SFTP client takes one of the server's sessions."""
        return self._sftp is not None

    def drop_sftp(self) -> None:
        """Give its session back to the server."""
        if (client := self.take_sftp()) is not None:
            client.exit()

    def retire(self) -> None:
        """No new sessions; it closes when the last one has ended."""
        self._retired = True
        self.drop_sftp()
        if self.sessions == 0:
            self.close()

    def close(self) -> None:
        """Close it now."""
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
        if not self.lost:
            self.open.close()

    def abort(self) -> None:
        """Cut it: the other side is not answering."""
        self.closing = True
        if not self.lost:
            self.open.abort()


class Lane:
    """One user's way in."""

    def __init__(self, username: str, max_sessions: int, breaker: Breaker) -> None:
        self.username = username
        self.turns = asyncio.Semaphore(max_sessions)
        self.opening = asyncio.Lock()
        self.breaker = breaker
        self.link: Link | None = None
        self._max_sessions = max_sessions

    def has_room_for_idle_sftp(self, link: Link) -> bool:
        """Whether an idle SFTP client may stay beside the sessions in use: together they stay below the limit."""
        return not link.keeps_sftp or link.sessions + 1 <= self._max_sessions
