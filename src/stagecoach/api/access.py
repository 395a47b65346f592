"""Who may call: every route declares it, by a parameter of one of the types below or by ``open_to_all``.

A route that declares nothing fails ``tests/unit/api/test_access.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

from fastapi import Depends, FastAPI, Request
from fastapi.routing import iter_route_contexts
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from stagecoach.api.request_rate import RequestRate, address_of
from stagecoach.api.tokens import TokenChecker
from stagecoach.core.access import Caller, Credential, Scope
from stagecoach.core.bearer_secrets import is_secret_of_ours
from stagecoach.core.errors import NotAuthenticated, PermissionRefused
from stagecoach.core.nodes import Node
from stagecoach.flows.believe_node import believe_node
from stagecoach.flows.believe_secret import believe_secret
from stagecoach.flows.toolbox import Toolbox

_bearer = HTTPBearer(auto_error=False, description="A token of a configured issuer, of a session, or a personal token.")

_of_node = HTTPBearer(auto_error=False, scheme_name="NodeCredential", description="The credential of a node's agent.")


def toolbox(request: Request) -> Toolbox:
    """The toolbox that the app was made with."""
    tools: Toolbox = request.app.state.tools
    return tools


async def maybe_believed(
    request: Request,
    tools: Annotated[Toolbox, Depends(toolbox)],
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Credential | None:
    """What the caller came with, looked at once a request; None from a stranger. Raises as ``believed``."""
    if credentials is None or not credentials.credentials:
        return None
    checker: TokenChecker = request.app.state.tokens
    rate: RequestRate = request.app.state.rate
    token = credentials.credentials
    try:
        found = await (believe_secret(tools, token) if is_secret_of_ours(token) else checker.believe(token))
    except NotAuthenticated:
        # Only those are counted by their address whose token does not hold: an office has one address for many.
        rate.count_stranger(address_of(request))
        raise
    who = found.username if found.username is not None else f"account {found.account_name}"
    request.state.username = found.username
    rate.count_user(who)
    return found


async def believed(found: Annotated[Credential | None, Depends(maybe_believed)]) -> Credential:
    """What the caller came with. Raises NotAuthenticated, TooManyRequests, Unavailable."""
    if found is None:
        raise NotAuthenticated("Send a token: Authorization: Bearer <token>.")
    return found


@dataclass(frozen=True)
class Guard:
    """The declaration of a route for people with a user on the clusters, whose credential holds ``scope`` or one of
    ``or_scopes``."""

    scope: Scope
    or_scopes: tuple[Scope, ...] = ()

    @property
    def scopes(self) -> frozenset[Scope]:
        """Each of them opens the route."""
        return frozenset({self.scope, *self.or_scopes})

    async def __call__(self, credential: Annotated[Credential, Depends(believed)]) -> Caller:
        """Raises NotAuthenticated, PermissionRefused, TooManyRequests."""
        if not self.scopes & credential.scopes:
            _refuse(self.scope)
        caller = credential.as_caller()
        if caller is None:
            raise PermissionRefused("Your account has no user on the clusters yet: an administrator must give it one.")
        return caller


@dataclass(frozen=True)
class SignedIn:
    """The declaration of a route for everybody with a credential that holds, whoever they are on the clusters."""

    async def __call__(self, credential: Annotated[Credential, Depends(believed)]) -> Credential:
        """Raises NotAuthenticated, TooManyRequests."""
        return credential


@dataclass(frozen=True)
class OfNodes:
    """The declaration of a route for the agents of nodes, and for nobody else."""

    async def __call__(
        self,
        request: Request,
        tools: Annotated[Toolbox, Depends(toolbox)],
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_of_node)],
    ) -> Node:
        """Raises NotAuthenticated, TooManyRequests."""
        rate: RequestRate = request.app.state.rate
        try:
            node = await believe_node(tools, credentials.credentials if credentials is not None else "")
        except NotAuthenticated:
            rate.count_stranger(address_of(request))
            raise
        rate.count_user(f"node {node.id}")
        return node


@dataclass(frozen=True)
class OpenToAll:
    """The declaration of a route for strangers."""

    is_counted: bool = True

    async def __call__(self, request: Request) -> None:
        """Who brings a token that nobody looks at here is counted as a stranger; the gate counted who brings none.

        Raises TooManyRequests.
        """
        if self.is_counted and request.headers.get("authorization", "").lower().startswith("bearer "):
            rate: RequestRate = request.app.state.rate
            rate.count_stranger(address_of(request))


def requires(scope: Scope, *or_scopes: Scope) -> Any:
    """The route is for people with a user on the clusters; their credential must hold ``scope`` or one of the others."""
    return Depends(Guard(scope, or_scopes))


def open_to_all(*, is_counted: bool = True) -> Any:
    """The route is for strangers: ``dependencies=[open_to_all()]``; as often as they like where they are not counted."""
    return Depends(OpenToAll(is_counted))


@dataclass(frozen=True, slots=True)
class DeclaredRoute:
    """One way in, and what it declares: one thing, and only one, is right."""

    method: str
    path: str
    declares: tuple[Guard | SignedIn | OfNodes | OpenToAll, ...]


def declared_routes(app: FastAPI) -> Iterator[DeclaredRoute]:
    """Every route of the application; the framework's own pages and whatever is mounted declare nothing."""
    for route in iter_route_contexts(app.routes):
        dependant = getattr(route, "dependant", None)
        called = [dependency.call for dependency in dependant.dependencies] if dependant is not None else []
        declares = tuple(call for call in called if isinstance(call, Guard | SignedIn | OfNodes | OpenToAll))
        for method in sorted(route.methods or {"ANY"}):
            yield DeclaredRoute(method, route.path or str(route.original_route), declares)


def _refuse(scope: Scope) -> NoReturn:
    if scope is Scope.ADMIN:
        raise PermissionRefused("This is for administrators.")
    raise PermissionRefused(f"Your token does not hold the scope {scope}; make one that does.", data={"scope": scope.value})


Tools = Annotated[Toolbox, Depends(toolbox)]
MaybeCredential = Annotated[Credential | None, Depends(maybe_believed)]
CurrentCredential = Annotated[Credential, Depends(SignedIn())]
CurrentNode = Annotated[Node, Depends(OfNodes())]
TransfersReader = Annotated[Caller, requires(Scope.TRANSFERS_READ)]
TransfersWriter = Annotated[Caller, requires(Scope.TRANSFERS_WRITE)]
FilesReader = Annotated[Caller, requires(Scope.FILES_READ)]
FilesWriter = Annotated[Caller, requires(Scope.FILES_WRITE)]
JobsReader = Annotated[Caller, requires(Scope.JOBS_READ)]
JobsWriter = Annotated[Caller, requires(Scope.JOBS_WRITE)]
# A transfer's staging job is the transfer's as well.
JobOrTransferReader = Annotated[Caller, requires(Scope.JOBS_READ, Scope.TRANSFERS_READ)]
JobOrTransferWriter = Annotated[Caller, requires(Scope.JOBS_WRITE, Scope.TRANSFERS_WRITE)]
# Which systems there are and who one is on them, every program must know.
SystemsReader = Annotated[Caller, requires(Scope.JOBS_READ, Scope.TRANSFERS_READ, Scope.FILES_READ)]
NodesReader = Annotated[Caller, requires(Scope.NODES_READ)]
NodesWriter = Annotated[Caller, requires(Scope.NODES_WRITE)]
TokensManager = Annotated[Caller, requires(Scope.TOKENS_MANAGE)]
Administrator = Annotated[Caller, requires(Scope.ADMIN)]
