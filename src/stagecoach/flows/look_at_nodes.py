"""Looks at a transfer's end on a node, by its name alone: what is on the disk there only the mover sees, and says.

The path begins at the node's receive or send directory. The functions are those of ``look_at_files``, for nodes.
"""

from __future__ import annotations

import posixpath

from stagecoach.core.errors import NoSpace, PathRefused
from stagecoach.core.names import is_temporary_name, temporary_name
from stagecoach.core.nodes import ROOTS
from stagecoach.core.paths import MAX_PATH_BYTES, checked_directory_path, checked_file_path, checked_path
from stagecoach.flows.look_at_files import End
from stagecoach.flows.toolbox import System


async def look_at_node_target(system: System, username: str, path: str, size_bytes: int) -> End:
    """Where an upload goes. Raises PathRefused, NoSpace."""
    plain = checked_file_path(path, ROOTS)
    _require_nobodys_hidden_folder(plain)
    _require_room(system, plain, size_bytes)
    return End(plain, plain, size_bytes)


async def look_at_new_node_directory(system: System, username: str, path: str, size_bytes: int) -> End:
    """Where an upload's archive goes. Raises PathRefused, NoSpace."""
    plain = checked_directory_path(path, ROOTS)
    _require_nobodys_hidden_folder(plain)
    _require_room(system, plain, size_bytes)
    return End(plain, plain, size_bytes)


async def look_at_node_source(system: System, username: str, path: str) -> End:
    """What a download reads; its size is known when the mover has measured it. Raises PathRefused."""
    plain = checked_file_path(path, ROOTS)
    return End(plain, plain, None)


async def look_at_node_source_directory(system: System, username: str, path: str) -> End:
    """What a download with an archive reads. Raises PathRefused."""
    plain = checked_path(path, ROOTS)
    return End(plain, plain, None)


def _require_nobodys_hidden_folder(plain: str) -> None:
    """Another transfer's sender may be writing to it at this moment, through whatever link is put there."""
    if any(is_temporary_name(name) for name in plain.split("/")):
        raise PathRefused("The path leads into the hidden folder of a transfer; name another one.")


def _require_room(system: System, plain: str, size_bytes: int) -> None:
    directory = posixpath.dirname(plain)
    if len(f"{directory}/{temporary_name('x' * 26)}".encode()) > MAX_PATH_BYTES:
        raise PathRefused("The directory's path is so long that no hidden file fits beside the target; use a shorter one.")
    free = system.node.receive_free_bytes if system.node is not None else None
    if free is not None and free < size_bytes:
        raise NoSpace(f"The upload has {size_bytes} bytes but the node had only {free} free when it was last heard of.")
