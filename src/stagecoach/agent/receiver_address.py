"""The address under which other nodes reach this one's receiver: ``HOST[:PORT]``, ``[IPV6][:PORT]``. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stagecoach.core.errors import SettingsError

DEFAULT_PORT = 8444
_FORM = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]{1,255}))(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class ReceiverAddress:
    """``host`` without brackets."""

    host: str
    port: int


def _is_name(host: str | None) -> bool:
    """Whether names are looked up so: no label is empty or longer than 63. None: it is no name, but an IPv6 address."""
    return host is None or all(0 < len(label) < 64 for label in host.removesuffix(".").split("."))


def receiver_address(text: str) -> ReceiverAddress:
    """Raises SettingsError."""
    found = _FORM.fullmatch(text.strip())
    port = int(found["port"] or DEFAULT_PORT) if found is not None else 0
    if found is None or not 0 < port < 65536 or not _is_name(found["host"]):
        raise SettingsError(f"{text!r} is no address for the receiver: say HOST or HOST:PORT, as others reach this machine.")
    return ReceiverAddress(found["six"] or found["host"], port)
