"""What the one word "Failure" of SFTP is taken to mean, by what can be seen beside it."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import asyncssh
import pytest

from stagecoach.clusters.remote_trouble import explained
from stagecoach.core.errors import NoSpace, NotAFile, PermissionRefused, StagecoachError, SystemUnavailable

PATH = "/home/alice/.stagecoach/x/job.sh"


@dataclass
class Sftp:
    """A server whose file system is as given."""

    free_bytes: int = 10**9
    free_inodes: int = 100
    flags: int = 0
    is_directory: bool = False

    async def statvfs(self, path: str) -> Any:
        return SimpleNamespace(bavail=self.free_bytes, frsize=1, files=1000, favail=self.free_inodes, flags=self.flags)

    async def lexists(self, path: str) -> bool:
        return True

    async def lstat(self, path: str) -> Any:
        return SimpleNamespace(permissions=0o040700 if self.is_directory else 0o100600)


async def meaning(sftp: Sftp, needed_bytes: int = 1) -> StagecoachError:
    failure = asyncssh.SFTPFailure("Failure")
    return await explained(cast(asyncssh.SFTPClient, sftp), failure, PATH, "daint", needed_bytes=needed_bytes)


@pytest.mark.parametrize(
    ("sftp", "kind", "words"),
    [
        (Sftp(free_bytes=1000), NoSpace, "is full. Free space there and try again."),
        (Sftp(free_inodes=0), NoSpace, "is full. Free space there and try again."),
        (Sftp(flags=1), PermissionRefused, "is read-only; try again when it can be written to."),
        (Sftp(is_directory=True), NotAFile, "is a directory"),
        (Sftp(), NoSpace, "takes nothing more, though it is not full: your quota there is used up. Free space there"),
    ],
    ids=["full", "no inodes", "read-only", "directory", "quota"],
)
async def test_a_write_that_fails_is_explained_by_looking(sftp: Sftp, kind: type[StagecoachError], words: str) -> None:
    failure = await meaning(sftp)
    assert type(failure) is kind
    assert words in failure.message
    assert PATH in failure.message


async def test_what_writes_nothing_and_cannot_be_explained_may_pass() -> None:
    assert type(await meaning(Sftp(), needed_bytes=0)) is SystemUnavailable
