"""What Stagecoach asks of the files of a system, always acting as the user."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class FileKind(StrEnum):
    """What a path names."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What lstat or stat says of a path."""

    kind: FileKind
    size_bytes: int
    mode: int
    uid: int
    gid: int
    mtime_epoch_seconds: float


class Files(Protocol):
    """Raises FileMissing, PermissionRefused, NoSpace where the file system says so, SystemUnavailable when it cannot be asked."""

    async def home(self, username: str) -> str:
        """The user's home directory, absolute."""

    async def status(self, username: str, path: str, *, follow_symlinks: bool) -> FileStatus | None:
        """None when nothing is there."""

    async def real_path(self, username: str, path: str) -> str:
        """``path`` with every symlink resolved; it must exist."""

    async def may(self, username: str, path: str, access: str) -> bool:
        """Whether the user may ``r``ead or ``w``rite (one letter each, in ``access``) the path, asked of the system itself."""

    async def free_bytes(self, username: str, path: str) -> int | None:
        """Bytes the user may still write to the file system of ``path``; None when it cannot be told."""

    async def make_directory(self, username: str, path: str) -> None:
        """The directory and its parents exist; what is made has mode 0700."""

    async def write_file(self, username: str, path: str, content: bytes, mode: int) -> None:
        """Atomically: beside it, then renamed over it."""

    async def read_file(self, username: str, path: str, limit_bytes: int) -> bytes | None:
        """At most ``limit_bytes`` from the start; None when absent."""

    async def remove_file(self, username: str, path: str) -> None:
        """Gone; absent is fine."""

    async def remove_tree(self, username: str, path: str) -> None:
        """The directory and all below it gone, following no symlink; absent is fine."""
