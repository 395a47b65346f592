"""Lists a directory of a system as the user: whole or not at all, inside the system's file systems, links told as links."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from stagecoach.core.access import Caller
from stagecoach.core.errors import FileMissing, ListingTooLarge, NotADirectory, PathRefused, PermissionRefused
from stagecoach.core.paths import checked_path, expanded_roots, is_inside
from stagecoach.flows.look_at_files import resolved_roots
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.ports.files import DirectoryEntry, FileKind, FileStatus

# Somebody waits for the answer, and proxies before us wait no longer.
LISTING_SECONDS = 50.0


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One line. ``name`` is relative to the directory (for a file: the path itself) and may hold surrogate escapes."""

    name: str
    status: FileStatus
    link_target: str | None
    user: str
    group: str


@dataclass(frozen=True, slots=True)
class ListingOptions:
    """As in ``ls``: -A, -R, -n, -L. Links are never walked through, so a listing has an end."""

    show_hidden: bool = False
    recursive: bool = False
    numeric_ids: bool = False
    dereference: bool = False


async def list_directory(
    tools: Toolbox, caller: Caller, system_name: str, path: str, options: ListingOptions
) -> list[ListedFile]:
    """What a directory holds, sorted by name, each directory before what is in it; or the one file that ``path`` names.

    A symbolic link is listed itself, unless ``path`` ends in a slash, is a root of the system, or links are dereferenced.
    A link that leads outside the file systems, or nowhere, is listed as a link even then.

    Raises:
        PathRefused, FileMissing, NotADirectory, PermissionRefused, ListingTooLarge, SystemNotFound, SystemUnavailable
    """
    system = tools.system_for(caller.username, system_name)
    try:
        async with asyncio.timeout(LISTING_SECONDS):
            return await _Listing(system, caller.username, options).of(path)
    except TimeoutError as error:
        raise ListingTooLarge(
            f"The listing took longer than {LISTING_SECONDS:g} s; list a directory further down, or without recursion."
        ) from error


class _Listing:
    """One listing under way."""

    def __init__(self, system: System, username: str, options: ListingOptions) -> None:
        self._system = system
        self._files = system.files
        self._username = username
        self._options = options
        self._limit = system.settings.limits.max_listed_entries
        self._roots = expanded_roots(system.settings.roots, username)
        self._resolved_roots: list[str] | None = None
        self._left = self._limit

    async def of(self, path: str) -> list[ListedFile]:
        plain = checked_path(path, self._roots, any_bytes=True)
        wants_directory = path.endswith(("/", "/.")) or plain in map(posixpath.normpath, self._roots)
        entry = await self._the_path_itself(plain, follow=wants_directory or self._options.dereference)
        if entry.status.kind is FileKind.DIRECTORY:
            return await self._named(await self._below(plain))
        if wants_directory:
            raise NotADirectory(f"{plain!r} is not a directory.")
        return await self._named([entry])

    async def _the_path_itself(self, path: str, *, follow: bool) -> DirectoryEntry:
        status = await self._files.status(self._username, path, follow_symlinks=False)
        if status is None:
            raise FileMissing(f"{path!r}: No such file or directory.")
        target = None
        if status.kind is FileKind.SYMLINK and follow:
            followed = await self._files.status(self._username, path, follow_symlinks=True)
            if followed is None:
                raise FileMissing(f"{path!r} is a symbolic link to nothing: No such file or directory.")
            status = followed
        if status.kind is FileKind.SYMLINK:
            target = await self._files.read_link(self._username, path)
            real_path = posixpath.join(
                await self._files.real_path(self._username, posixpath.dirname(path)), posixpath.basename(path)
            )
        else:
            real_path = await self._files.real_path(self._username, path)
        if not await self._is_inside(real_path):
            raise PathRefused("The path leads, through a symbolic link, outside this system's file systems.")
        return DirectoryEntry(path, status, target)

    async def _below(self, top: str) -> list[DirectoryEntry]:
        found: list[DirectoryEntry] = []
        waiting = [""]
        while waiting:
            # One after the other: they share the one file session that is kept open.
            entries = await self._read(top, waiting.pop())
            found += entries
            if self._options.recursive:
                # As lstat saw them: a link to a directory is not one.
                waiting += [entry.name for entry in entries if entry.status.kind is FileKind.DIRECTORY]
        shown = [await self._dereferenced(entry) for entry in found] if self._options.dereference else found
        return sorted(shown, key=lambda entry: _bytes(entry.name).split(b"/"))

    async def _read(self, top: str, directory: str) -> list[DirectoryEntry]:
        """What is in ``directory`` (relative to ``top``, "" for ``top`` itself), named relative to ``top``."""
        path = posixpath.join(top, directory) if directory else top
        try:
            listing = await self._files.list_directory(
                self._username, path, limit=self._left, follow_symlinks=self._options.dereference
            )
        except PermissionRefused as error:
            raise PermissionRefused(f"Permission denied: you may not read the directory {path!r}.") from error
        except (FileMissing, NotADirectory):
            if directory:
                return []  # it went away since it was listed
            raise
        self._left -= len(listing.entries)
        if not listing.is_whole:
            raise ListingTooLarge(
                f"{top!r} holds more than the {self._limit} names that one listing may have; "
                "list a directory further down, or without recursion.",
                data={"limit": self._limit},
            )
        hidden = () if self._options.show_hidden else (".",)
        return [
            DirectoryEntry(posixpath.join(directory, entry.name), entry.status, entry.link_target, entry.followed)
            for entry in listing.entries
            if not entry.name.startswith(hidden)
        ]

    async def _is_inside(self, real_path: str) -> bool:
        """A root may itself be a symlink, so the path may be inside the resolved roots instead: seldom, so asked last."""
        if is_inside(real_path, self._roots):
            return True
        if self._resolved_roots is None:
            self._resolved_roots = await resolved_roots(self._system, self._username, self._roots)
        return is_inside(real_path, self._resolved_roots)

    async def _dereferenced(self, entry: DirectoryEntry) -> DirectoryEntry:
        if entry.followed is None or not await self._is_inside(entry.followed.real_path):
            return entry
        return DirectoryEntry(entry.name, entry.followed.status)

    async def _named(self, entries: Sequence[DirectoryEntry]) -> list[ListedFile]:
        uids, gids = {entry.status.uid for entry in entries}, {entry.status.gid for entry in entries}
        users, groups = {uid: str(uid) for uid in uids}, {gid: str(gid) for gid in gids}
        if not self._options.numeric_ids and entries:
            names = await self._files.account_names(self._username, uids, gids)
            users, groups = {**users, **names.users}, {**groups, **names.groups}
        return [
            ListedFile(entry.name, entry.status, entry.link_target, users[entry.status.uid], groups[entry.status.gid])
            for entry in entries
        ]


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
