"""What one login shows to a system: a user's key file, or a key that lives in this process with a fresh certificate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import asyncssh

from stagecoach.clusters.ssh_certificates import CertificateFacts, moment, read_facts
from stagecoach.clusters.ssh_signers import KeyFileSigner, ServiceSigner, Signer
from stagecoach.core.errors import PermissionRefused, SystemUnavailable
from stagecoach.settings.credentials import USER, CertificateAuthoritySettings, CredentialsSettings
from stagecoach.settings.systems import SshSettings

# A certificate begins this long before it is made: the cluster's clock may be behind ours.
BACKDATED_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Credential:
    """``key`` is what asyncssh takes; ``principal`` is whom it should open the door for."""

    key: Any
    principal: str
    words: str
    certificate: CertificateFacts | None = None

    def has_ended(self, now: float) -> bool:
        """Whether a connection that it opened may serve no new session."""
        return self.certificate is not None and now >= self.certificate.valid_before


class Credentials(Protocol):
    """Of one system."""

    async def of(self, login_name: str) -> Credential:
        """For that account. Raises PermissionRefused: there is none. SystemUnavailable: it cannot be had just now."""


def credentials_of(system_name: str, settings: SshSettings, wall_clock: Callable[[], float] = time.time) -> Credentials:
    """The kind that the settings say. ``wall_clock`` tells seconds since 1970."""
    if (authority := settings.credentials.certificate_authority) is not None:
        # A gateway is passed by forwarding, which a certificate allows or not.
        return CertificateAuthority(system_name, authority, wall_clock, forwards=settings.proxy_jump is not None)
    return KeyFiles(system_name, settings.credentials)


class KeyFiles:
    """Read at each login, so that a key that the site changes counts at once."""

    def __init__(self, system_name: str, settings: CredentialsSettings) -> None:
        self._system_name = system_name
        self._settings = settings

    async def of(self, login_name: str) -> Credential:
        return await asyncio.to_thread(self._read, login_name)

    def _read(self, login_name: str) -> Credential:
        assert self._settings.key_file is not None  # noqa: S101 - the settings check it
        key_file = self._settings.key_file.replace(USER, login_name)
        try:
            key = asyncssh.read_private_key(key_file)
            words = f"key file {key_file} ({key.get_fingerprint()})"
            if self._settings.certificate_file is None:
                return Credential(key, login_name, words)
            certificate_file = self._settings.certificate_file.replace(USER, login_name)
            certificate = asyncssh.read_certificate(certificate_file)
            facts = read_facts(certificate)
        except FileNotFoundError as error:
            raise PermissionRefused(
                f"There is no SSH key of {login_name} for {self._system_name}: access was not set up."
            ) from error
        except (OSError, ValueError) as error:  # asyncssh's KeyImportError is a ValueError
            raise PermissionRefused(
                f"The SSH key of {login_name} for {self._system_name} cannot be used ({type(error).__name__})."
            ) from error
        return Credential((key, certificate), login_name, f"{words} with a certificate {facts.words()}", facts)


class CertificateAuthority:
    """Makes a key when it is made, which is never written anywhere, and has certificates for it signed."""

    def __init__(
        self, system_name: str, settings: CertificateAuthoritySettings, wall_clock: Callable[[], float], *, forwards: bool
    ) -> None:
        self._system_name = system_name
        self._settings = settings
        self._wall_clock = wall_clock
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self._signer: Signer = (
            KeyFileSigner(system_name, settings.key_file, forwards=forwards)
            if settings.key_file is not None
            else ServiceSigner(system_name, settings)
        )
        self._kept: dict[str, tuple[float, Credential]] = {}

    async def of(self, login_name: str) -> Credential:
        now = self._wall_clock()
        renew_at, credential = self._kept.get(login_name, (0.0, None))
        if credential is not None and now < renew_at:
            return credential
        credential = await self._sign(login_name, now)
        assert credential.certificate is not None  # noqa: S101 - a signed one has it
        # Two thirds of what is left: a signer may give less than was asked for.
        renew_at = now + (credential.certificate.valid_before - now) * 2 / 3
        self._kept = {name: kept for name, kept in self._kept.items() if now < kept[0]}
        self._kept[login_name] = (renew_at, credential)
        return credential

    async def _sign(self, login_name: str, now: float) -> Credential:
        principal = self._settings.principal.replace(USER, login_name)
        valid_after, valid_before = int(now) - BACKDATED_SECONDS, int(now) + self._settings.ttl_seconds
        text = await self._signer.sign(self._key, principal, valid_after, valid_before)
        try:
            certificate = asyncssh.import_certificate(text)
            facts = read_facts(certificate)
        except ValueError as error:
            raise SystemUnavailable(f"{self._signer.name} gave something that is no user certificate.") from error
        # Looked at here: a login with it would only say "refused".
        if certificate.key.public_data != self._key.public_data:
            raise SystemUnavailable(f"{self._signer.name} signed another key than ours.")
        if (trouble := facts.trouble(principal, now)) is not None:
            raise SystemUnavailable(f"{self._signer.name} gave a certificate that cannot be used: {trouble}.")
        if facts.valid_before > valid_before + BACKDATED_SECONDS:
            raise SystemUnavailable(
                f"{self._signer.name} gave a certificate that lives longer than asked for (until {moment(facts.valid_before)})."
            )
        return Credential((self._key, certificate), principal, f"a certificate {facts.words()}", facts)
