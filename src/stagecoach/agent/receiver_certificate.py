"""The receiver's own certificate: self-signed, kept in the agent's state, known to others by its SHA-256 fingerprint.

Senders trust this one certificate and no authority, so it needs no renewal by anybody; it is made anew when it nears its
end or the receiver's names change.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from stagecoach.core.errors import SettingsError

_LIFE = timedelta(days=825)
_RENEWED_BEFORE_END = timedelta(days=60)
_CLOCKS_DIFFER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class ReceiverCertificate:
    """``sha256`` is that of the DER form, 64 hexadecimal digits in lower case."""

    certificate_file: Path
    key_file: Path
    sha256: str
    ends_at: datetime


def receiver_certificate(directory: Path, names: Sequence[str], *, now: datetime) -> ReceiverCertificate:
    """The one in ``directory`` if it is good for ``names`` (DNS names and addresses) for a while yet, else a new one.

    Raises SettingsError without names.
    """
    if not names:
        raise SettingsError("The receiver needs a name or address under which senders reach it.")
    certificate_file, key_file = directory / "receiver-certificate.pem", directory / "receiver-key.pem"
    kept = _kept(certificate_file, key_file)
    if (
        kept is None
        or _names_of(kept) != {_general_name(name) for name in names}
        or kept.not_valid_after_utc - now < _RENEWED_BEFORE_END
    ):
        kept = _made(certificate_file, key_file, names, now)
    return ReceiverCertificate(certificate_file, key_file, kept.fingerprint(hashes.SHA256()).hex(), kept.not_valid_after_utc)


def _kept(certificate_file: Path, key_file: Path) -> x509.Certificate | None:
    """The pair on disk, if it is one."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (OSError, ValueError):
        return None
    return certificate if key.public_key() == certificate.public_key() else None


def _made(certificate_file: Path, key_file: Path, names: Sequence[str], now: datetime) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Stagecoach receiver")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _CLOCKS_DIFFER)
        .not_valid_after(now.astimezone(UTC) + _LIFE)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    # The key first: with an old certificate beside it the pair is seen to be none, and made again.
    _write(key_file, private)
    _write(certificate_file, certificate.public_bytes(serialization.Encoding.PEM))
    return certificate


def _write(file: Path, content: bytes) -> None:
    new = file.with_name(file.name + ".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    new.replace(file)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return x509.DNSName(name.encode("idna").decode("ascii"))


def _names_of(certificate: x509.Certificate) -> set[x509.GeneralName]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return set()
