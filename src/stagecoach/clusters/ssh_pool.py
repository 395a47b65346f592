"""Commands and file sessions on one system over SSH, shared by everybody who asks something of that system.

What it promises: a user's commands wait for one another and never for another user's; a dead system costs one timeout,
not one each; and after an error the caller knows whether the command may have run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import asyncssh
from asyncssh.sftp import start_sftp_client

from stagecoach.clusters.ssh_commands import command_line, sftp_command_line
from stagecoach.clusters.ssh_connections import Connections
from stagecoach.clusters.ssh_credentials import credentials_of
from stagecoach.clusters.ssh_links import Link
from stagecoach.clusters.ssh_login import checked_username
from stagecoach.core.errors import SystemUnavailable
from stagecoach.settings.systems import SshSettings

MAX_OUTPUT_BYTES = 32 * 1024 * 1024
MAX_START_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended. A signal is negative. Bytes that are not UTF-8 are kept as surrogate escapes."""

    exit_status: int
    stdout: str
    stderr: str


class AnswerLost(SystemUnavailable):
    """It was sent, and nobody knows whether and how it ended. It may still be running."""


class AnswerLate(AnswerLost):
    """It ran longer than it may; the connection lives."""


class _NeverStarted(Exception):
    """The server gave us no session. ``alone``: and no other session of ours is why."""

    def __init__(self, cause: Exception, *, alone: bool) -> None:
        super().__init__(str(cause))
        self.alone = alone


