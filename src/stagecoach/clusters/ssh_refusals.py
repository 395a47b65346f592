"""What to say when a login does not work: which of its parts failed, as far as it can be known, and what to do."""

from __future__ import annotations

import asyncssh

from stagecoach.clusters.ssh_credentials import Credential
from stagecoach.core.errors import PermissionRefused, StagecoachError, SystemUnavailable


def explained(
    error: Exception, system_name: str, where: str, login_name: str, credential: Credential, now: float, timeout_seconds: float
) -> StagecoachError:
    """An error of connecting or logging in, in our words; ``now`` in seconds since 1970."""
    if isinstance(error, asyncssh.PermissionDenied):
        return PermissionRefused(f"{system_name} refused the login of {login_name}: {_reason(credential, now)}.")
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


def _reason(credential: Credential, now: float) -> str:
    """sshd tells nobody why; the certificate itself tells what is wrong with it."""
    if credential.certificate is None:
        return "the account is locked, or its key is not (or no longer) accepted"
    if (trouble := credential.certificate.trouble(credential.principal, now)) is not None:
        return trouble
    return (
        f"its certificate is in force and for {credential.principal}, so the authority that signed it"
        f" ({credential.certificate.authority}) is unknown or revoked there, the account takes another principal,"
        " or it is locked or missing"
    )
