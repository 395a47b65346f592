"""Where transfers begin and end, as people call it: clusters by their names, nodes by the names of their owners' choice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stagecoach.core.nodes import SYSTEM_PREFIX
from stagecoach.portal.api_calls import ApiRefusal
from stagecoach.portal.visits import Visit

MAY_READ, MAY_WRITE = "nodes:read", "nodes:write"


@dataclass(frozen=True, slots=True)
class Place:
    """``system`` as the API takes it. ``folder`` is where one may send to, on a node of somebody else."""

    system: str
    name: str
    folder: str = "/"
    is_mine: bool = True


def is_node(system: str) -> bool:
    """And no cluster."""
    return system.startswith(SYSTEM_PREFIX)


def node_places(nodes: Iterable[Mapping[str, Any]]) -> list[Place]:
    """Of one's own."""
    return [Place(node["system"], node["name"]) for node in nodes]


def granted_places(grants: Iterable[Mapping[str, Any]]) -> list[Place]:
    """Of others."""
    return [
        Place(grant["system"], f"{grant['nodeName']} ({grant['nodeOwner']})", grant["folder"], is_mine=False) for grant in grants
    ]


async def own_nodes(visit: Visit) -> list[dict[str, Any]]:
    """Newest first; none for who may not see nodes."""
    return list(await _listed(visit, "/nodes", "nodes"))


async def held_grants(visit: Visit) -> list[dict[str, Any]]:
    """The nodes of others that one may send to."""
    return list(await _listed(visit, "/grants", "grants"))


async def names_of(visit: Visit, transfers: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What the nodes of these transfers are called, by their names as systems; asked only where there is one."""
    if not any(is_node(system) for transfer in transfers for system in systems_of(transfer)):
        return {}
    places = granted_places(await held_grants(visit)) + node_places(await own_nodes(visit))
    return {place.system: place.name for place in places}


def systems_of(transfer: Mapping[str, Any]) -> list[str]:
    """At both ends."""
    ends = (transfer.get("source"), transfer.get("destination"))
    return [transfer["system"], *(end["system"] for end in ends if end is not None)]


async def _listed(visit: Visit, path: str, name: str) -> list[dict[str, Any]]:
    if MAY_READ not in visit.me["scopes"]:
        return []
    try:
        return list((await visit.api("GET", path))[name])
    except ApiRefusal as refusal:
        # Names are worth less than the page on which they would stand.
        if refusal.status == 403:
            return []
        raise
