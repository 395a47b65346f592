"""What Stagecoach asks of the files of a system, always acting as the user."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from stagecoach.core.file_commands import Compression, FullStatus


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
    type_letter: str
    """The kind as ``ls`` shows it, finer than ``kind``: one of ``- d l b c p s``."""


@dataclass(frozen=True, slots=True)
class FollowedLink:
    """What a symlink leads to in the end."""

    real_path: str
    status: FileStatus


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """One name in a directory, as lstat sees it. Names that are not UTF-8 carry surrogate escapes."""

    name: str
    status: FileStatus
    link_target: str | None = None
    """A symlink's text, as it stands."""
    followed: FollowedLink | None = None
    """Where symlinks are followed: what this one leads to; None when that does not exist or may not be seen."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a directory holds, without ``.`` and ``..``, in no order. Not whole: there is more than was asked for."""

    entries: tuple[DirectoryEntry, ...]
    is_whole: bool


@dataclass(frozen=True, slots=True)
class AccountNames:
    """Names of users and groups by their numbers; a number that nobody has is missing."""

    users: Mapping[int, str]
    groups: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class AccountNumbers:
    """Who a user is by numbers. The first of ``gids`` is the primary group."""

    uid: int
    gids: tuple[int, ...]


class OpenFile(Protocol):
    """A regular file that is open for reading; it stays the same one, whatever becomes of its name."""

    size_bytes: int
    """When it was opened."""

    async def read_at(self, offset: int, size_bytes: int) -> bytes:
        """So many bytes from there; fewer only where the file ends."""


class NewFile(Protocol):
    """A file that is being written, hidden until it is whole."""

    async def write(self, content: bytes) -> None:
        """Behind what was written before."""


@dataclass(frozen=True, slots=True)
class ArchiveOrder:
    """What goes into a tar archive: ``source`` and all below it, or of that only the regular files whose names match.

    ``pattern`` is a regular expression as ``find`` has it, for the whole of a name that begins with ``./``: seen from the
    directory of ``source``, or from ``source`` itself with ``from_inside``.
    """

    source: str
    compression: Compression
    dereference: bool = False
    pattern: str | None = None
    from_inside: bool = False


class Files(Protocol):
    """Raises FileMissing, PermissionRefused, NoSpace where the file system says so, SystemUnavailable when it cannot be asked.

    What reads or changes a user's files (``remove``, ``open_file``, ``create_…``, ``change_…``, ``archive``, ``extract``)
    takes a resolved path and raises PathRefused where a link has been put in the way since it was resolved.
    """

    async def home(self, username: str) -> str:
        """The user's home directory, absolute."""

    async def status(self, username: str, path: str, *, follow_symlinks: bool) -> FileStatus | None:
        """None when nothing is there."""

    async def real_path(self, username: str, path: str) -> str:
        """``path`` with every symlink resolved; it must exist."""

    async def read_link(self, username: str, path: str) -> str:
        """The text of the symlink ``path``, which need not lead anywhere."""

    async def list_directory(self, username: str, path: str, *, limit: int, follow_symlinks: bool) -> Listing:
        """At most ``limit`` entries of the directory; ``path`` may be a symlink to one. Raises NotAFile for anything else."""

    async def account_names(self, username: str, uids: Collection[int], gids: Collection[int]) -> AccountNames:
        """As the system itself knows them, asked as the user."""

    async def account_numbers(self, username: str) -> AccountNumbers:
        """Of the user, as the system itself knows them."""

    async def may(self, username: str, path: str, access: str) -> bool:
        """Whether the user may ``r``ead or ``w``rite (one letter each, in ``access``) the path, asked of the system itself."""

    async def is_empty(self, username: str, path: str) -> bool:
        """Whether the directory has no entry. Raises NotADirectory for anything else."""

    async def free_bytes(self, username: str, path: str) -> int | None:
        """Bytes the user may still write to the file system of ``path``; None when it cannot be told."""

    async def make_directory(self, username: str, path: str) -> None:
        """The directory and its parents exist; what is made has mode 0700."""

    async def write_file(self, username: str, path: str, content: bytes, mode: int) -> None:
        """Atomically: beside it, then renamed over it."""

    async def read_file(self, username: str, path: str, limit_bytes: int) -> bytes | None:
        """At most ``limit_bytes`` from the start; None when absent."""

    async def remove_tree(self, username: str, path: str) -> None:
        """The directory and all below it gone, following no symlink, closed and read-only directories of the user's as
        well; absent is fine. For the small things that this service made itself."""

    async def remove(self, username: str, path: str, *, timeout_seconds: float) -> None:
        """What a resolved path names, as with :meth:`remove_tree`; absent is fine. Raises PathRefused for a mount point, and
        for one below, which stays."""

    def open_file(self, username: str, path: str, *, timeout_seconds: float) -> AbstractAsyncContextManager[OpenFile]:
        """Open for what is inside, which may take so long. Raises FileMissing, NotAFile for what is no regular file."""

    def create_file(self, username: str, path: str, *, timeout_seconds: float) -> AbstractAsyncContextManager[NewFile]:
        """``path`` is what was written once the inside has ended, all at once; after an error it is what it was before.

        A file that it replaces leaves its mode to it; a new one has what the user's umask gives.
        """

    async def create_directory(self, username: str, path: str) -> None:
        """In a directory that exists, with what the umask gives. Raises FileExists."""

    async def create_symlink(self, username: str, path: str, target: str) -> None:
        """``target`` need not exist. Raises FileExists."""

    async def change_mode(self, username: str, path: str, mode: int) -> None:
        """The lowest twelve bits."""

    async def change_owner(self, username: str, path: str, owner: str, group: str) -> None:
        """Names or numbers, of which "" leaves what is. Raises InvalidRequest for one that the system has not."""

    async def full_status(self, username: str, path: str, *, follow_symlinks: bool) -> FullStatus:
        """Raises FileMissing."""

    async def file_type(self, username: str, path: str) -> str:
        """What the command ``file`` says of it; of a symlink, that it is one."""

    async def checksum(self, username: str, path: str, *, timeout_seconds: float) -> str:
        """The SHA-256 of the file, 64 hexadecimal digits. Raises OperationTooLong."""

    async def links_below(self, username: str, path: str, *, timeout_seconds: float) -> list[str]:
        """Where the symlinks at and below a resolved path, and below what they lead to, lead in the end. Raises as
        :meth:`archive`."""

    async def archive(self, username: str, order: ArchiveOrder, path: str, *, timeout_seconds: float) -> None:
        """A tar archive as ``path``: whole or not at all, as with ``create_file``. Raises OperationTooLong, CommandFailed."""

    async def extract(
        self, username: str, path: str, directory: str, compression: Compression, *, timeout_seconds: float
    ) -> None:
        """What the tar archive ``path`` holds, into a directory that exists, both resolved: all of it, and nothing outside.

        Raises OperationTooLong, CommandFailed; TargetExists where one side has a directory and the other none, or a link.
        """
