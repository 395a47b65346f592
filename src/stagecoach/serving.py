"""Runs the parts as processes: the API with or without a worker in it, a worker alone, or everything on one machine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from stagecoach.api.app import create_app
from stagecoach.api.tokens import TokenChecker
from stagecoach.core.errors import SettingsError, Unavailable
from stagecoach.embedded import EmbeddedService, embedded_service
from stagecoach.flows.toolbox import Toolbox
from stagecoach.logs import start_logging
from stagecoach.settings import Settings
from stagecoach.wiring import open_toolbox
from stagecoach.worker import Worker

log = logging.getLogger(__name__)


def make_app(settings: Settings, *, with_worker: bool) -> FastAPI:
    """The API; its life opens the toolbox and, where asked for, runs a worker beside it."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Toolbox]:
        nudged = asyncio.Event()
        async with open_toolbox(settings, nudged.set) as tools:
            if not with_worker:
                yield tools
                return
            stop = asyncio.Event()
            task = asyncio.create_task(_run_worker(tools, nudged, stop))
            try:
                yield tools
            finally:
                stop.set()
                await task

    return create_app(opened, settings.auth)


def run_api(settings: Settings) -> None:
    """Until a signal. Raises SettingsError, DatabaseUnavailable: in one line, before the web server takes over."""
    _require_free_address(settings.server.host, settings.server.port)
    asyncio.run(_try_all(settings))
    uvicorn.run(
        make_app(settings, with_worker=settings.worker.run_in_api),
        host=settings.server.host,
        port=settings.server.port,
        log_config=None,
        server_header=False,
    )


async def run_worker_alone(settings: Settings) -> None:
    """Until a signal. Raises as :func:`run_api`."""
    stop, nudged = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_toolbox(settings, nudged.set) as tools:
        await _run_worker(tools, nudged, stop)


async def run_embedded(state: Path, roots: Sequence[str], port: int, announce: Callable[[EmbeddedService], None]) -> bool:
    """Everything on one machine, until a signal. ``announce`` is called once it listens. False when it never did."""
    async with embedded_service(state, roots, port) as service:
        start_logging(service.settings.log)
        # The bundled store has no lifecycle rules, which is no news to anybody here.
        logging.getLogger("stagecoach.object_stores.buckets").setLevel(logging.ERROR)
        where = service.settings.server
        application = make_app(service.settings, with_worker=True)

        class AnnouncingServer(uvicorn.Server):
            """Tells the person, once it listens."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                if self.started:
                    announce(service)

        server = AnnouncingServer(uvicorn.Config(application, host=where.host, port=where.port, log_config=None))
        # The web server raises the signal that ended it once more; by default that would end us before the store is.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: None)
        await server.serve()
        return server.started


async def _try_all(settings: Settings) -> None:
    try:
        await TokenChecker(settings.auth).read_keys()
    except Unavailable as error:
        log.warning("%s Tokens are refused until it does.", error.message)
    async with open_toolbox(settings):
        pass


async def _run_worker(tools: Toolbox, nudged: asyncio.Event, stop: asyncio.Event) -> None:
    name = f"{socket.gethostname()[:32]}-{os.getpid()}-{secrets.token_hex(4)}"
    await Worker(tools, name, nudged).run(stop)


def _require_free_address(host: str, port: int) -> None:
    """One line that names the setting, where the web server would log several and name none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(f"settings: server: {host}:{port} cannot be listened on ({error.strerror or error}).") from error
