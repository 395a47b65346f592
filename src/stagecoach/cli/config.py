"""Which service and which token: the environment first, then the file that ``stagecoach login`` wrote."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from stagecoach.client import Client
from stagecoach.core.errors import NotAuthenticated

# A person waits at the keyboard; the client's own waiting for a transfer is far more patient.
PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Access:
    """What it takes to speak to a service."""

    url: str
    token: str

    def client(self) -> Client:
        """To be used as an asynchronous context manager."""
        return Client(self.url, self.token, patience_seconds=PATIENCE_SECONDS)

    def __repr__(self) -> str:
        return f"Access(url={self.url!r})"


def config_file() -> Path:
    """``$XDG_CONFIG_HOME/stagecoach/config.json``, usually below ``~/.config``."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "stagecoach" / "config.json"


def load_access() -> Access:
    """Raises NotAuthenticated when there is no URL or no token, and says what to do."""
    stored = _stored()
    url = os.environ.get("STAGECOACH_URL") or stored.get("url")
    token = os.environ.get("STAGECOACH_TOKEN")
    # The stored token goes to the service that it was stored for, wherever the environment points.
    if not token and url is not None and url.rstrip("/") == stored.get("url"):
        token = stored.get("token")
    if not url or not token:
        what = "no service's URL" if not url else f"no token for {url}"
        raise NotAuthenticated(
            f"There is {what}: log in with 'stagecoach login URL', or set STAGECOACH_URL and STAGECOACH_TOKEN."
        )
    return Access(url.rstrip("/"), token.strip())


def save_access(access: Access) -> Path:
    """Readable by the user alone from the first byte."""
    path = config_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        json.dump({"url": access.url, "token": access.token}, file, indent=2)
        file.write("\n")
    beside.replace(path)
    return path


def _stored() -> dict[str, str]:
    path = config_file()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise NotAuthenticated(f"{path} cannot be read; write it anew with 'stagecoach login'.") from None
    if not isinstance(document, dict):
        return {}
    return {key: value for key, value in document.items() if isinstance(value, str)}
