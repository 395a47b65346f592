"""The rules of webhooks: which URLs and addresses may be posted to, how a message is signed, when it is tried again. Pure.

Messages are signed as Standard Webhooks (standardwebhooks.com) has it, so receivers can verify them with its libraries.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from stagecoach.core.errors import WebhookRefused

SECRET_PREFIX = "whsec_"  # noqa: S105 - the mark of a secret, not one
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
# With ten tries the last comes about 22 hours after the first: 5 s, 16 s, 51 s, 3 min, 9 min, 28 min, 1.5 h, 5 h, 15 h.
FIRST_WAIT_SECONDS = 5.0
WAIT_GROWTH = 3.2
LONGEST_WAIT_SECONDS = 24 * 3600.0
JITTER = 0.2

_URL = re.compile(r"[\x21\x23-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e]{1,2048}")
"""Visible ASCII without what no URL holds as it is: quotes, < > \\ ^ ` { | }."""
_HOST = r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\])"
ALLOWED_HOST = re.compile(rf"(?:\*\.)?{_HOST}(?::[0-9]{{1,5}})?")
_STANDARD_PORTS = {"https": 443, "http": 80}
# Cloud metadata services outside the link-local networks (Amazon's IPv6, Alibaba, Oracle).
_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "192.0.0.192")))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """Where a webhook's URL leads. ``host`` in lower case, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """As the Host header has it, and as it is shown: without a path or a query, which may hold a secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _STANDARD_PORTS[self.scheme] else f"{host}:{self.port}"


def webhook_target(url: str, allowed_hosts: Collection[str], *, allow_http: bool) -> WebhookTarget:
    """Where ``url`` leads, if it may be posted to.

    Raises:
        WebhookRefused: the message repeats nothing of the URL but its host.
    """
    if not allowed_hosts:
        raise WebhookRefused("This service sends no webhooks; its administrators have allowed no host.")
    target = _target(url)
    if target.scheme != "https" and not allow_http:
        raise WebhookRefused("webhookUrl must begin with https://.")
    if not any(_matches(target, allowed) for allowed in allowed_hosts):
        raise WebhookRefused(f"webhookUrl: {target.authority} is none of the hosts that this service may send webhooks to.")
    return target


def webhook_host(url: str) -> str:
    """What may be shown of it."""
    return _target(url).authority


def _target(url: str) -> WebhookTarget:
    if not _URL.fullmatch(url):
        raise WebhookRefused("webhookUrl must be a URL of 2048 visible ASCII characters at most.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise WebhookRefused("webhookUrl is no URL.") from None
    if parts.scheme not in _STANDARD_PORTS or not parts.hostname or "%" in parts.netloc:
        raise WebhookRefused("webhookUrl must begin with https:// and a host.")
    if "@" in parts.netloc:
        raise WebhookRefused("webhookUrl must hold no user name or password.")
    if "#" in url:
        raise WebhookRefused("webhookUrl must hold no fragment.")
    if port == 0:
        raise WebhookRefused("webhookUrl has a port that nothing listens on.")
    return WebhookTarget(parts.scheme, parts.hostname, port or _STANDARD_PORTS[parts.scheme])


def _matches(target: WebhookTarget, allowed: str) -> bool:
    """``allowed`` is ``host``, ``host:port`` or ``*.domain``; without a port it means the scheme's own."""
    allowed = allowed.lower()
    if allowed.startswith("*."):
        first, _, rest = target.authority.partition(".")
        while rest:
            if first and rest == allowed[2:]:
                return True
            first, _, rest = rest.partition(".")
        return False
    return target.authority == allowed


def is_refused_address(address: str) -> bool:
    """Whether nothing may be posted to this address, whatever its name: link-local, a cloud's metadata, no host at all."""
    found: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        # IPv4 addresses in the ways that IPv6 has for them.
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        found = inner or found
    return found.is_link_local or found.is_multicast or found.is_unspecified or found in _METADATA


def secret_bytes(secret: str) -> bytes:
    """The key of ``whsec_…``. Raises ValueError, whose message does not repeat it."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError(
            f"must be {SECRET_PREFIX} followed by {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} random bytes in base64, "
            f'as echo "{SECRET_PREFIX}$(openssl rand -base64 32)" makes'
        )
    return key


def signed_headers(secret: str, message_id: str, epoch_seconds: int, body: bytes) -> dict[str, str]:
    """The three headers by which a receiver knows that the message is ours, and not an old one sent again."""
    signed = b".".join((message_id.encode(), str(epoch_seconds).encode(), body))
    signature = base64.b64encode(hmac.new(secret_bytes(secret), signed, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(epoch_seconds),
        "webhook-signature": f"v1,{signature}",
    }


def wait_seconds(tries: int, chance: float) -> float:
    """Until the next try after ``tries`` that failed; ``chance`` in [0, 1) spreads those that failed together."""
    wait = min(FIRST_WAIT_SECONDS * WAIT_GROWTH ** min(tries - 1, 20), LONGEST_WAIT_SECONDS)
    return wait * (1 - JITTER + 2 * JITTER * chance)
