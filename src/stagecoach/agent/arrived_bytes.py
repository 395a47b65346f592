"""How much has arrived in a hidden folder, and whether its disk has hardly any room left. Blocking: to be called in a thread."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stagecoach.agent.receiver_folders import is_unfinished

# Unless the node's owner says otherwise: the smaller of the two, so that a small disk can be filled to the same part.
LEAST_FREE_BYTES = 2**30
LEAST_FREE_PART = 100
_LEAST_FREE_FILES = 1000


@dataclass(frozen=True)
class Arrived:
    """``unfinished_bytes``, of ``size_bytes``, are in files that a sender has begun and not ended."""

    size_bytes: int = 0
    unfinished_bytes: int = 0


def arrived_in(folder: Path) -> Arrived:
    """Sizes of all regular files below; nothing where it is gone. Names of bounded memory are kept at once: one directory's.

    Raises OSError for a disk that fails.
    """
    size = unfinished = 0
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        found = _size_of(entry)
                        size += found
                        unfinished += found if is_unfinished(entry.name) else 0
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # moved on since its name was read, or made by somebody else
    return Arrived(size, unfinished)


def lack_of_room(directory: Path, least_free_bytes: int | None) -> str | None:
    """In a sentence; None while there is room. ``least_free_bytes`` None: 1 GiB, or the hundredth part of a smaller disk.

    Raises OSError.
    """
    space = os.statvfs(directory)
    free_bytes, size_bytes = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
    least = min(LEAST_FREE_BYTES, size_bytes // LEAST_FREE_PART) if least_free_bytes is None else least_free_bytes
    if free_bytes < least:
        return f"The receiving disk has {free_bytes} bytes free, and {least} stay free there; free some space."
    # Some file systems count none.
    if space.f_files > 0 and space.f_favail < _LEAST_FREE_FILES:
        return f"The receiving disk takes only {space.f_favail} more files; free some space."
    return None


def _size_of(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0  # ended or removed since its name was read
