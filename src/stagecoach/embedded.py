"""Everything on one machine without settings: the bundled store, a local system, SQLite, a token of our own."""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from stagecoach.api.signing_keys import ensure_signing_key, sign_token
from stagecoach.core.errors import SettingsError
from stagecoach.object_stores.embedded import EmbeddedStore
from stagecoach.settings import Settings, settings_from
from stagecoach.wiring import migrate_database

SYSTEM = "local"
TOKEN_DAYS = 30
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class EmbeddedService:
    """What a person needs to use it."""

    settings: Settings
    url: str
    system: str
    username: str
    token: str
    token_days: int
    portal_code: str
    """Who signs in to the portal with it is ``username``; new at each start."""

    @property
    def portal_url(self) -> str:
        """Signs in whoever opens it: browsers send nobody what stands behind the '#', and no log has it."""
        return f"{self.url}/portal/sign-in#{self.portal_code}"

    def write_ready_file(self, path: Path) -> None:
        """URLs, system and token as JSON."""
        document = {"url": self.url, "portal": self.portal_url, "system": self.system, "token": self.token}
        write_secret_json(path, document)


@asynccontextmanager
async def embedded_service(state: Path, roots: Sequence[str], port: int) -> AsyncIterator[EmbeddedService]:
    """Store started, database migrated, settings and token made; the store is stopped at the end.

    Raises:
        SettingsError: the port is taken, rclone is missing, or another Stagecoach uses the same state directory.
    """
    _require_directories(roots)
    api_port = _free_port(port)
    access_key, secret_key = _store_keys(state)
    origins = [f"http://{host}:{api_port}" for host in (HOST, "localhost")]
    store = EmbeddedStore(
        state / "store",
        access_key_id=access_key,
        secret_access_key=secret_key,
        log_file=state / "store.log",
        pid_file=state / "store.pid",
        allowed_origin=origins[0],
    )
    async with store:
        settings = settings_from(
            {
                # Nothing stands in front: a neighbour on this machine says nobody else's address.
                "server": {"host": HOST, "port": api_port, "trusted_proxies": []},
                "database": {"url": f"sqlite+aiosqlite:///{state / 'stagecoach.db'}"},
                "s3": {
                    "private_url": store.url,
                    "access_key_id": access_key,
                    "secret_access_key": secret_key,
                    "cors_origins": origins,
                },
                "systems": [
                    {
                        "name": SYSTEM,
                        "scheduler": {"kind": "local", "state_directory": str(state / "jobs")},
                        "work_directory": str(state / "work"),
                        "file_systems": [{"path": root} for root in roots],
                    }
                ],
                # Other people of this machine can reach the port: whoever holds the token below gives the account.
                "accounts": {"enabled": True, "name_is_user": True},
                "auth": {"issuers": [{"jwks": str(state / "jwks.json")}]},
                "portal": {"enabled": True, "url": origins[0], "cookie_key": _kept_key(state / "portal-key")},
                "nodes": {"sealing_key": _kept_key(state / "sealing-key")},
                "log": {"level": "warning"},
            }
        )
        await migrate_database(settings)
        key = ensure_signing_key(state / "signing-key.json", state / "jwks.json")
        username = getpass.getuser()
        token = sign_token(key, username, TOKEN_DAYS * 86400, settings.auth.issuers[0])
        yield EmbeddedService(
            settings, f"http://{HOST}:{api_port}", SYSTEM, username, token, TOKEN_DAYS, secrets.token_urlsafe(16)
        )


def _require_directories(roots: Sequence[str]) -> None:
    for root in roots:
        if not Path(root).is_dir():
            raise SettingsError(f"--root {root}: there is no such directory.")


def _store_keys(state: Path) -> tuple[str, str]:
    """Random keys of the bundled store, kept in the state directory (mode 0600)."""
    path = state / "store-keys.json"
    if not path.exists():
        write_secret_json(path, {"access_key_id": secrets.token_hex(10), "secret_access_key": secrets.token_hex(20)})
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
        return str(keys["access_key_id"]), str(keys["secret_access_key"])
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{path} holds no keys that can be read; move it away to get new ones.") from error


def _kept_key(path: Path) -> str:
    """Random text, kept in the state directory (mode 0600), so that a restart signs nobody out."""
    if not path.exists():
        _write_secret(path, secrets.token_hex(32))
    return path.read_text(encoding="utf-8").strip()


def write_secret_json(path: Path, document: dict[str, str]) -> None:
    """Readable by the owner only; it appears whole."""
    _write_secret(path, json.dumps(document))


def _write_secret(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)


def _free_port(port: int) -> int:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SettingsError(
                f"Port {port} is in use or not allowed; choose another with --port, or 0 for a free one."
            ) from error
        return int(probe.getsockname()[1])
