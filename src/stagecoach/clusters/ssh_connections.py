"""Which connections to a system are open, for whom, and who must wait: one for each user, bounded over all users."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from stagecoach.clusters.ssh_credentials import Credentials
from stagecoach.clusters.ssh_links import Lane, Link
from stagecoach.clusters.ssh_login import checked_username, open_connection
from stagecoach.core.breaker import Breaker
from stagecoach.core.errors import PermissionRefused, SystemUnavailable
from stagecoach.settings.systems import SshSettings

# sshd drops connections at random when more than MaxStartups (10) are logging in at once.
MAX_LOGINS_AT_ONCE = 6


class Connections:
    """Hands out turns to users and links to those who have a turn. Belongs to one event loop."""

    def __init__(
        self,
        system_name: str,
        settings: SshSettings,
        credentials: Credentials,
        clock: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._system_name = system_name
        self._settings = settings
        self._credentials = credentials
        self._wall_clock = wall_clock
        self._clock = clock
        # One user's login may hang (a home that does not answer), so it closes the system to nobody else.
        self._breaker = Breaker(SystemUnavailable, clock, callers_needed=2)
        self._turns = asyncio.Semaphore(settings.max_sessions)
        self._logins = asyncio.Semaphore(MAX_LOGINS_AT_ONCE)
        self._room = asyncio.Semaphore(settings.max_connections)
        self._waiting_for_room = 0
        self._lanes: dict[str, Lane] = {}
        self._links: set[Link] = set()
        self._closed = False

    @asynccontextmanager
    async def turn(self, username: str) -> AsyncIterator[Lane]:
        """One of the user's sessions, first come first served; waiting ends in SystemUnavailable at last."""
        lane = self._lane(username)
        end = asyncio.get_running_loop().time() + self._settings.queue_timeout_seconds
        # The user's own turn comes first: who has many waiting takes at most his few from the others.
        own = self._one_of(lane.turns, end, f"earlier commands of {username}")
        async with own, self._one_of(self._turns, end, "the commands of all users"):
            yield lane

    @asynccontextmanager
    async def _one_of(self, turns: asyncio.Semaphore, end: float, busy_with: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout_at(end):
                await turns.acquire()
        except TimeoutError as error:
            seconds = self._settings.queue_timeout_seconds
            raise SystemUnavailable(
                f"{self._system_name} is busy with {busy_with}; no turn came within {seconds:g} s."
            ) from error
        try:
            yield
        finally:
            turns.release()

    async def link(self, lane: Lane) -> Link:
        """The lane's connection, opened if need be. The caller begins its session on it before it awaits anything."""
        async with lane.opening:
            if self._closed:
                raise SystemUnavailable("The service is shutting down.")
            if lane.link is not None and lane.link.usable:
                if not lane.link.open.credential.has_ended(self._wall_clock()):
                    return lane.link
                # sshd looks at a certificate once; that nobody stays in for longer is ours to see to.
                lane.link.retire()
            with lane.breaker.attempt():
                await self._make_room()
                try:
                    async with self._logins:
                        with self._breaker.attempt(lane.username):
                            return await self._open(lane)
                except BaseException:
                    self._room.release()
                    raise

    async def aclose(self) -> None:
        """Close every connection; what still runs is cut off."""
        self._closed = True
        links = list(self._links)
        for link in links:
            link.close()
        for link in links:
            with suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await link.open.connection.wait_closed()

    def _lane(self, username: str) -> Lane:
        lane = self._lanes.get(checked_username(username))
        if lane is None:
            breaker = Breaker(PermissionRefused, self._clock)
            lane = self._lanes[username] = Lane(username, self._settings.max_sessions_per_user, breaker)
        return lane

    async def _open(self, lane: Lane) -> Link:
        link = Link(self._settings.idle_timeout_seconds, self._idle)

        def lost() -> None:
            link.lost = True
            if link in self._links:
                self._links.discard(link)
                self._room.release()

        link.open = await open_connection(self._system_name, self._settings, self._credentials, lane.username, lost)
        if link.lost or self._closed:
            link.open.abort()
            raise SystemUnavailable(f"{self._system_name} closed the connection right after the login.")
        self._links.add(link)
        lane.link = link
        return link

    async def _make_room(self) -> None:
        if self._room.locked():
            self._close_the_longest_idle()
        self._waiting_for_room += 1
        try:
            async with asyncio.timeout(self._settings.queue_timeout_seconds):
                await self._room.acquire()
        except TimeoutError as error:
            raise SystemUnavailable(
                f"{self._system_name} is busy: all {self._settings.max_connections} connections are in use."
            ) from error
        finally:
            self._waiting_for_room -= 1

    def _close_the_longest_idle(self) -> None:
        idle = [link for link in self._links if link.sessions == 0 and not link.closing]
        if idle:
            min(idle, key=lambda link: link.idle_since).close()

    def _idle(self, link: Link) -> None:
        link.idle_since = self._clock()
        if self._waiting_for_room:
            link.close()
