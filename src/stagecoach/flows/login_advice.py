"""What to look at when a login fails, for each of the ways in that a site may have set up."""

from __future__ import annotations

import shlex

from stagecoach.settings import SystemSettings
from stagecoach.settings.credentials import USER


def credential_advice(name: str, settings: SystemSettings, username: str) -> str:
    """When there is nothing that a login could show."""
    if settings.ssh is None:
        return ""
    credentials = settings.ssh.credentials
    where = f"systems.{name}.ssh.credentials"
    if (authority := credentials.certificate_authority) is None:
        key_file = (credentials.key_file or "").replace(USER, credentials.login_name(username))
        return f"See {where}: a private key without a passphrase belongs in {key_file}, readable by this service."
    if authority.key_file is not None:
        return f"See {where}.certificate_authority: {authority.key_file} is the authority's private key, without a passphrase."
    return f"See {where}.certificate_authority: does {authority.signing_service_url} answer, and does it take our token?"


def login_advice(name: str, settings: SystemSettings, username: str) -> str:
    """When the system does not let it in."""
    if settings.ssh is None:
        return f"See systems.{name}."
    ssh, credentials = settings.ssh, settings.ssh.credentials
    account = credentials.login_name(username)
    if (authority := credentials.certificate_authority) is not None:
        principal = authority.principal.replace(USER, account)
        look = f"its sshd must have the authority in TrustedUserCAKeys, and {account} must take the principal {principal}"
    else:
        key_file = (credentials.key_file or "").replace(USER, account)
        look = f"the public half of {key_file} must be among the authorized keys of {account}"
    if (service := credentials.service_account) is not None:
        command = shlex.join(service.switched(username, ["id", "-u"]))
        look += f", and {account} must be allowed to run there: {command}"
    return f"See systems.{name}.ssh ({ssh.host}:{ssh.port}): {look}."
