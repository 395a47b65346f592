"""Who calls: the dependency that every route but the health check has."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from stagecoach.api.tokens import TokenChecker
from stagecoach.core.access import Caller
from stagecoach.core.errors import NotAuthenticated
from stagecoach.flows.toolbox import Toolbox

_bearer = HTTPBearer(auto_error=False, bearerFormat="JWT", description="A token of the configured issuer.")


def toolbox(request: Request) -> Toolbox:
    """The toolbox that the app was made with."""
    tools: Toolbox = request.app.state.tools
    return tools


async def caller(request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Caller:
    """The person whose token came with the request. Raises NotAuthenticated."""
    if credentials is None or not credentials.credentials:
        raise NotAuthenticated("Send a token: Authorization: Bearer <token>.")
    checker: TokenChecker = request.app.state.tokens
    found = await checker.caller(credentials.credentials)
    request.state.username = found.username
    return found


Tools = Annotated[Toolbox, Depends(toolbox)]
CurrentCaller = Annotated[Caller, Depends(caller)]
