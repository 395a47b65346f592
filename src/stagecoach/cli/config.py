"""Which service and which token: the environment first, then the file that ``stagecoach login`` wrote."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stagecoach.client import Client
from stagecoach.core.errors import NotAuthenticated

# A person waits at the keyboard; the client's own waiting for a transfer is far more patient.
PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Renewal:
    """How a token is renewed that an identity provider gave for a while."""

    issuer: str
    client_id: str
    token_endpoint: str
    revocation_endpoint: str | None
    refresh_token: str
    expires_at: float
    """Epoch seconds: the access token's end."""

    def __repr__(self) -> str:
        return f"Renewal(issuer={self.issuer!r})"


@dataclass(frozen=True)
class Access:
    """What it takes to speak to a service; without a token, only what is open to strangers."""

    url: str
    token: str | None
    renewal: Renewal | None = None

    def client(self) -> Client:
        """To be used as an asynchronous context manager."""
        if self.token is None or self.renewal is None:
            return Client(self.url, self.token, patience_seconds=PATIENCE_SECONDS)
        # Here, because renewing writes the file that this module reads.
        from stagecoach.cli.renewing import FreshToken

        return Client(self.url, FreshToken(self), patience_seconds=PATIENCE_SECONDS)

    def __repr__(self) -> str:
        return f"Access(url={self.url!r})"


def config_file() -> Path:
    """``$XDG_CONFIG_HOME/stagecoach/config.json``, usually below ``~/.config``."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "stagecoach" / "config.json"


def load_access() -> Access:
    """Raises NotAuthenticated when there is no URL or no token, and says what to do."""
    stored = stored_access()
    url = os.environ.get("STAGECOACH_URL") or (stored.url if stored is not None else None)
    token = os.environ.get("STAGECOACH_TOKEN")
    if url and token:
        return Access(url.rstrip("/"), token.strip())
    # The stored token goes to the service that it was stored for, wherever the environment points.
    if url and stored is not None and stored.token and url.rstrip("/") == stored.url:
        return replace(stored, token=stored.token.strip())
    what = "no service's URL" if not url else f"no token for {url}"
    raise NotAuthenticated(f"There is {what}: log in with 'stagecoach login URL', or set STAGECOACH_URL and STAGECOACH_TOKEN.")


def save_access(access: Access) -> Path:
    """Readable by the user alone from the first byte."""
    path = config_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    document: dict[str, Any] = {"url": access.url, "token": access.token}
    if access.renewal is not None:
        document["renewal"] = asdict(access.renewal)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        json.dump(document, file, indent=2)
        file.write("\n")
    beside.replace(path)
    return path


def stored_access() -> Access | None:
    """What the last log-in kept. Raises NotAuthenticated for a file that cannot be read."""
    path = config_file()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise NotAuthenticated(f"{path} cannot be read; write it anew with 'stagecoach login'.") from None
    if not isinstance(document, dict) or not isinstance(document.get("url"), str):
        return None
    token = document.get("token")
    return Access(document["url"], token if isinstance(token, str) else None, _renewal(document.get("renewal")))


def _renewal(document: object) -> Renewal | None:
    if not isinstance(document, dict):
        return None
    try:
        renewal = Renewal(**document)
    except TypeError:
        return None
    texts = (renewal.issuer, renewal.client_id, renewal.token_endpoint, renewal.refresh_token, renewal.revocation_endpoint or "")
    return renewal if all(isinstance(text, str) for text in texts) and isinstance(renewal.expires_at, int | float) else None
