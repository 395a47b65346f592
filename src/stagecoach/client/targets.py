"""Where a download goes on this machine: looked at before anything is begun, cleared when it is given up."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from stagecoach.client.errors import TransferFailed
from stagecoach.mover import stagecoach_mover


def require_place(target: Path, *, is_tree: bool) -> None:
    """Raises TransferFailed: target_missing_directory, target_is_directory, target_exists, permission_denied."""
    if not target.parent.is_dir():
        raise TransferFailed(f"There is no directory {target.parent} to put it into.", "target_missing_directory")
    if not is_tree:
        if target.is_dir():
            raise TransferFailed(f"{target} is a directory; name the file.", "target_is_directory")
        return
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise TransferFailed(f"{target} exists and is no directory; name one that does not exist yet.", "target_exists")
    try:
        is_empty = next(target.iterdir(), None) is None
    except OSError as error:
        raise TransferFailed(f"{target} cannot be read ({error.strerror}).", "permission_denied") from None
    if not is_empty:
        raise TransferFailed(f"The directory {target} is not empty; name one that does not exist yet.", "target_exists")


def remove_hidden(directory: Path, transfer_id: str) -> None:
    """What an unfinished download has left beside its target: a file, or a tree with read-only directories in it."""
    with contextlib.suppress(OSError):
        parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            stagecoach_mover.remove_tree(parent, f".stagecoach-{transfer_id}.part".encode())
        finally:
            os.close(parent)
