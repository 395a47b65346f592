"""The MD5s of parts that were read while they were sent, kept over a stop or a crash of the agent, one document a file.

They are good for the very file that was read: another inode, size or time, and none is known. Blocking; raises OSError.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from stagecoach.agent import durable_files

_SAVE_SECONDS = 1.0
_MD5 = re.compile("[0-9a-f]{32}")


def identity_of(status: os.stat_result) -> list[int]:
    """Another one when the file was replaced or written to."""
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def version_of(identity: list[int]) -> str:
    """The same in a word that can be the name of a folder."""
    return hashlib.blake2b(repr(identity).encode(), digest_size=12).hexdigest()


class FileDigests:
    """Of one file's parts. May be used by several threads."""

    def __init__(self, document: Path, identity: list[int], part_size_bytes: int, clock: Callable[[], float]) -> None:
        self._document = document
        self._identity = identity
        self._part_size_bytes = part_size_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._saved_at = clock()
        self._is_saved = True
        self._found = self._read()

    def of(self, part: int) -> str | None:
        """None: it was not read yet."""
        with self._lock:
            return self._found.get(part)

    def add(self, part: int, md5: str) -> None:
        """Is on the disk within about a second, or when :meth:`save` returns."""
        with self._lock:
            if self._found.get(part) != md5:
                self._found[part] = md5
                self._is_saved = False
            if self._clock() - self._saved_at >= _SAVE_SECONDS:
                self._save()

    def save(self) -> None:
        """What is not on the disk yet."""
        with self._lock:
            self._save()

    def _save(self) -> None:
        if self._is_saved:
            return
        document = {
            "identity": self._identity,
            "part_size_bytes": self._part_size_bytes,
            "md5": {str(part): md5 for part, md5 in self._found.items()},
        }
        self._document.parent.mkdir(mode=0o700, exist_ok=True)
        durable_files.write_document(self._document, document)
        self._is_saved, self._saved_at = True, self._clock()

    def _read(self) -> dict[int, str]:
        document = durable_files.read_document(self._document) or {}
        if (document.get("identity"), document.get("part_size_bytes")) != (self._identity, self._part_size_bytes):
            return {}
        kept = document.get("md5")
        if not isinstance(kept, dict):
            return {}
        return {int(part): md5 for part, md5 in kept.items() if part.isdecimal() and isinstance(md5, str) and _MD5.fullmatch(md5)}


class KeptDigests:
    """Of all that one node sends."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._clock = clock

    def of(self, transfer_id: str, path: str, identity: list[int], part_size_bytes: int) -> FileDigests:
        """What is kept of one file of a transfer; ``path`` tells its files apart."""
        return FileDigests(self._document(transfer_id, path), identity, part_size_bytes, self._clock)

    def forget(self, transfer_id: str) -> None:
        """All of a transfer's."""
        for document in self._directory.glob(f"{_key(transfer_id)}-*.json"):
            document.unlink(missing_ok=True)

    def forget_older_than(self, seconds: float, now: float) -> None:
        """Of transfers that nobody went on with. ``now`` in epoch seconds."""
        for document in self._directory.glob("*.json"):
            with suppress(FileNotFoundError):
                if now - document.stat().st_mtime > seconds:
                    document.unlink()

    def _document(self, transfer_id: str, path: str) -> Path:
        return self._directory / f"{_key(transfer_id)}-{_key(path)}.json"


def _key(text: str) -> str:
    return hashlib.blake2b(os.fsencode(text), digest_size=12).hexdigest()
