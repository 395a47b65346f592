"""What the client keeps of a transfer on its own disk, so that another process can go on after Ctrl-C, crash or reboot.

One directory a transfer, ``~/.local/state/stagecoach/transfers/<id>/``: ``transfer.json`` says what it belongs to, the
mover's own journal and receipt stand beside it. No URL and no token is ever written here.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stagecoach.client.errors import ServiceError, TransferFailed
from stagecoach.client.sources import Identity, Read, Source
from stagecoach.core.parts import multipart_etag
from stagecoach.wire.transfers import PartsView

READ_BYTES = 1024 * 1024
PROVED_ENTRY = 3
"""What the mover's journal has of a part: the store's ETag, MD5, CRC-32. Of an earlier release it had the first two."""


def state_home() -> Path:
    """Where the user's programs keep such things."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "stagecoach" / "transfers"


@dataclass(frozen=True)
class Record:
    """What a transfer belongs to. ``source`` is the identity of what an upload sends, as it was at first."""

    service: str
    system: str
    direction: str
    path: str
    local: str
    source: Identity | None = None


class Journal:
    """The directory of one transfer."""

    def __init__(self, home: Path, transfer_id: str) -> None:
        if not re.fullmatch(r"[0-9a-z]{1,64}", transfer_id):
            raise ServiceError(404, "transfer_not_found", "This is no id of a transfer: ids are lower-case letters and digits.")
        self.transfer_id = transfer_id
        self.directory = home / transfer_id

    def write(self, record: Record) -> None:
        """Atomically."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._save("transfer.json", asdict(record))

    def read(self) -> Record | None:
        """None when nothing is known of this transfer here."""
        found = self._load("transfer.json")
        try:
            return Record(**found) if found else None
        except TypeError:
            return None

    def remove(self) -> None:
        """It is done, or beyond help."""
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Two processes that put the same parts would spoil the upload. Raises TransferFailed: already_running."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.directory / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = "Another process on this machine is moving this transfer."
                raise TransferFailed(message, "already_running", transfer_id=self.transfer_id) from None
            yield

    def receipt(self) -> dict[str, Any] | None:
        """The mover's, when an earlier run of the client's leg came to a good end."""
        found = self._load("receipt.json")
        return found if found.get("ok") is True else None

    def parts_etag(self, part_count: int) -> str | None:
        """The ETag of the whole object, when all its parts are known here."""
        entries = self._entries(part_count)
        return multipart_etag([str(entry[0]) for entry in entries]) if entries else None

    def part_crc32(self, part_count: int) -> list[str] | None:
        """Of each part, in order, when all are known here."""
        entries = self._entries(part_count)
        return [entry[2] for entry in entries] if entries and all(len(entry) == PROVED_ENTRY for entry in entries) else None

    def _entries(self, part_count: int) -> list[list[str]]:
        parts = self._load("journal.json").get("parts") or {}
        return [parts[number] for number in sorted(parts, key=int)] if len(parts) == part_count else []

    def take_over(self, source: Source, stored: PartsView) -> None:
        """Writes the journal that the mover continues from: just the parts that the store has and that are the source's.

        A crash leaves parts in the store that the journal does not name yet: their MD5 is compared with the source's.
        Sending them again would be safe with most stores, but costs the whole upload with one of them.

        Raises:
            TransferFailed: source_changed, a part in the store is not of this source.
        """
        known = self._load("journal.json").get("parts") or {}
        parts: dict[str, list[str]] = {}
        missing = {part.number for part in stored.missing}
        what = "directory" if source.is_tree else "file"
        with source.opened() as read:
            for part in stored.stored:
                etag, number = part.etag.strip('"').lower(), str(part.number)
                if part.number in missing:
                    continue
                entry = known.get(number)
                if isinstance(entry, list) and len(entry) in (2, PROVED_ENTRY) and str(entry[0]).strip('"').lower() == etag:
                    parts[number] = entry  # of an earlier release it has two values: then nothing is said of the parts
                    continue
                md5, crc32 = _digests(read, (part.number - 1) * stored.part_size_bytes, part.size_bytes)
                if md5 == etag:
                    parts[number] = [f'"{etag}"', etag, crc32]
                else:
                    message = f"Part {number} in the staging area is not of this {what}, so the upload cannot go on with it."
                    raise TransferFailed(message, "source_changed", transfer_id=self.transfer_id)
        journal: dict[str, Any] = {"version": 1, "transfer_id": self.transfer_id, "kind": "put", "size_bytes": source.size_bytes}
        journal |= {"part_size_bytes": stored.part_size_bytes, "source": source.in_journal, "parts": parts}
        self._save("journal.json", journal)

    def _load(self, name: str) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            document = json.loads((self.directory / name).read_bytes())
            if isinstance(document, dict):
                return document
        return {}

    def _save(self, name: str, document: dict[str, Any]) -> None:
        beside = self.directory / f"{name}.new"
        # ASCII on the disk: the name of a file may be no Unicode at all.
        with beside.open("w", encoding="ascii") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.directory / name)


def _digests(read: Read, offset_bytes: int, size_bytes: int) -> tuple[str, str]:
    """MD5 and CRC-32, in hexadecimal."""
    md5, crc32 = hashlib.md5(usedforsecurity=False), 0
    end = offset_bytes + size_bytes
    while offset_bytes < end and (data := read(offset_bytes, min(READ_BYTES, end - offset_bytes))):
        md5.update(data)
        crc32 = zlib.crc32(data, crc32)
        offset_bytes += len(data)
    return md5.hexdigest(), f"{crc32:08x}"
