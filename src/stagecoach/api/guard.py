"""Lets no application start in which a route does not say who may call it, and tells the gate what is open to strangers."""

from __future__ import annotations

from fastapi import FastAPI

from stagecoach.api.access import OpenToAll, declared_routes

# What the framework adds by itself: the document of the API and the pages that show it.
DOCUMENT_PATHS = frozenset({"/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"})


def open_routes(app: FastAPI) -> frozenset[tuple[str, str]]:
    """Method and path of all that is open to strangers.

    Raises:
        RuntimeError: a route declares nothing (``api/access.py``), or several things; the message names it.
    """
    found = {(method, path) for method in ("GET", "HEAD") for path in DOCUMENT_PATHS}
    for route in declared_routes(app):
        if route.path in DOCUMENT_PATHS:
            continue
        if len(route.declares) != 1:
            raise RuntimeError(f"{route.method} {route.path}: must declare by one thing who may call it (api/access.py)")
        if isinstance(route.declares[0], OpenToAll):
            found.add((route.method, route.path))
    return frozenset(found)
