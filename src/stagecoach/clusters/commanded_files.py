"""What the Files port needs commands for, the same on every system that runs commands as the user."""

from __future__ import annotations

import posixpath
import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress

from stagecoach.clusters.remote_trouble import refuse_odd
from stagecoach.clusters.ssh_pool import CommandResult
from stagecoach.core import file_commands as commands
from stagecoach.core.errors import StagecoachError
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
    async def remove_tree(self, username: str, path: str, *, timeout_seconds: float | None = None) -> None:
        """As in the port."""

    async def change_owner(self, username: str, path: str, owner: str, group: str) -> None:
        await self._said(username, commands.chown(path, owner, group), path)

    async def full_status(self, username: str, path: str, *, follow_symlinks: bool) -> FullStatus:
        return commands.status_in(await self._said(username, commands.stat(path, follow_symlinks=follow_symlinks), path))

    async def file_type(self, username: str, path: str) -> str:
        return commands.last_line(await self._said(username, commands.file_type(path), path))

    async def checksum(self, username: str, path: str, *, timeout_seconds: float) -> str:
        return commands.digest_in(await self._said(username, commands.sha256sum(path), path, seconds=timeout_seconds))

    async def archive(self, username: str, order: ArchiveOrder, path: str, *, timeout_seconds: float) -> None:
        refuse_odd(path)
        beside = posixpath.join(posixpath.dirname(path), f".stagecoach-{secrets.token_hex(8)}")
        archive, names = f"{beside}.new", f"{beside}.list"
        try:
            if order.pattern is None:
                words = commands.tar_create(order.source, archive, order.compression, dereference=order.dereference)
            else:
                directory, name = (order.source, "") if order.from_inside else posixpath.split(order.source)
                start = f"./{name}" if name else "."
                find = commands.find_matching(directory, start, order.pattern, dereference=order.dereference)
                found = await self._said(username, find, order.source, seconds=timeout_seconds)
                await self.write_file(username, names, _from_first_name(found), 0o600)
                words = commands.tar_create_of_list(directory, names, archive, order.compression, dereference=order.dereference)
            whole = commands.whole_or_not(words, archive, names, path)
            await self._said(username, whole, order.source, seconds=timeout_seconds, program="tar")
        except BaseException:
            # The command takes back what it made; one that was killed cannot. What cannot be removed now (the system went
            # away) is hidden and named as ours.
            for left in (archive, names):
                with suppress(StagecoachError):
                    await self.remove_tree(username, left)
            raise

    async def extract(
        self, username: str, path: str, directory: str, compression: Compression, *, timeout_seconds: float
    ) -> None:
        refuse_odd(directory)
        await self._said(username, commands.tar_extract(path, directory, compression), path, seconds=timeout_seconds)

    async def _said(
        self, username: str, words: Sequence[str], path: str, *, seconds: float = QUICK_SECONDS, program: str | None = None
    ) -> str:
        """What a command that ended well printed. ``program``: what runs in it, where the first word does not say so."""
        refuse_odd(path)
        result = await self._run(username, commands.bounded(words, seconds), seconds + ROAD_SECONDS)
        if result.exit_status != 0:
            raise commands.trouble(program or _program(words), result.exit_status, result.stderr)
        return result.stdout


def _program(words: Sequence[str]) -> str:
    """The name of what runs, behind what it runs in."""
    return next(word for word in words if word != "env" and not word.startswith("--chdir="))


def _from_first_name(found: str) -> bytes:
    """Names as ``find`` printed them, without what a start file printed before."""
    content = found.encode("utf-8", "surrogateescape")
    start = 0 if content.startswith(b"./") else content.find(b"\n./") + 1
    return content[start:] if content[start:].startswith(b"./") else b""
