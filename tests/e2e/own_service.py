"""A Stagecoach of a test's own on the testbed's cluster: its settings, its SQLite database, its port; and a road that freezes."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import yaml
from tests.e2e.testbed import Testbed, wait_until

BUCKET_PREFIX = "own-service-"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def own_service(testbed: Testbed, directory: Path, change: Callable[[dict[str, Any]], None]) -> Iterator[Testbed]:
    """API and worker in one process, with the testbed's settings after ``change``; the testbed as seen through it."""
    settings = yaml.safe_load(Path(testbed.environment["STAGECOACH_SETTINGS"]).read_text(encoding="utf-8"))
    port = free_port()
    settings["server"]["port"] = port
    settings["database"] = {"url": f"sqlite+aiosqlite:///{directory / 'own.db'}"}
    settings["s3"]["bucket_prefix"] = BUCKET_PREFIX
    settings["worker"]["run_in_api"] = True
    change(settings)
    file = directory / "own-settings.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    program = [sys.executable, "-m", "stagecoach"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STAGECOACH_")}
    subprocess.run([*program, "migrate", "--settings", file], env=environment, check=True, capture_output=True)
    url = f"http://127.0.0.1:{port}"
    with (directory / "own-service.log").open("wb") as log:
        process = subprocess.Popen([*program, "serve", "--settings", file], env=environment, stdout=log, stderr=log)
        try:

            def is_up() -> bool:
                assert process.poll() is None, (directory / "own-service.log").read_text()
                with suppress(httpx.HTTPError):
                    return httpx.get(f"{url}/healthz", timeout=2).status_code == 200
                return False

            wait_until(is_up, 240, "the test's own service listens")
            own = Testbed({**testbed.environment, "STAGECOACH_URL": url})
            own.bucket = lambda person: f"{BUCKET_PREFIX}{person.name}"  # type: ignore[method-assign]
            yield own
        finally:
            process.terminate()
            process.wait(30)


class Road:
    """A TCP proxy to ``port``. Frozen, it takes connections and carries nothing, as a host does that hangs."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._flows: asyncio.Event
        self.port = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def freeze(self) -> None:
        self._loop.call_soon_threadsafe(self._flows.clear)

    def thaw(self) -> None:
        self._loop.call_soon_threadsafe(self._flows.set)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)

        async def begin() -> asyncio.Server:
            self._flows = asyncio.Event()
            self._flows.set()
            return await asyncio.start_server(self._carry, "127.0.0.1", 0)

        server = self._loop.run_until_complete(begin())
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._pipe(reader, there_writer), self._pipe(there_reader, writer))

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
