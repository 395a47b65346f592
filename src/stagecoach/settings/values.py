"""Kinds of values that settings are made of: secrets by file, URLs, absolute paths, host keys."""

from __future__ import annotations

import base64
import binascii
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, SecretStr

SECRET_FILE_PREFIX = "secret_file:"  # noqa: S105 - the mark of a reference, not a secret


def _read_secret_file(value: object) -> object:
    if isinstance(value, str) and value.startswith(SECRET_FILE_PREFIX):
        path = value.removeprefix(SECRET_FILE_PREFIX)
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the secret file {path} cannot be read ({type(error).__name__})") from error
    return value


def _checked_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        has_port = parts.port != 0
    except ValueError:
        # The library's words may hold a part of a password.
        has_port = False
    if not has_port or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an http:// or https:// URL")
    if parts.query or parts.fragment or parts.username:
        raise ValueError("must hold no credentials, query or fragment")
    return value.rstrip("/")


def _checked_origin(value: str) -> str:
    if not re.fullmatch(r"https?://[a-z0-9]([a-z0-9.-]{0,252})(:[0-9]{1,5})?", value):
        raise ValueError("must be an origin like https://portal.example.org, in lower case, without a path")
    return value


def _checked_network(value: str) -> str:
    try:
        ip_network(value)
    except ValueError as error:
        raise ValueError("must be an address or a network, like 192.0.2.7 or 192.0.2.0/24") from error
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/") or ".." in value.split("/") or "\0" in value or "\n" in value:
        raise ValueError("must be an absolute path without '..'")
    return value


Secret = Annotated[SecretStr, BeforeValidator(_read_secret_file)]
HttpUrlText = Annotated[str, AfterValidator(_checked_url)]
WebOrigin = Annotated[str, AfterValidator(_checked_origin)]
IpNetworkText = Annotated[str, AfterValidator(_checked_network)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]


class Section(BaseModel):
    """A part of the settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def _checked_host_key(value: str) -> str:
    """OpenSSH's form: the type in words, and in base64 a blob that begins with the type again (RFC 4253, section 6.6)."""
    words = value.split()
    complaint = "must be a public host key like 'ssh-ed25519 AAAA…', whole, as ssh-keyscan prints it without the host"
    if len(words) < 2:
        raise ValueError(complaint)
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(complaint) from error
    name = words[0].encode()
    rest = blob[4 + len(name) :]
    if blob[: 4 + len(name)] != len(name).to_bytes(4, "big") + name or len(rest) < 36:
        raise ValueError(complaint)
    # The key's fields follow, each behind its length; the last must end where the blob ends.
    while rest:
        length = int.from_bytes(rest[:4], "big")
        if len(rest) < 4 + length:
            raise ValueError(complaint)
        rest = rest[4 + length :]
    return " ".join(words[:2])


def _checked_host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._:-]{0,252})", value):
        raise ValueError("must be a host name or an address")
    return value


HostKey = Annotated[str, AfterValidator(_checked_host_key)]
HostName = Annotated[str, AfterValidator(_checked_host)]
