"""Every route says who may call it; one that says nothing fails here."""

from __future__ import annotations

from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI

from stagecoach.api.access import DeclaredRoute, OpenToAll, TransfersReader, declared_routes, open_to_all
from stagecoach.core.access import Caller, Credential, CredentialKind, Scope, scopes_of

# The framework's own pages; they show what openapi/openapi.json in the repository shows.
PAGES = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}
STRANGERS = {
    ("GET", "/healthz"),
    ("GET", "/auth/methods"),
    ("GET", "/status/liveness/"),
    ("POST", "/accounts"),
    ("POST", "/accounts/sessions"),
    ("POST", "/agent/enrol"),
}


def routes(app: FastAPI) -> list[DeclaredRoute]:
    """All but the framework's pages."""
    return [route for route in declared_routes(app) if route.path not in PAGES]


def undeclared(app: FastAPI) -> list[str]:
    """Routes that declare nothing, or more than one thing."""
    return [route.path for route in routes(app) if len(route.declares) != 1]


def test_every_route_declares_who_may_call_it(application: FastAPI) -> None:
    assert len(routes(application)) >= 10
    assert undeclared(application) == []


def test_a_route_that_declares_nothing_is_found(application: FastAPI) -> None:
    router = APIRouter()

    @router.get("/forgotten")
    async def forgotten() -> None: ...

    @router.get("/twice", dependencies=[open_to_all()])
    async def twice(caller: TransfersReader) -> None: ...

    @router.get("/by-hand")
    async def by_hand(caller: Annotated[str, Depends(lambda: "alice")]) -> None: ...

    @application.get("/straight")
    async def straight() -> None: ...

    application.include_router(router)
    assert undeclared(application) == ["/straight", "/forgotten", "/twice", "/by-hand"]


def test_only_these_routes_are_open_to_strangers(application: FastAPI) -> None:
    found = {(route.method, route.path) for route in routes(application) if isinstance(route.declares[0], OpenToAll)}
    assert found == STRANGERS


async def test_a_stranger_is_refused_by_every_other_route(application: FastAPI, anonymous: httpx.AsyncClient) -> None:
    closed = [route for route in routes(application) if (route.method, route.path) not in STRANGERS]
    assert len(closed) >= 10
    for route in closed:
        answer = await anonymous.request(route.method, route.path)
        assert answer.status_code == 401, route
        # What the gate lets through, the guard stops.
        answer = await anonymous.request(route.method, route.path, headers={"Authorization": "Bearer x"})
        assert answer.status_code == 401, route


@pytest.mark.parametrize("is_admin", [True, False])
def test_a_caller_is_an_administrator_by_scope(is_admin: bool) -> None:
    credential = Credential(CredentialKind.ISSUED, "alice", 1.0, scopes_of(is_admin=is_admin))
    caller = credential.as_caller()
    assert caller == Caller("alice", is_admin)
    assert (Scope.ADMIN in credential.scopes) is is_admin
