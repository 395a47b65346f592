"""Takes FirecREST's routes in capitals as well: it lower-cases the whole path, and what was written for it relies on that."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

FIRECREST_PATHS = ("/status/", "/filesystem/", "/compute/")


class LowerCasePaths:
    """Our own routes stay as they are: names in them may have capitals. The query is not touched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http" and (path := scope["path"].lower()).startswith(FIRECREST_PATHS):
            # In place: what stands outside reads from it, afterwards, which route has answered.
            scope["path"] = path
        await self._app(scope, receive, send)
