"""Runs the parts as processes: the API with or without a worker in it, a worker alone, or everything on one machine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from stagecoach.api.app import create_app
from stagecoach.api.slow_clients import bounded_http
from stagecoach.api.tokens import TokenChecker
from stagecoach.core.errors import SettingsError, Unavailable
from stagecoach.embedded import EmbeddedService, embedded_service
from stagecoach.flows.change_settings import follow_settings
from stagecoach.flows.deliver_webhooks import deliver_webhooks
from stagecoach.flows.probe_systems import probe_systems
from stagecoach.flows.toolbox import Toolbox
from stagecoach.logs import secrets_of, start_logging
from stagecoach.portal.app import MachineSignIn, PortalInFront, make_portal
from stagecoach.settings import ServerSettings, Settings
from stagecoach.wiring import open_toolbox
from stagecoach.worker import Worker

log = logging.getLogger(__name__)

GRACE_SECONDS = 30
NOT_STARTED = 3


class WebServer(uvicorn.Server):
    """Ends its streams of events, and answers the agents that wait, before it waits for the requests under way."""

    def __init__(self, app: FastAPI, where: ServerSettings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=where.host,
                port=where.port,
                log_config=None,
                server_header=False,
                http=bounded_http(where.head_timeout_seconds),
                forwarded_allow_ips=list(where.trusted_proxies),
                # A client that no longer reads its stream must not keep the process.
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn when it has been told to stop."""
        self._app.state.streams.close()
        self._app.state.tools.node_calls.close()
        await super().shutdown(sockets)


def make_app(settings: Settings, *, with_worker: bool, machine: MachineSignIn | None = None) -> FastAPI:
    """The API, with the portal in front where the settings want it. Its life opens the toolbox and, where asked for, runs a
    worker beside it, and looks at the systems. ``machine`` is how the person at this machine signs in."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Toolbox]:
        nudged = asyncio.Event()
        async with open_toolbox(settings, nudged.set) as tools:
            stop = asyncio.Event()
            task = asyncio.create_task(_run_worker(tools, nudged, stop) if with_worker else follow_settings(tools, stop))
            probing = asyncio.create_task(probe_systems(tools))
            try:
                yield tools
            finally:
                probing.cancel()
                stop.set()
                await task
                with contextlib.suppress(asyncio.CancelledError):
                    await probing

    app = create_app(opened, settings.auth, settings.server)
    if settings.portal.enabled:
        app.add_middleware(PortalInFront, portal=make_portal(settings, app, machine))
    return app


def run_api(settings: Settings) -> None:
    """Until a signal. Raises SettingsError, DatabaseUnavailable: in one line, before the web server takes over."""
    _require_free_address(settings.server.host, settings.server.port)
    asyncio.run(_try_all(settings))
    if settings.portal.enabled and settings.portal.cookie_key is None:
        log.warning("portal.cookie_key is not set: people sign in to the portal again after each restart.")
    server = WebServer(make_app(settings, with_worker=settings.worker.run_in_api), settings.server)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(NOT_STARTED)


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
        start_logging(service.settings.log, secrets_of(service.settings))
        # The bundled store has no lifecycle rules, which is no news to anybody here.
        logging.getLogger("stagecoach.object_stores.buckets").setLevel(logging.ERROR)
        machine = MachineSignIn(service.username, service.portal_code, service.token)
        application = make_app(service.settings, with_worker=True, machine=machine)

        class AnnouncingServer(WebServer):
            """Tells the person, once it listens."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                if self.started:
                    announce(service)

        server = AnnouncingServer(application, service.settings.server)
        # The web server raises the signal that ended it once more; by default that would end us before the store is.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: None)
        await server.serve()
        return server.started


async def _try_all(settings: Settings) -> None:
    checker = TokenChecker(settings.auth)
    for issuer in settings.auth.issuers:
        try:
            await checker.read_keys(issuer)
        except Unavailable as error:
            log.warning("%s Its tokens are refused until it does.", error.message)
    async with open_toolbox(settings):
        pass


async def _run_worker(tools: Toolbox, nudged: asyncio.Event, stop: asyncio.Event) -> None:
    name = f"{socket.gethostname()[:32]}-{os.getpid()}-{secrets.token_hex(4)}"
    async with asyncio.TaskGroup() as group:
        group.create_task(Worker(tools, name, nudged).run(stop))
        group.create_task(deliver_webhooks(tools, stop))
        group.create_task(follow_settings(tools, stop))


def _require_free_address(host: str, port: int) -> None:
    """One line that names the setting, where the web server would log several and name none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(f"settings: server: {host}:{port} cannot be listened on ({error.strerror or error}).") from error
