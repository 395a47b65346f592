"""Puts the routes together into one application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from stagecoach import __version__
from stagecoach.api import admin, agent, events, grants, health, identity, nodes, transfers
from stagecoach.api.audit_trail import Refusals
from stagecoach.api.cors import Origins
from stagecoach.api.firecrest import compute, file_changes, file_content, filesystem, operations, status, transfer
from stagecoach.api.form_upload import MAX_FORM_OVERHEAD_BYTES
from stagecoach.api.gate import Gate
from stagecoach.api.guard import open_routes
from stagecoach.api.lower_case_paths import LowerCasePaths
from stagecoach.api.problems import add_problem_handlers
from stagecoach.api.request_rate import RequestRate
from stagecoach.api.standing_headers import StandingHeaders
from stagecoach.api.tokens import TokenChecker
from stagecoach.flows.toolbox import Toolbox
from stagecoach.settings import AuthSettings, ServerSettings

Opener = Callable[[], AbstractAsyncContextManager[Toolbox]]


def create_app(open_toolbox: Opener, auth: AuthSettings, server: ServerSettings | None = None) -> FastAPI:
    """The application; ``open_toolbox`` opens what it works with when it starts and closes it when it stops.

    Without ``server`` its settings are the default ones.
    """
    server = server or ServerSettings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_toolbox() as tools:
            app.state.tools = tools
            yield

    app = FastAPI(
        title="Stagecoach",
        version=__version__,
        summary="Moves very large data in and out of supercomputers over plain HTTPS",
        lifespan=lifespan,
        # A redirect would be made from what the request says of its own host.
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.tokens = TokenChecker(auth)
    app.state.streams = events.Streams()
    app.state.refusals = Refusals()
    app.state.rate = RequestRate(server.max_requests_per_minute_per_user)
    add_problem_handlers(app)
    firecrest = (status, filesystem, file_content, file_changes, transfer, operations, compute)
    for module in (health, identity, transfers, events, *firecrest, nodes, grants, agent, admin):
        app.include_router(module.router)

    # The last one added stands outermost. The gate must see the paths that the routes see.
    app.add_middleware(
        Gate,
        rate=app.state.rate,
        open_routes=open_routes(app),
        body_timeout_seconds=server.body_timeout_seconds,
        max_upload_bytes=server.max_direct_file_bytes + MAX_FORM_OVERHEAD_BYTES,
    )
    app.add_middleware(LowerCasePaths)
    if server.cors_origins:
        app.add_middleware(Origins, origins=server.cors_origins)
    app.add_middleware(StandingHeaders)
    return app
