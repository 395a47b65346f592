"""Whether a request comes from a page of ours: what it says of its origin, and the secret that only our pages know."""

from __future__ import annotations

import hmac

from starlette.requests import Request

from stagecoach.portal.layer import Slot

FIELD, HEADER = "csrf", "X-CSRF-Token"
SAFE_METHODS = frozenset({"GET", "HEAD"})


class ForeignRequest(Exception):
    """Another site may be behind it; nothing was done. The message is a sentence for people."""


def require_own_page(request: Request, slot: Slot, own_url: str | None, token: str | None) -> None:
    """Raises ForeignRequest, unless it was sent by a page of this service with the session's secret."""
    require_same_origin(request, own_url)
    session = slot.session
    if session is None or not hmac.compare_digest((token or "").encode(), session.csrf.encode()):
        raise ForeignRequest("This page was open for too long, or in a browser without cookies. Nothing was changed; try again.")


def require_same_origin(request: Request, own_url: str | None) -> None:
    """Raises ForeignRequest where the browser says that another site asks."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    own = {own_url, f"{request.url.scheme}://{request.headers.get('host', '')}"}
    is_own = site in {"same-origin", "none"} if site is not None else origin is None or origin in own
    if not is_own:
        raise ForeignRequest("Another site sent this request in your name; it was refused, and nothing was changed.")
