"""How FirecREST logs in as its users, as credentials of ours. No key is ever copied."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stagecoach.core.addresses import is_private_road
from stagecoach.firecrest_settings.reading import Theirs, wrong
from stagecoach.firecrest_settings.writing import Ours
from stagecoach.settings.credentials import USER
from stagecoach.settings.values import SECRET_FILE_PREFIX

KEYS = f"/etc/stagecoach/keys/{USER}"
_STATIC = "SSHStaticKeys"
_SERVICES = ("SSHService", "SSHCA")


@dataclass
class Credentials:
    """The same for every system: settings by name, and what to say of them."""

    values: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, str] = field(default_factory=dict)

    def put(self, ours: Ours, path: str) -> None:
        """Into the system's ``ssh.credentials``."""
        for name, value in self.values.items():
            ours.put(f"{path}.{name}", value)
        for name, sentence in self.checks.items():
            ours.check(f"{path}.{name}", sentence)


def convert_credentials(theirs: Theirs | None) -> Credentials:
    """``ssh_credentials``: static keys, or a service that gives keys or certificates for a user's token."""
    if theirs is None:
        return Credentials({"key_file": KEYS}, {"key_file": "FirecREST's file says nothing; see docs/ssh.md."})
    kind = theirs.text("type")
    if kind is None:
        # As it was before 2.3: a service has a url, everything else is the name of a user.
        kind = "SSHService" if theirs.has("url") else _STATIC
        users = theirs if kind == _STATIC else None
    else:
        users = theirs.section("keys") if kind == _STATIC else None
    if kind in _SERVICES:
        return _of_a_service(theirs, kind)
    if kind != _STATIC:
        raise wrong(theirs.at("type"), f"must be {_STATIC} or {' or '.join(_SERVICES)}")
    return _of_keys({} if users is None else dict(users.each()))


def _of_a_service(theirs: Theirs, kind: str) -> Credentials:
    address = theirs.text("url")
    if address is None:
        raise wrong(theirs.at("url"), "is missing")
    theirs.leave("max_connections", "one certificate a user and hour is asked for; nothing needs a bound")
    if not is_private_road(address):
        address = "https://" + address.partition("://")[2]
        theirs.record.leave(theirs.at("url"), "http:// was made https://")
    theirs.record.leave(
        theirs.at("type"),
        f"{kind} is given the user's own token, which Stagecoach passes on to nobody: see CHECK at the credentials",
    )
    return Credentials(
        {"certificate_authority.signing_service_url": address},
        {
            "certificate_authority.signing_service_url": (
                f"FirecREST's {kind} does not answer to this: it takes the user's token and has words of its own. docs/ssh.md "
                "(Signed by a signing service) says what Stagecoach asks; put that in front of the same authority, or give "
                "key_file: instead. sshd's TrustedUserCAKeys may stay."
            )
        },
    )


def _of_keys(users: dict[str, Theirs]) -> Credentials:
    places: dict[str, str] = {}
    certificates: dict[str, str] = {}
    for name, user in users.items():
        for setting, found in (("private_key", places), ("public_cert", certificates)):
            text = user.text(setting)
            if text is not None and text.startswith(SECRET_FILE_PREFIX):
                found[name] = text.removeprefix(SECRET_FILE_PREFIX)
        user.leave("passphrase", "keys have no passphrase here: ssh-keygen -p -f FILE takes it away")
    made = Credentials()
    key_file = common_pattern(places) if len(places) == len(users) else None
    made.values["key_file"] = key_file or KEYS
    if key_file is None:
        for name, user in users.items():
            why = f"belongs into {KEYS.replace(USER, name)}" if name in places else "a key in the file itself is not copied"
            user.record.leave(user.at("private_key"), f"{why}; one pattern is for all users")
        made.checks["key_file"] = "put each user's private key there, without a passphrase, readable by the service alone."
    else:
        made.checks["key_file"] = "these keys must have no passphrase, and the service must be able to read them."
    with_certificate = {name: user for name, user in users.items() if user.has("public_cert")}
    certificate_file = common_pattern(certificates) if len(certificates) == len(users) else None
    if certificate_file is not None:
        made.values["certificate_file"] = certificate_file
    else:
        for user in with_certificate.values():
            user.record.leave(user.at("public_cert"), "needs one pattern for all users' files: certificate_file")
    return made


def common_pattern(places: dict[str, str]) -> str | None:
    """``/keys/{user}.pem`` for ``/keys/alice.pem`` of alice and ``/keys/bob.pem`` of bob; None where there is none."""
    candidates = [set(_patterns(name, place)) for name, place in places.items()]
    common = set.intersection(*candidates) if candidates else set()
    # Of a lone user's, the one in which the name stands as often as it can.
    return max(common, key=lambda pattern: (pattern.count(USER), pattern), default=None)


def _patterns(name: str, place: str) -> Iterable[str]:
    if not name or not Path(place).is_absolute():
        return
    if name in place:
        yield place.replace(name, USER)
        before, _, after = place.rpartition(name)
        yield before + USER + after
