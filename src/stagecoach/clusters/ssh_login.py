"""Opens one SSH connection for one user: only known host keys, only the user's credential, nothing of our own account."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncssh

from stagecoach.clusters.ssh_credentials import Credential, Credentials
from stagecoach.clusters.ssh_refusals import explained
from stagecoach.clusters.ssh_switch import require_switch
from stagecoach.core.errors import PermissionRefused, SystemUnavailable
from stagecoach.settings.systems import SshSettings

_USERNAME = re.compile(r"[a-z_][a-z0-9_.@-]{0,127}")
# Whoever may choose a name at a token issuer must not become this one, which an authority or a switch could do.
_NOBODYS_NAME = "root"
KEEPALIVES_LOST = 3


def checked_username(username: str) -> str:
    """``username`` when it is a plain POSIX name; file names are made from it, so nothing else may pass.

    Raises:
        PermissionRefused: it is not.
    """
    if not _USERNAME.fullmatch(username):
        raise PermissionRefused(f"{username[:64]!r} is not a user name that can log in to a system.")
    if username == _NOBODYS_NAME:
        raise PermissionRefused(f"Nobody acts as {username} on a system; log in as a user.")
    return username


@dataclass(frozen=True, slots=True)
class OpenConnection:
    """A logged-in connection, and the gateway's that carries it."""

    connection: asyncssh.SSHClientConnection
    gateway: asyncssh.SSHClientConnection | None
    credential: Credential
    account: str
    """Who logged in, and as whom commands run, in words."""

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


async def open_connection(
    system_name: str, settings: SshSettings, credentials: Credentials, username: str, on_lost: Callable[[], None]
) -> OpenConnection:
    """Connect, log in and, with a service account, see that it can become the user; ``on_lost`` is called once when the
    connection ends, however it ends.

    Raises:
        PermissionRefused: there is no usable credential for the user, or the system does not take it.
        SystemUnavailable: unreachable, too slow, or not the host we know; or who signs certificates is.
    """
    login_name = settings.credentials.login_name(checked_username(username))
    credential = await credentials.of(login_name)
    gateway: asyncssh.SSHClientConnection | None = None
    connection: asyncssh.SSHClientConnection | None = None
    where = f"{settings.host}:{settings.port}"
    try:
        async with asyncio.timeout(settings.connect_timeout_seconds):
            if (jump := settings.proxy_jump) is not None:
                where = f"the gateway {jump.host}:{jump.port}"
                gateway = await asyncssh.connect(
                    jump.host, jump.port, **_options(settings, login_name, credential, jump.host_keys)
                )
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
                **_options(settings, login_name, credential, settings.host_keys),
            )
            account = await require_switch(connection, system_name, settings.credentials, username)
            return OpenConnection(connection, gateway, credential, account)
    except BaseException as error:
        for opened in (connection, gateway):
            if opened is not None:
                opened.abort()
        if isinstance(error, (OSError, asyncssh.Error)):
            seconds = settings.connect_timeout_seconds
            raise explained(error, system_name, where, login_name, credential, time.time(), seconds) from error
        if isinstance(error, ValueError):
            message = f"{system_name}: the host name or a host key in its settings cannot be used; tell the administrators."
            raise SystemUnavailable(message) from error
        raise


def _options(
    settings: SshSettings,
    login_name: str,
    credential: Credential,
    host_keys: Sequence[str],
) -> dict[str, Any]:
    # Everything that asyncssh would otherwise take from the service's own account (agent, config, GSS, known hosts) is
    # switched off: a user is logged in with the user's key or not at all.
    return {
        "username": login_name,
        "client_keys": [credential.key],
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
