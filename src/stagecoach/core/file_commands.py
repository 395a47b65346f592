"""The commands that do to files what SFTP has no word for, as lists of words, and how to read what they say. Pure.

Every path is absolute, so none can be taken for an option. Messages come in the C locale; ``timeout`` ends what nobody
waits for any more, on the system itself, whatever became of the connection.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from stagecoach.core.anchored_commands import CLASH, MOUNT_POINT, REPLACED
from stagecoach.core.errors import (
    CommandFailed,
    FileExists,
    FileMissing,
    InvalidRequest,
    NoSpace,
    OperationTooLong,
    PathRefused,
    PermissionRefused,
    StagecoachError,
    SystemUnavailable,
    TargetExists,
)

STATUS_MARK = "stagecoach-stat"
TIMED_OUT = 124
KILLED_AFTER_SECONDS = 5
MAX_WORDS_SHOWN = 600
_DIGEST = re.compile(r"^\\?([0-9a-f]{64})(?: |$)", re.MULTILINE)
_STATUS = re.compile(rf"^{STATUS_MARK} ([0-9a-f]+)((?: -?[0-9]+){{9}})$", re.MULTILINE)


class Compression(StrEnum):
    """Of an archive."""

    NONE = "none"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"


_TAR_OPTIONS = {Compression.NONE: (), Compression.GZIP: ("-z",), Compression.BZIP2: ("-j",), Compression.XZ: ("-J",)}


@dataclass(frozen=True, slots=True)
class FullStatus:
    """What the system call stat says. ``mode`` with the bits of the type, times in whole seconds since 1970."""

    mode: int
    inode: int
    device: int
    links: int
    uid: int
    gid: int
    size_bytes: int
    atime_epoch_seconds: int
    ctime_epoch_seconds: int
    mtime_epoch_seconds: int


def bounded(words: Sequence[str], seconds: float) -> list[str]:
    """``words``, ended by the system itself after so many seconds; its messages in plain English."""
    limit = str(max(1, math.ceil(seconds)))
    return ["env", "LC_ALL=C", "timeout", f"--kill-after={KILLED_AFTER_SECONDS}", limit, *words]


def sha256sum(path: str) -> list[str]:
    """Prints the digest first."""
    return ["sha256sum", "--binary", "--", path]


def digest_in(stdout: str) -> str:
    """64 hexadecimal digits. Start files may have printed something before."""
    found: list[str] = _DIGEST.findall(stdout)
    if not found:
        raise SystemUnavailable("sha256sum on the system gave no answer that can be read.")
    return found[-1]


def file_type(path: str) -> list[str]:
    """What ``file`` takes the content for, in one line."""
    return ["file", "--brief", "--", path]


def last_line(stdout: str) -> str:
    """Without its end."""
    lines = [line for line in stdout.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def stat(path: str, *, follow_symlinks: bool) -> list[str]:
    """All that :class:`FullStatus` holds, in one marked line."""
    follow = ["--dereference"] if follow_symlinks else []
    return ["stat", *follow, f"--format={STATUS_MARK} %f %i %d %h %u %g %s %X %Z %Y", "--", path]


def status_in(stdout: str) -> FullStatus:
    """Read from the marked line."""
    found = _STATUS.findall(stdout)
    if not found:
        raise SystemUnavailable("stat on the system gave no answer that can be read.")
    mode, numbers = found[-1]
    return FullStatus(int(mode, 16), *map(int, numbers.split()))


def chown(path: str, owner: str, group: str) -> list[str]:
    """Either may be "", and then stays. Of a name alone with a dot in it ``chown`` may take the rest for a group."""
    if not owner:
        return ["chgrp", "--no-dereference", "--", group, path]
    return ["chown", "--no-dereference", "--", f"{owner}:{group}" if group else owner, path]


def tar_create(name: str, compression: Compression, *, dereference: bool) -> list[str]:
    """Prints an archive of ``name`` in the directory where it runs, and what is below it."""
    return [*_tar_create(compression, dereference=dereference), "--", name]


def find_matching(start: str, pattern: str, *, dereference: bool) -> list[str]:
    """The regular files below ``start`` (``.`` or ``./name``) whose whole name matches, each ended by NUL."""
    follow = ["-L"] if dereference else []
    return ["find", *follow, start, "-type", "f", "-regex", pattern, "-print0"]


def tar_create_of_list(compression: Compression, *, dereference: bool) -> list[str]:
    """Prints an archive of what it is given to read: names, each ended by NUL, in the directory where it runs."""
    return [*_tar_create(compression, dereference=dereference), "--null", "--no-recursion", "--files-from", "-"]


def tar_extract(compression: Compression) -> list[str]:
    """Unpacks what it is given to read; names that lead out are refused by tar. Modes are the archive's as the umask
    lets them be, without set-id bits, and everything belongs to the user."""
    options = _TAR_OPTIONS[compression]
    # Not "-": only of a file that it opens itself does tar see the compression.
    # What an archive brings later into a directory that it closes is not shut out.
    whose = ["--no-same-owner", "--no-same-permissions", "--delay-directory-restore"]
    return ["tar", "--extract", "--force-local", *options, *whose, "--file", "/dev/stdin"]


def _tar_create(compression: Compression, *, dereference: bool) -> list[str]:
    follow = ["--dereference"] if dereference else []
    return ["tar", "--create", "--force-local", *_TAR_OPTIONS[compression], *follow, "--file", "-"]


# The first that is found in what the command says decides, so the more telling ones come first.
_MEANINGS: tuple[tuple[str, type[StagecoachError]], ...] = (
    (REPLACED, PathRefused),
    (MOUNT_POINT, PathRefused),
    ("since it's on a different device", PathRefused),
    (CLASH, TargetExists),
    ("No space left on device", NoSpace),
    ("Disk quota exceeded", NoSpace),
    ("Permission denied", PermissionRefused),
    ("Operation not permitted", PermissionRefused),
    ("Read-only file system", PermissionRefused),
    ("File exists", FileExists),
    ("can't cd to", PermissionRefused),
    ("invalid user", InvalidRequest),
    ("invalid group", InvalidRequest),
    ("No such file or directory", FileMissing),
)


def trouble(command: str, exit_status: int, stderr: str) -> StagecoachError:
    """Why a command did not end with 0, in the words that FirecREST has for it."""
    said = " ".join(stderr.encode("utf-8", "surrogateescape").decode("utf-8", "replace").split())[-MAX_WORDS_SHOWN:]
    message = CommandFailed.words(exit_status, said or command)
    if exit_status == TIMED_OUT:
        return OperationTooLong(f"{command} did not end in time; have it done by a job (transfer, compute). {message}")
    if exit_status in {126, 127} or (exit_status == 2 and "Cannot exec" in said):
        return SystemUnavailable(f"The system cannot run {command}. {message}")
    for words, kind in _MEANINGS:
        if words in said:
            return kind(message)
    return CommandFailed(message)
