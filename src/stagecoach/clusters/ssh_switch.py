"""Sees, before anything is done, that the service account becomes the user it was asked to become, and nobody else."""

from __future__ import annotations

from typing import Any

import asyncssh

from stagecoach.clusters.ssh_commands import command_line, quoted
from stagecoach.core.errors import PermissionRefused
from stagecoach.settings.credentials import CredentialsSettings

MAX_CHARACTERS_SHOWN = 200


async def require_switch(
    connection: asyncssh.SSHClientConnection, system_name: str, credentials: CredentialsSettings, username: str
) -> str:
    """Who is at work on this connection, in words. Without a service account nothing is asked.

    Raises:
        PermissionRefused: the switch fails, or leads to another account, to root, or back to the service account.
    """
    account = credentials.service_account
    if account is None:
        return f"logged in as {username}"
    if username == account.username:
        raise PermissionRefused(f"{username} is the service account of {system_name}; nobody's transfers run as it.")
    # Who the user is, and who we are, by the service account's own word; then who one is behind the switch.
    expected = await _ask(connection, quoted(["id", "-u", "--", username]))
    own = await _ask(connection, quoted(["id", "-u"]))
    reached = await _ask(connection, command_line(credentials, username, ["id", "-u"]))
    if expected.exit_status != 0:
        raise PermissionRefused(f"{system_name} knows no account {username}.")
    if reached.exit_status != 0:
        reason = " ".join(str(reached.stderr or "").split())[:MAX_CHARACTERS_SHOWN] or f"exit code {reached.exit_status}"
        raise PermissionRefused(
            f"{account.username} may not become {username} on {system_name}: {reason}. The site allows it in sudoers."
        )
    uid = str(reached.stdout).strip()
    if uid != str(expected.stdout).strip() or uid in {"0", str(own.stdout).strip()}:
        raise PermissionRefused(
            f"On {system_name} the command in ssh.credentials.service_account.switch_user leads to the account with number"
            f" {uid[:20]!r}, which is not {username}'s; nothing is done there."
        )
    return f"logged in as {account.username}, which becomes {username}"


async def _ask(connection: asyncssh.SSHClientConnection, command: bytes) -> Any:
    answer = await connection.run(command, stdin=asyncssh.DEVNULL, encoding="utf-8", errors="replace")
    if answer.exit_status is None and answer.exit_signal is None:
        raise asyncssh.ConnectionLost("the connection ended while a command ran")
    return answer
