"""The hidden folders in which direct transfers arrive, beside their targets, and the notes that outlive the agent.

A folder is made and removed below the receive directory one step at a time, so no symbolic link leads it elsewhere.
Blocking: to be called in a thread. Every method raises ``Failed`` with a code and words for people.
"""

from __future__ import annotations

import base64
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stagecoach.agent import durable_files
from stagecoach.agent.moving import KEEP_UNFINISHED_SECONDS
from stagecoach.mover.stagecoach_mover import Failed, Handle, Place, TargetFile, TargetTree, disk_errors, hidden_name, remove_tree

_MISSING = "target_missing_directory"


@dataclass(frozen=True)
class Arrival:
    """One transfer's. ``path`` begins at the receive directory and is a name of the file system: bytes."""

    transfer_id: str
    path: bytes
    is_directory: bool

    @property
    def parent(self) -> bytes:
        """The directory of the target."""
        return os.path.dirname(self.path)

    @property
    def name(self) -> bytes:
        """The target's in it."""
        return os.path.basename(self.path)

    @property
    def hidden(self) -> bytes:
        """The folder's in the same directory."""
        return hidden_name(self.transfer_id)


def arrival(transfer_id: str, target_path: str, *, is_directory: bool) -> Arrival:
    """Raises Failed for a path that names nothing below the receive directory."""
    path = os.fsencode(target_path.rstrip("/"))
    if not path.startswith(b"/") or path == b"/" or {b"..", b"."} & set(path.split(b"/")) or b"\0" in path:
        raise Failed("path_refused", "The target's path names nothing below this node's receive directory.")
    return Arrival(transfer_id, path, is_directory)


class Arrivals:
    """Of one node. ``notes`` is a directory of the agent's state."""

    def __init__(self, receive: str, notes: Path) -> None:
        self._receive = receive
        self._notes = notes

    def open(self, one: Arrival) -> Path:
        """The folder, with what it held before. Its way is made; a target that stands in the way is said at once."""
        self.note(one)
        self.require_free(one)
        with disk_errors(_MISSING):
            there = self.directory_of(one)
            found = _stat(one.hidden, there)
            if found is not None and not stat.S_ISDIR(found.st_mode):
                # The mover's, of a time when this transfer took the other road.
                remove_tree(there.descriptor, one.hidden)
                found = None
            if found is None:
                os.mkdir(one.hidden, 0o700, dir_fd=there.descriptor)
            elif found.st_uid != os.geteuid():
                raise Failed("permission_denied", "The transfer's hidden folder belongs to somebody else.")
            os.fsync(there.descriptor)
        return Path(os.fsdecode(os.path.realpath(os.fsencode(self._receive)) + one.parent.rstrip(b"/") + b"/" + one.hidden))

    def require_free(self, one: Arrival) -> int | None:
        """The mode of the file that stands at the target, if one does. A directory goes only where nothing is, or an empty
        one; a file not where a directory is, or a link."""
        target: TargetFile
        if one.is_directory:
            target = tree = TargetTree(one.path, one.transfer_id, None, None, Place(self._receive))
            try:
                tree.require_free()
            finally:
                tree.close()
            return None
        target = TargetFile(one.path, one.transfer_id, None, Place(self._receive))
        try:
            return target.old_mode()
        finally:
            target.close()

    def directory_of(self, one: Arrival) -> Handle:
        """The directory of the target, open."""
        return Handle(Place(self._receive).open_directory(one.parent, _MISSING, make=True))

    def discard(self, transfer_id: str, target_path: str | None = None) -> None:
        """Removes the folder, or the mover's hidden file, of a transfer that does not go on. May be called twice."""
        paths = {arrival(transfer_id, target_path, is_directory=False).path} if target_path is not None else set()
        noted = self.noted(transfer_id)
        if noted is not None:
            paths.add(base64.b64decode(noted["path_base64"]))
        for path in paths:
            with disk_errors(_MISSING):
                try:
                    there = Handle(Place(self._receive).open_directory(os.path.dirname(path), _MISSING))
                except (Failed, FileNotFoundError):
                    continue  # nothing is hidden where nothing can be reached
                remove_tree(there.descriptor, hidden_name(transfer_id))
                os.fsync(there.descriptor)
        if noted is not None:
            durable_files.remove(self._note_file(transfer_id))

    def note(self, one: Arrival, **more: Any) -> None:
        """Durably, with ``more`` beside it. Raises OSError."""
        self._notes.mkdir(mode=0o700, exist_ok=True)
        document = {"path_base64": base64.b64encode(one.path).decode(), "is_directory": one.is_directory, **more}
        durable_files.write_document(self._note_file(one.transfer_id), document)

    def noted(self, transfer_id: str) -> dict[str, Any] | None:
        """None where this node has nothing of the transfer, or nothing any more."""
        return durable_files.read_document(self._note_file(transfer_id))

    def old_transfers(self, now: float) -> list[str]:
        """Whose notes nobody has touched for as long as anything unfinished is kept."""
        found = []
        for path in self._notes.glob("*.json") if self._notes.is_dir() else ():
            with suppress(FileNotFoundError):
                if re.fullmatch("[0-9a-z]{1,64}", path.stem) and now - path.stat().st_mtime > KEEP_UNFINISHED_SECONDS:
                    found.append(path.stem)
        return found

    def _note_file(self, transfer_id: str) -> Path:
        return self._notes / f"{transfer_id}.json"


def _stat(name: bytes, directory: Handle) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory.descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return None
