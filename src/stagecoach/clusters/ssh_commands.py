"""The words of a command as one line for the remote shell: quoted here and nowhere else, behind the switch to the user."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from stagecoach.settings.credentials import CredentialsSettings


def quoted(words: Sequence[str]) -> bytes:
    """One line that a POSIX shell splits into ``words`` again. Surrogate escapes become the bytes they stand for."""
    return shlex.join(words).encode("utf-8", "surrogateescape")


def command_line(credentials: CredentialsSettings, username: str, words: Sequence[str]) -> bytes:
    """What the account that logs in is to run, so that ``words`` run as ``username``."""
    account = credentials.service_account
    return quoted(words if account is None else account.switched(username, words))


def sftp_command_line(credentials: CredentialsSettings, username: str) -> bytes | None:
    """What serves files as ``username``; None: sshd's own subsystem does, since the user logged in."""
    if (account := credentials.service_account) is None:
        return None
    return quoted(account.switched(username, account.sftp_server))
