"""Puts the pages together into one ASGI application, and that in front of the API."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from stagecoach.portal import (
    account,
    admin,
    file_actions,
    files,
    node_grants,
    node_queue,
    node_store,
    nodes,
    send,
    sign_in,
    transfers,
    welcome,
)
from stagecoach.portal.api_calls import ApiCalls, ApiRefusal
from stagecoach.portal.gateway import Gateway
from stagecoach.portal.layer import PortalLayer, content_policy
from stagecoach.portal.node_grants import INVITATION, INVITATION_LINK
from stagecoach.portal.providers import Providers
from stagecoach.portal.rendering import StaticPages, Templates, portal_directory
from stagecoach.portal.same_site import SAFE_METHODS, ForeignRequest
from stagecoach.portal.sessions import Cookies, Sealer
from stagecoach.portal.visits import Visit
from stagecoach.settings import Settings

PREFIX = "/portal"


@dataclass(frozen=True, slots=True)
class MachineSignIn:
    """``stagecoach up``: whoever knows ``code``, which the terminal shows, is the machine's user."""

    username: str
    code: str
    token: str

    def __repr__(self) -> str:
        return f"MachineSignIn({self.username!r})"


@dataclass(frozen=True, slots=True)
class Portal:
    """What the pages work with."""

    settings: Settings
    api: ApiCalls
    forwarded_api: ASGIApp
    templates: Templates
    cookies: Cookies
    providers: Providers
    machine: MachineSignIn | None
    now: Callable[[], datetime]

    @property
    def own_url(self) -> str | None:
        """Where browsers find this service, as the settings say."""
        return self.settings.portal.url


class PortalInFront:
    """Takes the portal's paths; all else is the API's."""

    def __init__(self, app: ASGIApp, portal: ASGIApp) -> None:
        self._app = app
        self._portal = portal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        path = scope["path"] if scope["type"] == "http" else ""
        # Programs change nothing at the top, and are told so in the API's words: some make it of a path with dots.
        is_top = path == "/" and scope["method"] in SAFE_METHODS
        is_portals = is_top or path in {PREFIX, INVITATION_LINK} or path.startswith(f"{PREFIX}/")
        await (self._portal if is_portals else self._app)(scope, receive, send)


def make_portal(
    settings: Settings,
    api: ASGIApp,
    machine: MachineSignIn | None = None,
    *,
    clock: Callable[[], float] = time.time,
    provider_transport: httpx.AsyncBaseTransport | None = None,
) -> ASGIApp:
    """The portal; it asks everything of ``api``."""
    wanted = settings.portal
    key = wanted.cookie_key.get_secret_value() if wanted.cookie_key is not None else secrets.token_hex(32)

    def now() -> datetime:
        return datetime.fromtimestamp(clock(), UTC)

    portal = Portal(
        settings=settings,
        api=ApiCalls(api),
        forwarded_api=api,
        templates=Templates(wanted.title, wanted.support, now),
        cookies=Cookies(Sealer(key), settings.server.port),
        providers=Providers(settings.auth.issuers, wanted.url, clock, provider_transport),
        machine=machine,
        now=now,
    )
    static = GZipMiddleware(StaticPages(directory=portal_directory() / "static"), minimum_size=1024)
    pages = Starlette(
        routes=[
            Route("/", lambda _request: RedirectResponse(f"{PREFIX}/", 307)),
            Route(PREFIX, lambda _request: RedirectResponse(f"{PREFIX}/", 307)),
            Route(INVITATION_LINK, lambda _request: RedirectResponse(INVITATION, 307)),
            Mount(f"{PREFIX}/static", static),
            Route(f"{PREFIX}/api/{{path:path}}", Gateway(api, wanted.url)),
            *sign_in.routes,
            *account.routes,
            *welcome.routes,
            *files.routes,
            *file_actions.routes,
            *transfers.routes,
            *nodes.routes,
            *node_queue.routes,
            *node_grants.routes,
            *node_store.routes,
            *send.routes,
            *admin.routes,
        ],
        exception_handlers={
            ApiRefusal: _refused,
            ForeignRequest: _foreign,
            HTTPException: _framework,
            Exception: _unforeseen,
        },
    )
    pages.state.portal = portal
    pages.router.redirect_slashes = False
    return PortalLayer(pages, portal.cookies, portal.providers, content_policy(settings.s3.client_url))


async def _refused(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, ApiRefusal) else 500
    return await _problem(request, status, str(error))


async def _foreign(request: Request, error: Exception) -> Response:
    return await _problem(request, 403, str(error))


async def _framework(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    sentence = "There is no such page." if status == 404 else "This page cannot be asked for like that."
    return await _problem(request, status, sentence)


async def _unforeseen(request: Request, _error: Exception) -> Response:
    # The web server logs the stack.
    return await _problem(request, 500, "The service made a mistake; it has been logged. Try again in a moment.")


async def _problem(request: Request, status: int, sentence: str) -> Response:
    """A page that says what went wrong and where one can go on."""
    visit = Visit(request, request.app.state.portal, request.state.slot)
    if visit.credential is not None:
        try:
            visit.me = await visit.api("GET", "/accounts/me")
        except ApiRefusal:
            visit.me = {}
    return visit.render("problem.html", status, sentence=sentence, is_missing=status == 404, request_id=request.state.request_id)
