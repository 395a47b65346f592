"""The commands that do to files what SFTP has no word for, as lists of words, and how to read what they say. Pure.

Every path is absolute, so none can be taken for an option. Messages come in the C locale; ``timeout`` ends what nobody
waits for any more, on the system itself, whatever became of the connection.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from stagecoach.core.errors import (
    CommandFailed,
    FileExists,
    FileMissing,
    InvalidRequest,
    NoSpace,
    OperationTooLong,
    PermissionRefused,
    StagecoachError,
    SystemUnavailable,
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


# The trap of EXIT runs where one of a signal has ended the script.
_WHOLE_OR_NOT = (
    "hidden=$1 names=$2 path=$3; shift 3; "
    """trap 'rm -f -- "$hidden" "$names"' EXIT; trap 'exit 143' HUP TERM; """
    '"$@" && mv -f -T -- "$hidden" "$path"'
)
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
    """Either may be "", and then stays."""
    if not owner:
        return ["chgrp", "--", group, path]
    return ["chown", "--", f"{owner}:{group}" if group else owner, path]


def tar_create(source: str, archive: str, compression: Compression, *, dereference: bool) -> list[str]:
    """``source`` and what is below it, named from its directory on."""
    directory, name = posixpath.split(source)
    return [*_tar_create(archive, compression, dereference=dereference), "--directory", directory, "--", name]


def find_matching(directory: str, start: str, pattern: str, *, dereference: bool) -> list[str]:
    """The regular files below ``start`` (``.`` or ``./name``) of ``directory`` whose whole name matches, each ended by NUL."""
    follow = ["-L"] if dereference else []
    return ["env", f"--chdir={directory}", "find", *follow, start, "-type", "f", "-regex", pattern, "-print0"]


def tar_create_of_list(directory: str, names: str, archive: str, compression: Compression, *, dereference: bool) -> list[str]:
    """What the file ``names`` lists, each name ended by NUL."""
    tar = _tar_create(archive, compression, dereference=dereference)
    return [*tar, "--directory", directory, "--null", "--no-recursion", "--files-from", names]


def whole_or_not(words: Sequence[str], hidden: str, names: str, path: str) -> list[str]:
    """``words``, which write the file ``hidden``, and then its place as ``path``; if they fail or are ended, no file at all.

    One command, so that nothing is left on the system where the service dies while it runs. ``names`` goes either way.
    """
    return ["sh", "-c", _WHOLE_OR_NOT, "sh", hidden, names, path, *words]


def tar_extract(archive: str, directory: str, compression: Compression) -> list[str]:
    """Into ``directory``; names that lead out of it are refused by tar."""
    options = _TAR_OPTIONS[compression]
    return ["tar", "--extract", "--force-local", *options, "--file", archive, "--directory", directory]


def _tar_create(archive: str, compression: Compression, *, dereference: bool) -> list[str]:
    follow = ["--dereference"] if dereference else []
    return ["tar", "--create", "--force-local", *_TAR_OPTIONS[compression], *follow, "--file", archive]


# The first that is found in what the command says decides, so the more telling ones come first.
_MEANINGS: tuple[tuple[str, type[StagecoachError]], ...] = (
    ("No space left on device", NoSpace),
    ("Disk quota exceeded", NoSpace),
    ("Permission denied", PermissionRefused),
    ("Operation not permitted", PermissionRefused),
    ("Read-only file system", PermissionRefused),
    ("File exists", FileExists),
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
