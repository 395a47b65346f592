"""Opens one SSH connection as one user: which key, which host keys, and what to say when it does not work."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncssh

from stagecoach.core.errors import PermissionRefused, StagecoachError, SystemUnavailable
from stagecoach.settings.systems import CredentialsSettings, SshSettings

_USERNAME = re.compile(r"[a-z_][a-z0-9_.@-]{0,127}")
KEEPALIVES_LOST = 3


def checked_username(username: str) -> str:
    """``username`` when it is a plain POSIX name; file names are made from it, so nothing else may pass.

    Raises:
        PermissionRefused: it is not.
    """
    if not _USERNAME.fullmatch(username):
        raise PermissionRefused(f"{username[:64]!r} is not a user name that can log in to a system.")
    return username


@dataclass(frozen=True, slots=True)
class OpenConnection:
    """A logged-in connection, and the gateway's that carries it."""

    connection: asyncssh.SSHClientConnection
    gateway: asyncssh.SSHClientConnection | None

    def close(self) -> None:
        """Say goodbye; what still runs is cut off."""
        self.connection.close()
        if self.gateway is not None:
            self.gateway.close()

    def abort(self) -> None:
        """Drop it without a word to the other side, which does not listen anyway."""
        self.connection.abort()
        if self.gateway is not None:
            self.gateway.abort()


class _Watcher(asyncssh.SSHClient):
    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost()


async def open_connection(system_name: str, settings: SshSettings, username: str, on_lost: Callable[[], None]) -> OpenConnection:
    """Connect and log in; ``on_lost`` is called once when the connection ends, however it ends.

    Raises:
        PermissionRefused: there is no usable key for the user, or the system does not take it.
        SystemUnavailable: unreachable, too slow, or not the host we know.
    """
    keys = await asyncio.to_thread(_read_keys, system_name, settings.credentials, checked_username(username))
    gateway: asyncssh.SSHClientConnection | None = None
    where = f"{settings.host}:{settings.port}"
    try:
        async with asyncio.timeout(settings.connect_timeout_seconds):
            if (jump := settings.proxy_jump) is not None:
                where = f"the gateway {jump.host}:{jump.port}"
                gateway = await asyncssh.connect(jump.host, jump.port, **_options(settings, username, keys, jump.host_keys))
                where = f"{settings.host}:{settings.port} (through {jump.host})"

            def lost() -> None:
                if gateway is not None:
                    gateway.close()
                on_lost()

            connection, _ = await asyncssh.create_connection(
                lambda: _Watcher(lost),
                settings.host,
                settings.port,
                tunnel=gateway or (),
                **_options(settings, username, keys, settings.host_keys),
            )
            return OpenConnection(connection, gateway)
    except BaseException as error:
        if gateway is not None:
            gateway.abort()
        if isinstance(error, (OSError, asyncssh.Error)):
            raise _explained(error, system_name, where, username, settings.connect_timeout_seconds) from error
        if isinstance(error, ValueError):
            message = f"{system_name}: the host name or a host key in its settings cannot be used; tell the administrators."
            raise SystemUnavailable(message) from error
        raise


def _options(
    settings: SshSettings,
    username: str,
    keys: Sequence[Any],
    host_keys: Sequence[str],
) -> dict[str, Any]:
    # Everything that asyncssh would otherwise take from the service's own account (agent, config, GSS, known hosts) is
    # switched off: a user is logged in with the user's key or not at all.
    return {
        "username": username,
        "client_keys": keys,
        "known_hosts": ([asyncssh.import_public_key(_key_only(key)) for key in host_keys], [], []),
        "config": None,
        "agent_path": None,
        "gss_host": None,
        "client_host_keys": None,
        "password": None,
        "preferred_auth": "publickey",
        "x509_trusted_certs": None,
        "keepalive_interval": settings.keepalive_seconds,
        "keepalive_count_max": KEEPALIVES_LOST,
        # The timeout around us is the one that counts.
        "connect_timeout": None,
        "login_timeout": None,
    }


def _key_only(host_key: str) -> str:
    return " ".join(host_key.split()[:2])


def _read_keys(system_name: str, credentials: CredentialsSettings, username: str) -> list[Any]:
    key_file = credentials.key_file.replace("{user}", username)
    try:
        key = asyncssh.read_private_key(key_file)
        if credentials.certificate_file is None:
            return [key]
        return [(key, asyncssh.read_certificate(credentials.certificate_file.replace("{user}", username)))]
    except FileNotFoundError as error:
        raise PermissionRefused(f"There is no SSH key of {username} for {system_name}: access was not set up.") from error
    except (OSError, ValueError) as error:  # asyncssh's KeyImportError is a ValueError
        raise PermissionRefused(
            f"The SSH key of {username} for {system_name} cannot be used ({type(error).__name__})."
        ) from error


def _explained(error: Exception, system_name: str, where: str, username: str, timeout_seconds: float) -> StagecoachError:
    if isinstance(error, asyncssh.PermissionDenied):
        return PermissionRefused(
            f"{system_name} refused the login of {username}: the account is locked, or its key or certificate is not"
            " (or no longer) accepted."
        )
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return SystemUnavailable(
            f"{system_name} is not contacted: {where} showed a host key that is not among the configured ones. Either"
            " it was changed (ask the site, then set ssh.host_keys), or somebody else answers there."
        )
    if isinstance(error, TimeoutError):
        return SystemUnavailable(f"{system_name} did not answer: {where} took longer than {timeout_seconds:g} s to log in.")
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
        if isinstance(error, ConnectionRefusedError):
            reason = "connection refused"
        return SystemUnavailable(f"{system_name} cannot be reached at {where}: {reason}.")
    if isinstance(error, asyncssh.ChannelOpenError):
        return SystemUnavailable(f"{system_name} cannot be reached: the gateway does not pass us on to {where}.")
    return SystemUnavailable(f"{system_name} ended the connection to {where} during the login ({type(error).__name__}).")
