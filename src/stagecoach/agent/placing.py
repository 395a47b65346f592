"""The command ``place``: what has arrived in the hidden folder is joined where it came in parts, counted, made durable, and
moved to its target at once.

The old file stands until the new one takes its name. Before the move a note says what is about to stand at the target, so
that a repeat after a crash knows its own work. Blocking: to be called in a thread.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass

from stagecoach.agent.arrivals import Arrival, Arrivals
from stagecoach.agent.joining import join_parts
from stagecoach.mover.stagecoach_mover import (
    DIRECTORY_FLAGS,
    Failed,
    Handle,
    current_umask,
    default_mode,
    disk_errors,
    remove_tree,
    sync_file_system,
)

_MISSING = "target_missing_directory"
# Of network checks and of rclone, whoever was killed in the middle of one.
_LEFTOVERS = (".stagecoach-check-", ".rclone_temp_", ".rclone_multipart_upload_")


@dataclass(frozen=True)
class Placed:
    """What stands at the target now."""

    size_bytes: int
    files: int


def place(arrivals: Arrivals, one: Arrival, expected: Placed) -> Placed:
    """Raises Failed: ``size_mismatch`` when it is not what was sent, and then nothing was moved; ``target_exists``."""
    with disk_errors(_MISSING):
        there = arrivals.directory_of(one)
        if _is_done(arrivals, one, there):
            if not one.is_directory:
                _remove_folder(one, there)
            os.fsync(there.descriptor)
            return expected
        try:
            folder = Handle(os.open(one.hidden, DIRECTORY_FLAGS, dir_fd=there.descriptor))
        except FileNotFoundError:
            raise Failed("size_mismatch", "Nothing of the transfer is on the node any more.") from None
        join_parts(folder, is_directory=one.is_directory, most_bytes=expected.size_bytes)
        names = _counted(folder, expected, one)
        mode = arrivals.require_free(one)
        if one.is_directory:
            _move_directory(arrivals, one, there, folder)
        else:
            _move_file(arrivals, one, there, folder, names[0], default_mode() if mode is None else mode)
        os.fsync(there.descriptor)
    return expected


def _is_done(arrivals: Arrivals, one: Arrival, there: Handle) -> bool:
    noted = arrivals.noted(one.transfer_id) or {}
    with suppress(FileNotFoundError):
        return noted.get("placing") is not None and noted["placing"] == _identity(
            os.stat(one.name, dir_fd=there.descriptor, follow_symlinks=False)
        )
    return False


def _identity(found: os.stat_result) -> list[int]:
    return [found.st_dev, found.st_ino]


def _counted(folder: Handle, expected: Placed, one: Arrival) -> list[str]:
    """The names right in the folder. Raises Failed unless it holds exactly what was sent."""
    size = files = 0
    top: list[str] = []
    for path, directories, names, descriptor in os.fwalk(".", dir_fd=folder.descriptor, onerror=_raise):
        for name in names:
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if name.startswith(_LEFTOVERS):
                os.unlink(name, dir_fd=descriptor)
                continue
            if not stat.S_ISREG(found.st_mode):
                raise Failed("size_mismatch", "Something that is no regular file was put into the transfer's hidden folder.")
            files += 1
            size += found.st_size
            if path == ".":
                top.append(name)
        for name in directories:  # links to directories are among them
            if not stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                raise Failed("size_mismatch", "A link to a directory was put into the transfer's hidden folder.")
        if path == "." and directories and not one.is_directory:
            raise Failed("size_mismatch", "A file was to arrive, and there are directories.")
    if (size, files) != (expected.size_bytes, expected.files) or (not one.is_directory and len(top) != 1):
        raise Failed(
            "size_mismatch",
            f"{files} files with {size} bytes have arrived, and {expected.files} with {expected.size_bytes} were sent. Where the"
            " source has changed between two tries, send it anew.",
        )
    return top


def _raise(error: OSError) -> None:
    raise error


def _move_directory(arrivals: Arrivals, one: Arrival, there: Handle, folder: Handle) -> None:
    found = os.fstat(folder.descriptor)
    os.fchmod(folder.descriptor, (0o777 & ~current_umask()) | (found.st_mode & stat.S_ISGID))
    sync_file_system(folder.descriptor)
    arrivals.note(one, placing=_identity(found))
    try:  # over an empty directory at the most: the system refuses anything else
        os.rename(one.hidden, one.name, src_dir_fd=there.descriptor, dst_dir_fd=there.descriptor)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            words = "Something stands at the path; a directory goes only where nothing is, or an empty one."
            raise Failed("target_exists", words) from None
        raise


def _move_file(arrivals: Arrivals, one: Arrival, there: Handle, folder: Handle, name: str, mode: int) -> None:
    file = Handle(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder.descriptor))
    os.fchmod(file.descriptor, mode)
    os.fsync(file.descriptor)
    arrivals.note(one, placing=_identity(os.fstat(file.descriptor)))
    os.rename(name, one.name, src_dir_fd=folder.descriptor, dst_dir_fd=there.descriptor)
    _remove_folder(one, there)


def _remove_folder(one: Arrival, there: Handle) -> None:
    # The file is at its place: what keeps the folder (NFS: a file that somebody has open) is removed when the note is old.
    with suppress(OSError):
        remove_tree(there.descriptor, one.hidden)
