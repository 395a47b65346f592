"""Looks at the two ends of a transfer before anything is made: on a cluster at its files, of a node at the path alone."""

from __future__ import annotations

from stagecoach.core.transfer import Archive
from stagecoach.flows.look_at_files import (
    End,
    look_at_new_directory,
    look_at_source,
    look_at_source_directory,
    look_at_target,
)
from stagecoach.flows.look_at_nodes import (
    look_at_new_node_directory,
    look_at_node_source,
    look_at_node_source_directory,
    look_at_node_target,
)
from stagecoach.flows.toolbox import System


async def look_at_destination(system: System, username: str, path: str, size_bytes: int, archive: Archive | None) -> End:
    """Where it goes. Raises as the looks of ``look_at_files`` and ``look_at_nodes`` do."""
    look = look_at_target if archive is None else look_at_new_directory
    if system.node_id is not None:
        look = look_at_node_target if archive is None else look_at_new_node_directory
    return await look(system, username, path, size_bytes)


async def look_at_origin(system: System, username: str, path: str, archive: Archive | None) -> End:
    """Where it comes from. Raises as :func:`look_at_destination`."""
    look = look_at_source if archive is None else look_at_source_directory
    if system.node_id is not None:
        look = look_at_node_source if archive is None else look_at_node_source_directory
    return await look(system, username, path)
