"""What an OpenSSH user certificate says of itself: for whom, from when until when, signed by whom."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import asyncssh
from asyncssh.public_key import SSHOpenSSHCertificate
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import SSHCertificate, SSHCertificateType, load_ssh_public_identity

_FOR_EVER = 2**63


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """Times in seconds since 1970; ``authority`` is the fingerprint of the key that signed, as ssh-keygen -l shows it."""

    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    authority: str

    def trouble(self, principal: str, now: float) -> str | None:
        """Why a server would refuse it for ``principal``, as far as the certificate itself tells; a sentence's rest."""
        if now >= self.valid_before:
            return f"its certificate expired on {moment(self.valid_before)}"
        if now < self.valid_after:
            return f"its certificate is not valid before {moment(self.valid_after)}: a clock may be wrong"
        if principal not in self.principals:
            whom = ", ".join(self.principals) or "nobody"
            return f"its certificate is for another principal ({whom}), not for {principal}"
        return None

    def words(self) -> str:
        """The facts, for the one who checks a system."""
        until = "for ever" if self.valid_before >= _FOR_EVER else f"until {moment(self.valid_before)}"
        return f"for {', '.join(self.principals) or 'no principal'}, valid {until}, signed by {self.authority}"


def read_facts(certificate: asyncssh.SSHCertificate) -> CertificateFacts:
    """Raises ValueError: it is no user certificate, or of a kind that cannot be read."""
    if not isinstance(certificate, SSHOpenSSHCertificate):
        raise ValueError("not an OpenSSH certificate")
    # The SSH library keeps the dates to itself.
    try:
        found = load_ssh_public_identity(certificate.export_certificate("openssh"))
    except UnsupportedAlgorithm as error:
        raise ValueError("a certificate of an unknown kind") from error
    if not isinstance(found, SSHCertificate) or found.type is not SSHCertificateType.USER:
        raise ValueError("not a user certificate")
    return CertificateFacts(
        principals=tuple(principal.decode("utf-8", "replace") for principal in found.valid_principals),
        valid_after=found.valid_after,
        valid_before=found.valid_before,
        authority=certificate.signing_key.get_fingerprint(),
    )


def moment(epoch_seconds: float) -> str:
    """A time as people read it."""
    try:
        return f"{datetime.fromtimestamp(epoch_seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return "a day that no calendar has"
