"""A large file as its parts: how long they are, what they are called, and the list by which the receiving agent joins them.

Pure. The parts of the files of one transfer lie in its hidden folder as ``.stagecoach-parts/<file>-<version>/<part>``, both
numbers counted from 1, and the list beside them as ``.stagecoach-parts/list.json``: how far each file was compared from its
beginning. So far it may be joined already. Of a source that has changed the version is another one, and with it the folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stagecoach.mover.stagecoach_mover import Failed

FOLDER = ".stagecoach-parts"
LIST_NAME = "list.json"
MOST_LIST_BYTES = 16 * 2**20
_MIB = 2**20
# One PUT of S3 is no longer than 5 GiB.
_LONGEST_PART_BYTES = 4 * 2**30
_LIST_VERSION = 1
_CONTENT_VERSION = re.compile("[0-9a-f]{16,64}")


@dataclass(frozen=True, slots=True)
class PartRule:
    """Which files go in parts, and how long these are: short ones of a short file, since a stop costs those that are under way;
    longer ones where there would be more than ``most_parts``."""

    least_file_bytes: int = 128 * _MIB
    least_part_bytes: int = 16 * _MIB
    usual_part_bytes: int = 64 * _MIB
    usual_parts: int = 64
    most_parts: int = 2000

    def part_size_bytes(self, size_bytes: int) -> int:
        """Of a file of so many bytes."""
        usual = min(self.usual_part_bytes, max(self.least_part_bytes, _in_mib(size_bytes, self.usual_parts)))
        return min(_LONGEST_PART_BYTES, max(usual, _in_mib(size_bytes, self.most_parts)))


def _in_mib(size_bytes: int, parts: int) -> int:
    """One of so many parts, rounded up to whole MiB."""
    return -(-size_bytes // (parts * _MIB)) * _MIB


@dataclass(frozen=True, slots=True)
class PartedFile:
    """``path`` is the file's in the hidden folder once it is joined; ``version`` tells its contents from earlier ones."""

    path: str
    size_bytes: int
    part_size_bytes: int
    mtime_ns: int
    version: str
    compared_parts: int = 0
    """From the first one on without a gap."""

    @property
    def is_compared(self) -> bool:
        """All of it."""
        return self.compared_parts == self.count

    def folder(self, number: int) -> str:
        """Of its parts, below ``FOLDER``."""
        return f"{number}-{self.version}"

    @property
    def count(self) -> int:
        """Of its parts."""
        return -(-self.size_bytes // self.part_size_bytes)

    def start_bytes(self, part: int) -> int:
        """Where a part begins; of one behind the last: the end."""
        return min(self.size_bytes, (part - 1) * self.part_size_bytes)

    def length_bytes(self, part: int) -> int:
        """Of one part, the first of which is 1."""
        return self.start_bytes(part + 1) - self.start_bytes(part)


@dataclass(frozen=True, slots=True, order=True)
class PartName:
    """Both numbers begin at 1."""

    file: int
    part: int


def part_name(part: int) -> str:
    """Of a file in the folder of its whole."""
    return f"{part:06d}"


def written_list(files: Sequence[PartedFile]) -> bytes:
    """As it is stored. Raises Failed for more files than a list may have."""
    entries = [
        {
            "path": file.path,
            "sizeBytes": file.size_bytes,
            "partSizeBytes": file.part_size_bytes,
            "mtimeNs": file.mtime_ns,
            "version": file.version,
            "comparedParts": file.compared_parts,
        }
        for file in files
    ]
    written = json.dumps({"version": _LIST_VERSION, "files": entries}).encode()
    if len(written) > MOST_LIST_BYTES:
        raise Failed("direct_unfit", "There are too many large files in one directory; send it in several transfers.")
    return written


def read_list(written: bytes) -> list[PartedFile]:
    """Raises Failed for anything but a list by which files can be joined inside the folder: whoever sends may have made it."""
    try:
        document = json.loads(written)
    except (ValueError, RecursionError):
        raise _refused("it is no JSON") from None
    entries = document.get("files") if isinstance(document, dict) else None
    if not isinstance(entries, list) or document.get("version") != _LIST_VERSION:
        raise _refused("it is of another version")
    files = [_file(entry) for entry in entries]
    paths = {file.path for file in files}
    if len(paths) != len(files) or any(parent in paths for path in paths for parent in _parents(path)):
        raise _refused("two of its files would stand at the same place")
    return files


def _file(entry: object) -> PartedFile:
    if not isinstance(entry, Mapping):
        raise _refused("it names something that is no file")
    path, size, part_size = entry.get("path"), _number(entry, "sizeBytes"), _number(entry, "partSizeBytes")
    if not isinstance(path, str) or not _is_inside(path):
        raise _refused("it names a path outside the folder")
    if size < 1 or part_size < 1 or -(-size // part_size) > 999_999:
        raise _refused("it tells no sizes")
    version, compared = entry.get("version"), _number(entry, "comparedParts")
    if not isinstance(version, str) or not _CONTENT_VERSION.fullmatch(version):
        raise _refused("it tells no versions")
    file = PartedFile(path, size, part_size, _number(entry, "mtimeNs"), version, compared)
    if not 0 <= compared <= file.count:
        raise _refused("it tells of more parts than there are")
    return file


def _is_inside(path: str) -> bool:
    steps = path.split("/")
    try:
        lengths = [len(step.encode()) for step in steps]
    except UnicodeEncodeError:
        return False
    is_plain = all(step not in {"", ".", ".."} and length <= 255 for step, length in zip(steps, lengths, strict=True))
    return is_plain and "\0" not in path and not any(step.startswith(FOLDER) for step in steps) and sum(lengths) < 4096


def _parents(path: str) -> list[str]:
    steps = path.split("/")
    return ["/".join(steps[:count]) for count in range(1, len(steps))]


def _number(entry: Mapping[str, Any], name: str) -> int:
    value = entry.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**62) <= value <= 2**62:
        raise _refused("it tells no sizes")
    return value


def _refused(why: str) -> Failed:
    return Failed("size_mismatch", f"The list of parts in the transfer's hidden folder is not to be used: {why}.")
