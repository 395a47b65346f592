"""``/healthz``: whether this process can work. No token."""

from __future__ import annotations

from fastapi import APIRouter, Response

from stagecoach import __version__
from stagecoach.api.access import Tools, open_to_all
from stagecoach.wire.transfers import Health

router = APIRouter(tags=["health"])


@router.get(
    "/healthz",
    responses={503: {"model": Health, "description": "The database does not answer."}},
    dependencies=[open_to_all(is_counted=False)],
)
async def get_health(tools: Tools, response: Response) -> Health:
    """200 when the database answers, 503 when it does not."""
    alive = await tools.transfers.is_alive()
    if not alive:
        response.status_code = 503
    return Health(status="ok" if alive else "unavailable", version=__version__, database=alive)
