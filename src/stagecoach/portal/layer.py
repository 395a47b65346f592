"""Around every answer of the portal: the session read before, cookies and browsers' safety headers written after."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stagecoach.portal.providers import Providers
from stagecoach.portal.sessions import Cookies, Session, new_session

HSTS_SECONDS = 365 * 24 * 3600
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(slots=True)
class Slot:
    """The session of one request; what stands here when the answer begins is what the browser keeps."""

    session: Session | None
    keeps_policy: bool = False
    """The answer has a content security policy of its own, a stricter one."""

    def ensured(self) -> Session:
        """With a secret for forms, also for strangers."""
        if self.session is None:
            self.session = new_session()
        return self.session


def content_policy(store_url: str) -> str:
    """Nothing but what this service itself serves, and parts straight to the store."""
    parts = urlsplit(store_url)
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data: blob:",
            "font-src 'self'",
            "worker-src 'self'",
            "manifest-src 'self'",
            f"connect-src 'self' {parts.scheme}://{parts.netloc}",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


class PortalLayer:
    """Outermost of the portal's layers."""

    def __init__(self, app: ASGIApp, cookies: Cookies, providers: Providers, policy: str) -> None:
        self._app = app
        self._cookies = cookies
        self._providers = providers
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent, is_https = Headers(scope=scope), scope["scheme"] == "https"
        if "content-length" in sent and "transfer-encoding" in sent:
            # Whoever is in front may have read the one where we read the other (RFC 9112, section 6.1).
            refusal = PlainTextResponse("The request says twice how long its body is.", 400, {"Connection": "close"})
            await refusal(scope, receive, send)
            return
        kept = self._cookies.read(sent, is_https=is_https)
        slot = Slot(await self._providers.renewed(kept) if kept is not None else None)
        given = sent.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        scope["state"] = {**scope.get("state", {}), "slot": slot, "request_id": request_id}

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                self._secure(headers, slot, request_id, is_https=is_https)
                if slot.session != kept:
                    for line in self._cookies.headers(slot.session, sent, is_https=is_https):
                        headers.append("Set-Cookie", line)
            await send(message)

        await self._app(scope, receive, with_headers)

    def _secure(self, headers: MutableHeaders, slot: Slot, request_id: str, *, is_https: bool) -> None:
        if not slot.keeps_policy:
            headers["Content-Security-Policy"] = self._policy
        headers["X-Content-Type-Options"] = "nosniff"
        # Not no-referrer: browsers would then send forms of ours without saying that they are ours.
        headers["Referrer-Policy"] = "same-origin"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=()"
        headers["X-Request-Id"] = request_id
        headers.setdefault("Cache-Control", "no-store")
        if is_https:
            headers["Strict-Transport-Security"] = f"max-age={HSTS_SECONDS}"
