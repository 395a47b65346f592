"""One request for a page: who asks, what the form says, the API as that person, and the page as the answer."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from stagecoach.portal.api_calls import ApiRefusal, Params
from stagecoach.portal.same_site import FIELD, ForeignRequest, require_own_page

if TYPE_CHECKING:
    from stagecoach.portal.app import Portal
    from stagecoach.portal.layer import Slot

MAX_FORM_BYTES = 64 * 1024
FORM_SECONDS = 30.0
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@dataclass
class Visit:
    """``me`` is the API's word on who is signed in; empty for strangers."""

    request: Request
    portal: Portal
    slot: Slot
    form: dict[str, str] = field(default_factory=dict)
    me: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def query(self) -> dict[str, str]:
        """The last value of each name, bytes that are not UTF-8 as surrogate escapes."""
        try:
            return _pairs(self.request.scope["query_string"])
        except ValueError:
            return {}

    @property
    def credential(self) -> str | None:
        """None for strangers."""
        return self.slot.session.credential if self.slot.session else None

    @property
    def address(self) -> str:
        """Path and query of this page."""
        query = self.request.scope["query_string"].decode("latin-1")
        return f"{self.request.scope['path']}?{query}" if query else str(self.request.scope["path"])

    @property
    def service_url(self) -> str:
        """Where this service is found, for commands and links that people take elsewhere."""
        return self.portal.own_url or str(self.request.base_url).rstrip("/")

    @property
    def is_fragment(self) -> bool:
        """A script asks, for a piece of a page."""
        return "hx-request" in self.request.headers

    def part(self, name: str) -> str:
        """A piece of this page's path that stands in the API's path too. Raises HTTPException (404) for what no name is."""
        value = str(self.request.path_params[name])
        if not _NAME.fullmatch(value) or value in {".", ".."}:
            raise HTTPException(404)
        return value

    async def api(
        self, method: str, path: str, *, params: Params | None = None, json: object = None, key: str | None = None
    ) -> Any:
        """What the API answers this person. Raises ApiRefusal."""
        return await self.portal.api.call(self.request, self.credential, method, path, params=params, json=json, key=key)

    def render(self, template: str, status: int = 200, **context: Any) -> Response:
        """A whole page."""
        session = self.slot.ensured()
        flash = session.flash
        if flash is not None:
            self.slot.session = replace(session, flash=None)
        text = self.portal.templates.render(
            template,
            me=self.me,
            csrf=session.csrf,
            flash=flash,
            path=self.request.scope["path"],
            address=self.address,
            is_first_run=self.portal.machine is not None,
            **context,
        )
        return Response(text, status_code=status, media_type="text/html")

    def fragment(self, template: str, status: int = 200, **context: Any) -> Response:
        """A piece of a page, for scripts that put it where the old one stood."""
        text = self.portal.templates.render(template, me=self.me, csrf=self.slot.ensured().csrf, **context)
        return Response(text, status_code=status, media_type="text/html")

    def say(self, sentence: str) -> None:
        """On the next page: something went well."""
        self.slot.session = replace(self.slot.ensured(), flash=("good", sentence[:500]))

    def complain(self, sentence: str) -> None:
        """On the next page: something did not."""
        self.slot.session = replace(self.slot.ensured(), flash=("bad", sentence[:500]))

    def go(self, path: str, **query: str) -> Response:
        """To another page, by GET."""
        return RedirectResponse(f"{path}?{urlencode(query)}" if query else path, status_code=303)

    def back(self, default: str) -> str:
        """Where the form was, if that is one of our pages."""
        return own_page(self.form.get("back"), default)


def own_page(address: str | None, default: str) -> str:
    """``address`` where it is a page of the portal, so that no link leads people elsewhere."""
    is_ours = address is not None and address.startswith("/portal/") and not set(address) & set("\\\r\n\t\0")
    return address if is_ours and address is not None and address.isascii() else default


Handler = Callable[[Visit], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


def open_page(handler: Handler) -> Endpoint:
    """A page, or a form, for everybody."""

    @functools.wraps(handler)
    async def endpoint(request: Request) -> Response:
        return await handler(await _visit(request))

    return endpoint


def page(handler: Handler) -> Endpoint:
    """A page, or a form, for who is signed in; others sign in first and come back."""

    @functools.wraps(handler)
    async def endpoint(request: Request) -> Response:
        visit = await _visit(request)
        try:
            if visit.credential is None:
                return _to_sign_in(visit)
            visit.me = await visit.api("GET", "/accounts/me")
            return await handler(visit)
        except ApiRefusal as refusal:
            if refusal.status != 401:
                raise
            if visit.slot.session is not None:
                visit.slot.session = visit.slot.session.signed_out()
            visit.complain("You were signed out: it was too long ago, or your account changed. Sign in again.")
            return _to_sign_in(visit)

    return endpoint


def action(default_back: str) -> Callable[[Handler], Endpoint]:
    """A form for who is signed in: what the API refuses is told on the page that it came from."""

    def wrapped(handler: Handler) -> Endpoint:
        @functools.wraps(handler)
        async def tried(visit: Visit) -> Response:
            try:
                return await handler(visit)
            except ApiRefusal as refusal:
                if refusal.status == 401:
                    raise
                visit.complain(refusal.message)
                return visit.go(visit.back(default_back))

        return page(tried)

    return wrapped


async def _visit(request: Request) -> Visit:
    """Raises ForeignRequest for forms that are not ours."""
    portal: Portal = request.app.state.portal
    visit = Visit(request, portal, request.state.slot)
    if request.method == "POST":
        visit.form = await _form(request)
        require_own_page(request, visit.slot, portal.own_url, visit.form.get(FIELD))
    return visit


async def _form(request: Request) -> dict[str, str]:
    """Fields as browsers send them by default. Raises ForeignRequest for what no form of ours sends."""
    content = bytearray()
    try:
        async with asyncio.timeout(FORM_SECONDS):
            async for piece in request.stream():
                content += piece
                if len(content) > MAX_FORM_BYTES:
                    raise ForeignRequest("This is more than any form here holds; nothing was changed.")
    except TimeoutError:
        raise ForeignRequest("The form did not arrive in time; nothing was changed.") from None
    try:
        return _pairs(bytes(content))
    except ValueError:
        raise ForeignRequest("This has more fields than any form here; nothing was changed.") from None


def _pairs(encoded: bytes) -> dict[str, str]:
    text = encoded.decode("latin-1")
    return dict(parse_qsl(text, keep_blank_values=True, errors="surrogateescape", max_num_fields=1000))


def _to_sign_in(visit: Visit) -> Response:
    headers = visit.request.headers
    if "hx-request" in headers:
        # A script asked for a piece of a page: the whole page is to go there.
        return Response(status_code=401, headers={"HX-Redirect": "/portal/sign-in"})
    if visit.request.method == "GET" and headers.get("sec-fetch-site") == "cross-site":
        # Who follows a link from elsewhere comes without the cookie; asked again by ourselves, the browser sends it.
        return visit.render("again.html", again=visit.address)
    wanted = visit.address if visit.request.method == "GET" else "/portal/"
    return visit.go("/portal/sign-in", **({} if wanted == "/portal/" else {"next": wanted}))
