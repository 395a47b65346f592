"""Looks at what is to be sent, before it is: how much it is, and what of it rclone would leave behind without a word.

rclone carries regular files: their bytes, names and times. Links, special files, empty directories and the execute bit
stay behind, so who sends is told beforehand.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

from stagecoach.agent.parts import FOLDER
from stagecoach.core.errors import FileMissing, NotAFile

_EXAMPLES = 5
_RESERVED = (".rclone_temp_", ".rclone_multipart_upload_", ".stagecoach-check-", FOLDER)
# Control characters, which no list in XML can hold, and the signs by which rclone writes and quotes them in its own names.
_NOT_CARRIED = re.compile("[\\x00-\\x1f\\x7f\u201b\u2400-\u2426\\udc80-\\udcff]")
UNFIT = frozenset({"reserved_name", "name_not_carried"})
"""Notices of what the direct road cannot bring there unharmed."""
_WORDS = {
    "executable": "{count} files can be executed; at the other end they cannot until somebody says chmod +x",
    "link": "{count} symbolic links are not sent; what they point to is sent only if it lies in the directory itself",
    "special": "{count} pipes, sockets or devices are not sent",
    "empty_directory": "{count} empty directories are not sent",
    "reserved_name": "{count} names begin like temporary files of the receiver, which would hide and remove them",
    "unreadable": "{count} files or directories cannot be read by the agent",
    "name_not_carried": "{count} names have characters in them that would arrive as others, or not at all",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """One kind of thing that does not arrive as it is. ``examples`` are paths below the source."""

    kind: str
    count: int
    examples: tuple[str, ...]

    @property
    def words(self) -> str:
        """A sentence for people."""
        return (
            f"{_WORDS[self.kind].format(count=self.count)}: {', '.join(self.examples)}{' …' if self.count > _EXAMPLES else ''}."
        )


@dataclass(frozen=True, slots=True)
class LargeFile:
    """``path`` is the file's below the source; of a source that is a file, its name."""

    path: str
    status: os.stat_result


@dataclass(frozen=True, slots=True)
class Survey:
    """What is sent, counted, and what is not. ``fingerprint`` is another one when a name, a size or a time has changed.
    ``large`` are those files that go in parts, in the order of their names."""

    files: int
    size_bytes: int
    largest_bytes: int
    notices: tuple[Notice, ...]
    one_file: bool
    fingerprint: str = ""
    large: tuple[LargeFile, ...] = ()
    largest_rest_bytes: int = 0

    def without_large(self) -> Survey:
        """What is sent beside ``large``."""
        if not self.large:
            return self
        size_bytes = self.size_bytes - sum(file.status.st_size for file in self.large)
        return replace(
            self, files=self.files - len(self.large), size_bytes=size_bytes, largest_bytes=self.largest_rest_bytes, large=()
        )


class _Counting:
    def __init__(self, least_large_bytes: int | None) -> None:
        self._least_large_bytes = least_large_bytes
        self.large: list[tuple[str, os.stat_result]] = []
        self.largest_rest_bytes = 0
        self.counts: Counter[str] = Counter()
        self.examples: defaultdict[str, list[str]] = defaultdict(list)
        self.files = self.size_bytes = self.largest_bytes = 0
        self.fingerprint = 0

    def notice(self, kind: str, path: str) -> None:
        self.counts[kind] += 1
        if len(self.examples[kind]) < _EXAMPLES:
            self.examples[kind].append(os.fsencode(path).decode("utf-8", errors="replace"))

    def file(self, path: str, status: os.stat_result) -> None:
        name = path.rpartition("/")[2]
        if name.startswith(_RESERVED):
            self.notice("reserved_name", path)
        if _NOT_CARRIED.search(name):
            self.notice("name_not_carried", path)
        # In whatever order the directory gives them.
        identity = f"{status.st_size} {status.st_mtime_ns} {status.st_ino} ".encode() + os.fsencode(path)
        self.fingerprint ^= int.from_bytes(hashlib.blake2b(identity, digest_size=16).digest(), "big")
        if not os.access(path, os.R_OK):
            self.notice("unreadable", path)
        elif status.st_mode & 0o111:
            self.notice("executable", path)
        self.files += 1
        self.size_bytes += status.st_size
        self.largest_bytes = max(self.largest_bytes, status.st_size)
        if self._least_large_bytes is not None and status.st_size >= self._least_large_bytes:
            self.large.append((path, status))
        else:
            self.largest_rest_bytes = max(self.largest_rest_bytes, status.st_size)

    def survey(self, root: str, *, one_file: bool) -> Survey:
        notices = tuple(
            Notice(kind, count, tuple(os.path.relpath(example, root) for example in self.examples[kind]))
            for kind, count in sorted(self.counts.items())
        )
        large = tuple(LargeFile(os.path.relpath(path, root), status) for path, status in sorted(self.large, key=itemgetter(0)))
        return Survey(
            self.files,
            self.size_bytes,
            self.largest_bytes,
            notices,
            one_file,
            f"{self.fingerprint:032x}",
            large,
            self.largest_rest_bytes,
        )


def survey_source(source: Path, least_large_bytes: int | None = None) -> Survey:
    """Blocking, for a thread: it reads every directory below. Files of ``least_large_bytes`` and more are listed.

    Raises FileMissing, and NotAFile for what is neither a regular file nor a directory.
    """
    counting = _Counting(least_large_bytes)
    try:
        status = source.lstat()
    except OSError as error:
        raise FileMissing(f"{source} cannot be sent: {error.strerror}.") from error
    if stat.S_ISREG(status.st_mode):
        counting.file(str(source), status)
    elif stat.S_ISDIR(status.st_mode):
        for entry in _entries(str(source), counting):
            _count(entry, counting)
    else:
        raise NotAFile(f"{source} is neither a regular file nor a directory; a link is not followed.")
    one_file = stat.S_ISREG(status.st_mode)
    return counting.survey(str(source.parent if one_file else source), one_file=one_file)


def _count(entry: os.DirEntry[str], counting: _Counting) -> None:
    if entry.is_symlink():
        counting.notice("link", entry.path)
        return
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # gone since the directory was read
        return
    if stat.S_ISREG(status.st_mode):
        counting.file(entry.path, status)
    else:
        counting.notice("special", entry.path)


def _entries(root: str, counting: _Counting) -> Iterator[os.DirEntry[str]]:
    """All below that are not directories; without recursion, since a tree may be deeper than Python's stack."""
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        try:
            with os.scandir(directory) as found:
                entries = list(found)
        except FileNotFoundError:
            continue
        except OSError:
            counting.notice("unreadable", directory)
            continue
        if not entries and directory != root:
            counting.notice("empty_directory", directory)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if _NOT_CARRIED.search(entry.name):
                    counting.notice("name_not_carried", entry.path)
                if entry.name.startswith(FOLDER):
                    counting.notice("reserved_name", entry.path)
                waiting.append(entry.path)
            else:
                yield entry
