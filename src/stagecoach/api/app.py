"""Puts the routes together into one application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime

from fastapi import FastAPI, Request, Response

from stagecoach import __version__
from stagecoach.api import health, transfers
from stagecoach.api.firecrest import compute, transfer
from stagecoach.api.gate import Gate
from stagecoach.api.problems import FIRECREST_VERSION, add_problem_handlers
from stagecoach.api.tokens import TokenChecker
from stagecoach.flows.toolbox import Toolbox
from stagecoach.settings import AuthSettings

Opener = Callable[[], AbstractAsyncContextManager[Toolbox]]


def create_app(open_toolbox: Opener, auth: AuthSettings) -> FastAPI:
    """The application; ``open_toolbox`` opens what it works with when it starts and closes it when it stops."""

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
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.tokens = TokenChecker(auth)
    add_problem_handlers(app)
    for module in (health, transfers, transfer, compute):
        app.include_router(module.router)

    app.add_middleware(Gate)

    @app.middleware("http")
    async def _firecrest_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers["f7t-appversion"] = FIRECREST_VERSION
        response.headers["f7t-timestamp"] = datetime.now(UTC).isoformat(timespec="seconds")
        for name in ("x-request-id", "x-correlation-id"):
            value = request.headers.get(name)
            if value and len(value) <= 128 and value.isprintable():
                response.headers[name] = value
        return response

    return app
