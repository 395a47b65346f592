"""What the Files port needs commands for, the same on every system that runs commands as the user."""

from __future__ import annotations

import posixpath
import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress

from stagecoach.clusters.remote_trouble import refuse_odd
from stagecoach.clusters.ssh_pool import CommandResult
from stagecoach.core import anchored_commands as anchors
from stagecoach.core import file_commands as commands
from stagecoach.core.errors import PathRefused, StagecoachError
from stagecoach.core.file_commands import Compression, FullStatus
from stagecoach.ports.files import ArchiveOrder

# The command ends itself; this is for the way there and back.
ROAD_SECONDS = 10.0
QUICK_SECONDS = 20.0


class CommandedFiles(ABC):
    """For the plugs to build on: they say how a command runs, and how a file is written and removed."""

    @abstractmethod
    async def _run(self, username: str, words: Sequence[str], timeout_seconds: float) -> CommandResult:
        """One command, as the user, with no input."""

    @abstractmethod
    async def write_file(self, username: str, path: str, content: bytes, mode: int) -> None:
        """As in the port."""

    @abstractmethod
    async def remove_tree(self, username: str, path: str) -> None:
        """As in the port."""

    async def change_owner(self, username: str, path: str, owner: str, group: str) -> None:
        if "." in owner and not group:
            # With a group beside it, the name is one name.
            group = f"+{(await self.full_status(username, path, follow_symlinks=False)).gid}"
        directory, name = anchors.name_in(path)
        words = anchors.anchored(directory, commands.chown(name, owner, group))
        await self._said(username, words, path, program="chown" if owner else "chgrp")

    async def remove(self, username: str, path: str, *, timeout_seconds: float) -> None:
        if posixpath.normpath(path) in {"/", ".", "//"}:
            raise PathRefused("A whole file system is not removed.")
        await self._said(username, anchors.remove(path), path, seconds=timeout_seconds, program="rm")

    async def full_status(self, username: str, path: str, *, follow_symlinks: bool) -> FullStatus:
        return commands.status_in(await self._said(username, commands.stat(path, follow_symlinks=follow_symlinks), path))

    async def file_type(self, username: str, path: str) -> str:
        return commands.last_line(await self._said(username, commands.file_type(path), path))

    async def checksum(self, username: str, path: str, *, timeout_seconds: float) -> str:
        return commands.digest_in(await self._said(username, commands.sha256sum(path), path, seconds=timeout_seconds))

    async def links_below(self, username: str, path: str, *, timeout_seconds: float) -> list[str]:
        directory, name = anchors.name_in(path)
        words = anchors.links_below(directory, name)
        return anchors.links_in(await self._said(username, words, path, seconds=timeout_seconds, program="find"))

    async def archive(self, username: str, order: ArchiveOrder, path: str, *, timeout_seconds: float) -> None:
        refuse_odd(path)
        top, target = posixpath.dirname(path), f".stagecoach-{secrets.token_hex(8)}"
        archive, names = f"{target}.new", f"{target}.list"
        try:
            if order.pattern is None:
                directory, name = posixpath.split(order.source)
                words = commands.tar_create(name or ".", order.compression, dereference=order.dereference)
            else:
                directory, name = (order.source, "") if order.from_inside else posixpath.split(order.source)
                find = commands.find_matching(f"./{name}" if name else ".", order.pattern, dereference=order.dereference)
                finding = anchors.anchored(directory, find)
                found = await self._said(username, finding, order.source, seconds=timeout_seconds, program="find")
                await self.write_file(username, posixpath.join(top, names), _from_first_name(found), 0o600)
                words = commands.tar_create_of_list(order.compression, dereference=order.dereference)
            whole = anchors.whole_or_not(anchors.anchored(directory, words), path, archive, names)
            await self._said(username, whole, order.source, seconds=timeout_seconds, program="tar")
        except BaseException:
            # The command takes back what it made; one that was killed cannot. What cannot be removed now (the system went
            # away) is hidden and named as ours.
            await self._remove_left(username, top, archive, names)
            raise

    async def extract(
        self, username: str, path: str, directory: str, compression: Compression, *, timeout_seconds: float
    ) -> None:
        refuse_odd(directory)
        hidden = f".stagecoach-{secrets.token_hex(8)}.new"
        words = anchors.extract(commands.tar_extract(compression), path, directory, hidden)
        try:
            await self._said(username, words, path, seconds=timeout_seconds, program="tar")
        except BaseException:
            await self._remove_left(username, directory, hidden)
            raise

    async def _remove_left(self, username: str, directory: str, *names: str) -> None:
        for name in names:
            with suppress(StagecoachError):
                await self.remove_tree(username, posixpath.join(directory, name))

    async def _said(
        self, username: str, words: Sequence[str], path: str, *, seconds: float = QUICK_SECONDS, program: str = ""
    ) -> str:
        """What a command that ended well printed. ``program``: what runs in it, where the first word does not say so."""
        refuse_odd(path)
        result = await self._run(username, commands.bounded(words, seconds), seconds + ROAD_SECONDS)
        if result.exit_status != 0:
            raise commands.trouble(program or words[0], result.exit_status, result.stderr)
        return result.stdout


def _from_first_name(found: str) -> bytes:
    """Names as ``find`` printed them, without what a start file printed before."""
    content = found.encode("utf-8", "surrogateescape")
    start = 0 if content.startswith(b"./") else content.find(b"\n./") + 1
    return content[start:] if content[start:].startswith(b"./") else b""
