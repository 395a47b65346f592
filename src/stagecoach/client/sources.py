"""What an upload reads: a file, or a directory as the tar stream that the mover makes of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stagecoach.client.errors import TransferFailed
from stagecoach.mover import stagecoach_mover

Identity = list[int | str]
"""What changes when the source does, as the mover sees it. The first is the number of bytes that are sent: then mtime in
ns and inode of a file; a digest over all that is in a directory."""
Read = Callable[[int, int], bytes]
"""Gets an offset and a number of bytes, gives at most so many."""


@dataclass(frozen=True)
class Source:
    """As it was at the first look."""

    path: Path
    identity: Identity
    is_tree: bool

    @property
    def size_bytes(self) -> int:
        """How much is sent."""
        return int(self.identity[0])

    @property
    def in_journal(self) -> Identity | str:
        """As the mover's own journal has it."""
        return str(self.identity[1]) if self.is_tree else self.identity

    def is_unchanged(self) -> bool:
        """Whether it still is what it was. Raises TransferFailed when it is gone or cannot be read."""
        return look_at_source(self.path).identity == self.identity

    @contextlib.contextmanager
    def opened(self) -> Iterator[Read]:
        """Any range of what is sent. Raises TransferFailed."""
        if not self.is_tree:
            with self.path.open("rb") as file:
                yield lambda offset, size_bytes: os.pread(file.fileno(), size_bytes, offset)
            return
        with _told(), contextlib.closing(stagecoach_mover.SourceTree(os.fsencode(self.path), None)) as tree:
            yield tree.read


def look_at_source(path: Path) -> Source:
    """Raises TransferFailed: source_missing, source_special_file, permission_denied."""
    try:
        if path.is_dir():
            path = path.resolve()
            with _told():
                found = stagecoach_mover.measure_tree(os.fsencode(path))
            return Source(path, [found["size_bytes"], found["identity"]], is_tree=True)
        if not path.is_file():
            what = "is neither a regular file nor a directory" if path.exists() else "does not exist"
            raise TransferFailed(f"{path} {what}.", "source_missing")
        status = path.stat()
        return Source(path, [status.st_size, status.st_mtime_ns, status.st_ino], is_tree=False)
    except OSError as error:
        raise TransferFailed(f"{path} cannot be read ({error.strerror}).", "permission_denied") from None


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except stagecoach_mover.Failed as failure:
        raise TransferFailed(failure.message, failure.code) from None
