"""Reaches a name in a directory of this machine by a resolved path, following no link that was put in the way since."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from stagecoach.core.anchored_commands import REPLACED
from stagecoach.core.errors import PathRefused

# A directory that one may pass through but not read cannot be opened in another way.
_PASSING = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def directory_of(path: str) -> Iterator[tuple[int, str]]:
    """The directory, open, for ``dir_fd``, and the last name. OSErrors pass through; PathRefused for a link on the way."""
    parent, name = os.path.split(path)
    directory = os.open("/", _PASSING)
    try:
        for step in parent.split("/"):
            if step:
                above = directory
                directory = _entered(above, step, parent)
                os.close(above)
        yield directory, name
    finally:
        os.close(directory)


def change_mode(path: str, mode: int) -> None:
    """Of what stands there itself. Raises PathRefused for a link."""
    with directory_of(path) as (directory, name):
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            if stat.S_ISLNK(os.fstat(descriptor).st_mode):
                raise PathRefused(f"{path!r} {REPLACED}.")
            # fchmod takes no descriptor of this kind.
            os.chmod(f"/proc/self/fd/{descriptor}", mode)
        finally:
            os.close(descriptor)


def make_directory(path: str) -> None:
    """One, with what the umask gives."""
    with directory_of(path) as (directory, name):
        os.mkdir(name, dir_fd=directory)


def make_symlink(path: str, target: str) -> None:
    """``path`` is the link."""
    with directory_of(path) as (directory, name):
        os.symlink(target, name, dir_fd=directory)


def _entered(above: int, step: str, parent: str) -> int:
    try:
        return os.open(step, _PASSING, dir_fd=above)
    except NotADirectoryError as error:
        raise PathRefused(f"{parent!r} {REPLACED}.") from error
