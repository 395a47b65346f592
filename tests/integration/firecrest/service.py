"""The whole application on a port, with this machine as its system: for FirecREST's own client to talk to."""

from __future__ import annotations

import asyncio
import getpass
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import firecrest.v2
import pytest
from firecrest import FirecrestException
from tests.e2e.own_service import free_port

from stagecoach.api.signing_keys import ensure_signing_key, sign_token
from stagecoach.serving import WebServer, make_app
from stagecoach.settings import settings_from
from stagecoach.wiring import migrate_database

SYSTEM = "local"
START_SECONDS = 60


class Token:
    """What FirecREST's client takes for authorization."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_access_token(self) -> str:
        """As it asks for it."""
        return self._token


class Client:
    """Either form, called in one way."""

    def __init__(self, made: Any) -> None:
        self.made = made

    async def __call__(self, method: str, *arguments: Any, **options: Any) -> Any:
        call: Callable[..., Any] = getattr(self.made, method)
        if inspect.iscoroutinefunction(inspect.unwrap(call)):
            return await call(*arguments, **options)
        return await asyncio.to_thread(call, *arguments, **options)


@asynccontextmanager
async def client_of(form: str, url: str, token: str) -> AsyncIterator[Client]:
    """The ``sync`` or the ``async`` one."""
    if form == "sync":
        yield Client(firecrest.v2.Firecrest(url, authorization=Token(token)))
        return
    made = firecrest.v2.AsyncFirecrest(url, authorization=Token(token))
    yield Client(made)
    await made.close_session()


class Program:
    """The program ``firecrest``, which comes with the client, as a person has set it up."""

    def __init__(self, url: str, system: str, token: str, home: Path) -> None:
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "TERM": "dumb",
            "COLUMNS": "400",
            "FIRECREST_URL": url,
            "FIRECREST_SYSTEM": system,
            "FIRECREST_TOKEN_COMMAND": f"echo {token}",
            "FIRECREST_API_VERSION": "2.6.0",
        }

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Whatever comes of it."""
        command = [Path(sys.prefix, "bin", "firecrest"), *map(str, words)]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=280, check=False)

    def __call__(self, *words: object) -> str:
        """What it prints when all goes well."""
        done = self.run(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout


def refusal(error: pytest.ExceptionInfo[FirecrestException]) -> tuple[int, str]:
    """Status and message of what the client raised."""
    answer = error.value.responses[-1]
    return answer.status_code, answer.json()["message"]


@dataclass(frozen=True)
class FirecrestService:
    """Where it is, who may call it, and the directory that is its system's one file system."""

    url: str
    token: str
    home: Path
    system: str = SYSTEM


@contextmanager
def firecrest_service(directory: Path, server: dict[str, Any] | None = None, **limits: Any) -> Iterator[FirecrestService]:
    """Listening, in a thread of its own; ``server`` and ``limits`` are settings. Its store is not there: nothing is moved."""
    home = directory / "home"
    home.mkdir()
    port = free_port()
    settings = settings_from(
        {
            "server": {"host": "127.0.0.1", "port": port, "max_requests_per_minute_per_user": 0, **(server or {})},
            "database": {"url": f"sqlite+aiosqlite:///{directory / 'stagecoach.db'}"},
            "s3": {"private_url": "http://127.0.0.1:9", "access_key_id": "key", "secret_access_key": "secret"},
            "systems": [
                {
                    "name": SYSTEM,
                    "scheduler": {"kind": "local", "state_directory": str(directory / "jobs")},
                    "work_directory": str(directory / "work"),
                    "file_systems": [{"path": str(home)}],
                    "limits": limits,
                    "probing": {"interval_seconds": 5},
                }
            ],
            "auth": {"issuers": [{"jwks": str(directory / "jwks.json")}]},
        }
    )
    asyncio.run(migrate_database(settings))
    key = ensure_signing_key(directory / "key.json", directory / "jwks.json")
    token = sign_token(key, getpass.getuser(), 3600, settings.auth.issuers[0])
    server = WebServer(make_app(settings, with_worker=False), settings.server)
    # Signals are the main thread's.
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        waited = threading.Event()
        for _ in range(START_SECONDS * 10):
            if server.started or not thread.is_alive():
                break
            waited.wait(0.1)
        assert server.started
        yield FirecrestService(f"http://127.0.0.1:{port}", token, home)
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