class SshPool:
    """Runs commands and SFTP sessions on one system. Belongs to one event loop."""

    def __init__(
        self,
        system_name: str,
        settings: SshSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._system_name = system_name
        self._settings = settings
        self._credentials = credentials_of(system_name, settings, wall_clock)
        self._connections = Connections(system_name, settings, self._credentials, clock, wall_clock)

    async def run(
        self,
        username: str,
        argv: Sequence[str],
        *,
        timeout_seconds: float | None = None,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
        stdin: bytes | None = None,
    ) -> CommandResult:
        """Run a command as ``username``, its words quoted once, with ``stdin`` as all its input, or none.

        Raises:
            PermissionRefused: the user cannot log in.
            AnswerLost: the command started, or may have.
            SystemUnavailable: any other; then the command surely never started.
        """
        command = command_line(self._settings.credentials, checked_username(username), argv)
        limit = timeout_seconds or self._settings.command_timeout_seconds
        async with self._connections.turn(username) as lane:
            for attempt in range(MAX_START_ATTEMPTS):
                link = await self._connections.link(lane)
                with link.session(keep_idle_sftp=lane.has_room_for_idle_sftp):
                    try:
                        process = await self._start(link, command, has_input=stdin is not None)
                    except _NeverStarted as error:
                        if error.alone or attempt + 1 == MAX_START_ATTEMPTS:
                            raise SystemUnavailable(f"{self._system_name} opens no session for {username}.") from error
                        continue
                    return await self._finish(link, process, limit, max_output_bytes, stdin)
        raise AssertionError("the loop returns or raises")

    @asynccontextmanager
    async def sftp(self, username: str, *, timeout_seconds: float | None = None) -> AsyncIterator[asyncssh.SFTPClient]:
        """An SFTP session as ``username`` for what is inside, within the command timeout.

        Raises:
            PermissionRefused, SystemUnavailable: as for a command; AnswerLost once the inside has begun. What SFTP
                itself has to say (no such file, permission denied, failure) passes through.
        """
        limit = timeout_seconds or self._settings.command_timeout_seconds
        async with self._connections.turn(username) as lane:
            for attempt in range(MAX_START_ATTEMPTS):
                link = await self._connections.link(lane)
                with link.session(keep_idle_sftp=lane.has_room_for_idle_sftp):
                    try:
                        client = link.take_sftp() or await self._open_sftp(link, username)
                    except _NeverStarted as error:
                        if error.alone or attempt + 1 == MAX_START_ATTEMPTS:
                            raise SystemUnavailable(
                                f"{self._system_name} opens no file session for {username}: is SFTP switched on there,"
                                " and do the user's shell start files print nothing?"
                            ) from error
                        continue
                    async with self._lent(link, client, limit):
                        yield client
                    return

    async def show_credential(self, username: str) -> str:
        """See :class:`stagecoach.ports.credentials.Login`."""
        return (await self._credentials.of(self._settings.credentials.login_name(checked_username(username)))).words

    async def try_login(self, username: str) -> str:
        """See :class:`stagecoach.ports.credentials.Login`."""
        async with self._connections.turn(username) as lane:
            link = await self._connections.link(lane)
            return f"{link.open.account}, with {link.open.credential.words}"

    async def knock(self) -> str:
        """See :class:`stagecoach.ports.credentials.Login`. With a gateway in front, it is the gateway that is asked."""
        first = self._settings.proxy_jump or self._settings
        try:
            async with asyncio.timeout(self._settings.connect_timeout_seconds):
                reader, writer = await asyncio.open_connection(first.host, first.port)
                try:
                    said = await reader.readuntil(b"\n")
                finally:
                    writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise SystemUnavailable(f"{first.host}:{first.port} does not answer ({type(error).__name__}).") from error
        if not said.startswith(b"SSH-"):
            raise SystemUnavailable(f"{first.host}:{first.port} does not speak SSH.")
        return "answers."

    async def aclose(self) -> None:
        """Close every connection; what still runs is cut off."""
        await self._connections.aclose()

    async def _start(self, link: Link, command: bytes, *, has_input: bool) -> asyncssh.SSHClientProcess[bytes]:
        try:
            async with asyncio.timeout(self._settings.connect_timeout_seconds):
                process: asyncssh.SSHClientProcess[bytes] = await link.open.connection.create_process(
                    command, stdin=asyncssh.PIPE if has_input else asyncssh.DEVNULL, encoding=None
                )
                return process
        except asyncssh.ChannelOpenError as error:
            if error.code == asyncssh.OPEN_REQUEST_SESSION_FAILED:
                # The channel was there and the command was sent on it.
                if link.lost:
                    raise self._lost() from error
                raise SystemUnavailable(f"{self._system_name} does not let this user run commands.") from error
            # No channel, no command. On a living connection it is sshd's MaxSessions (a command that was given up
            # counts until it really ends): others finish on the old connection, we go on with a new one.
            raise self._no_session(link, error) from error
        except TimeoutError as error:
            link.abort()
            raise self._lost() from error
        except (OSError, asyncssh.Error) as error:
            link.retire()
            raise self._lost() from error

    async def _finish(
        self,
        link: Link,
        process: asyncssh.SSHClientProcess[bytes],
        timeout_seconds: float,
        max_output_bytes: int,
        stdin: bytes | None,
    ) -> CommandResult:
        try:
            async with asyncio.timeout(timeout_seconds):
                stdout, stderr, _ = await asyncio.gather(
                    _read(process.stdout, max_output_bytes),
                    _read(process.stderr, max_output_bytes),
                    _feed(process.stdin, stdin),
                )
                await process.wait_closed()
        except TimeoutError as error:
            with suppress(OSError):
                process.kill()
            raise AnswerLate(f"A command on {self._system_name} took longer than {timeout_seconds:g} s.") from error
        except asyncio.CancelledError:
            # Nobody waits for its answer.
            with suppress(OSError):
                process.kill()
            raise
        except OverflowError as error:
            raise AnswerLost(f"A command on {self._system_name} printed more than {max_output_bytes} bytes.") from error
        except (OSError, asyncssh.Error) as error:
            raise self._lost() from error
        finally:
            process.close()
        if process.returncode is None:
            # asyncssh tells a connection that was lost mid-run in no other way.
            raise self._lost()
        link.served += 1
        return CommandResult(process.returncode, _text(stdout), _text(stderr))

    async def _open_sftp(self, link: Link, username: str) -> asyncssh.SFTPClient:
        command = sftp_command_line(self._settings.credentials, username)
        connection = link.open.connection
        try:
            async with asyncio.timeout(self._settings.connect_timeout_seconds):
                if command is None:
                    return await connection.start_sftp_client(path_errors="surrogateescape")
                writer, reader, _ = await connection.open_session(command, encoding=None)
                loop = asyncio.get_running_loop()
                # What the library itself does behind its own call, which knows sshd's subsystem only.
                return await start_sftp_client(connection, loop, "strict", reader, writer, "utf-8", "surrogateescape", 3)
        except TimeoutError as error:
            link.abort()
            raise SystemUnavailable(f"{self._system_name} did not open a file session in time.") from error
        except (OSError, asyncssh.Error) as error:
            # Whatever it was: starting a file session changes nothing there, so once more is always right.
            raise self._no_session(link, error) from error

    @asynccontextmanager
    async def _lent(self, link: Link, client: asyncssh.SFTPClient, limit_seconds: float) -> AsyncIterator[None]:
        healthy = False
        try:
            async with asyncio.timeout(limit_seconds):
                yield
            healthy = True
        except TimeoutError as error:
            raise AnswerLost(f"A file operation on {self._system_name} took longer than {limit_seconds:g} s.") from error
        except (OSError, asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError) as error:
            # The socket's own error is what a server that was killed leaves to the session that is reading just then.
            raise AnswerLost(f"The file session on {self._system_name} was cut off.") from error
        except Exception:
            healthy = True
            raise
        finally:
            if healthy:
                link.give_back(client)
            else:
                client.exit()

    def _no_session(self, link: Link, error: Exception) -> _NeverStarted:
        alone = link.sessions == 1 and link.served == 0
        link.retire()
        return _NeverStarted(error, alone=alone)

    def _lost(self) -> AnswerLost:
        return AnswerLost(f"The connection to {self._system_name} was lost while a command was under way.")


async def _read(reader: asyncssh.SSHReader[bytes], limit_bytes: int) -> bytes:
    pieces, size = [], 0
    while piece := await reader.read(64 * 1024):
        size += len(piece)
        if size > limit_bytes:
            raise OverflowError
        pieces.append(piece)
    return b"".join(pieces)


async def _feed(writer: asyncssh.SSHWriter[bytes], data: bytes | None) -> None:
    if data is None:
        return
    # Who ends without having read it all says why on its own streams.
    with suppress(BrokenPipeError, ConnectionResetError):
        writer.write(data)
        writer.write_eof()
        await writer.drain()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
