"""What a receiver's folders must be before they are opened, and what a killed receiver leaves in them."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from stagecoach.core.errors import PathRefused

_LEFTOVERS = (".rclone_temp_", ".rclone_multipart_upload_")


def require_folder(folder: Path, root: Path) -> Path:
    """``folder`` with its links followed. Blocking. Raises PathRefused unless it is a directory in ``root`` from which no
    link leads to another directory: rclone would follow that one when it writes below it."""
    real = folder.resolve()
    if not real.is_relative_to(root.resolve()):
        raise PathRefused(f"{folder} is outside the directory in which this node receives.")
    if not real.is_dir():
        raise PathRefused(f"{folder} is no directory.")
    for entry in _below(real):
        if entry.is_symlink() and entry.is_dir():
            raise PathRefused(f"{entry.path} is a link to a directory: nobody may send into a folder with such links.")
    return real


def is_unfinished(name: str) -> bool:
    """Whether it is a file that a sender has begun and not ended: rclone gives it its name at the end."""
    return name.startswith(_LEFTOVERS)


def has_open_files(pid: int, folder: Path) -> bool:
    """Whether that process has; where the system does not tell: whether anything in it was begun and not ended. Blocking.

    Raises OSError.
    """
    descriptors = Path("/proc") / str(pid) / "fd"
    start = f"{folder.resolve()}/"
    try:
        with os.scandir(descriptors) as entries:
            names = [entry.path for entry in entries]
    except FileNotFoundError:
        return any(is_unfinished(entry.name) for entry in _below(folder))
    for name in names:
        with suppress(FileNotFoundError):  # closed meanwhile
            if os.readlink(name).startswith(start):
                return True
    return False


def remove_leftovers(folder: Path) -> int:
    """Temporary files of uploads that no running receiver knows any more; how many there were. Blocking."""
    removed = 0
    for entry in _below(folder):
        if is_unfinished(entry.name) and not entry.is_dir(follow_symlinks=False):
            Path(entry.path).unlink(missing_ok=True)
            removed += 1
    return removed


class Doors:
    """The paths by which rclone reaches folders: one link a key, in a directory of the agent's own. A door that is shut leads
    nowhere at once, whatever rclone believes of its key, and nobody else is disturbed. Blocking; methods raise OSError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self, name: str, folder: Path) -> Path:
        """The path that leads to ``folder`` from now on."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        # The folder's directory is linked, so that the folder itself is none to rclone.
        new = self._directory / f"{name}.new"
        new.unlink(missing_ok=True)
        new.symlink_to(folder.parent)
        new.replace(self._directory / name)
        return self._directory / name / folder.name

    def shut(self, name: str) -> None:
        """A file stands where the link was: no directory can be made there."""
        new = self._directory / f"{name}.new"
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        new.replace(self._directory / name)

    def forget_all_but(self, names: Container[str]) -> None:
        """While no rclone serves."""
        for path in self._directory.iterdir() if self._directory.is_dir() else ():
            if path.name not in names:
                path.unlink()


class FoldersNote:
    """Remembers over a crash which folders were open, so that they are cleaned at the next start. No key is in it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> list[Path]:
        """Those noted; none if the note cannot be read."""
        try:
            noted = json.loads(self._file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return []
        return [Path(os.fsdecode(bytes.fromhex(name))) for name in noted if isinstance(name, str)]

    def write(self, folders: Iterable[Path]) -> None:
        """Instead of what was noted."""
        new = self._file.with_name(self._file.name + ".new")
        # Names need not be UTF-8.
        new.write_text(json.dumps(sorted({os.fsencode(folder).hex() for folder in folders})), encoding="ascii")
        new.replace(self._file)


def _below(root: Path) -> Iterator[os.DirEntry[str]]:
    """Everything, links not followed; what is gone or closed to us meanwhile is left out."""
    waiting = [str(root)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                entries = list(found)
        except (FileNotFoundError, PermissionError):
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            yield entry
