"""Where requests come from, and where they may safely go."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def network_of(address: str | None) -> str:
    """An IPv6 host has all of its /64 to choose from, so that is what counts."""
    try:
        parsed = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return (address or "unknown")[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return str(parsed)


def is_private_road(url: str) -> bool:
    """https, or http that does not leave this machine: nobody on the way can put other keys into the answer."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        return bool(host) and parts.port != 0 and (parts.scheme == "https" or (parts.scheme == "http" and _is_this_machine(host)))
    except ValueError:
        return False


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
