"""``stagecoach up``: the first page, which leads a newcomer through one upload."""

from __future__ import annotations

from starlette.responses import Response
from starlette.routing import Route

from stagecoach.portal.files import address_of, roots_of
from stagecoach.portal.visits import Visit, page


@page
async def show_welcome(visit: Visit) -> Response:
    """Into the first file system of the first system."""
    systems = (await visit.api("GET", "/status/systems"))["systems"]
    name = systems[0]["name"] if systems else None
    roots = roots_of(visit, name) if name else []
    place = (name, roots[0]) if name and roots else None
    return visit.render("welcome.html", place=place, address_of=address_of)


routes = [Route("/portal/welcome", show_welcome)]
