"""Joins the parts of large files in a transfer's hidden folder, so that it holds the files themselves and nothing else.

Each part is durable in the whole before it is removed: besides the file there is room needed for one part, and whatever
stops this, a repeat goes on. It begins while the last parts are still on their way. What the folder holds was put there by
a stranger. Blocking: to be called in a thread.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress

from stagecoach.agent.parts import FOLDER, LIST_NAME, MOST_LIST_BYTES, PartedFile, part_name, read_list
from stagecoach.mover.stagecoach_mover import DIRECTORY_FLAGS, Failed, Handle, remove_tree

_PIECE_BYTES = 2**20
_COPY_BYTES = 64 * 2**20
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_OF_A_FILE = re.compile("(joined-)?[0-9]+-[0-9a-f]+")
_KERNEL_CANNOT = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}


def join_parts(folder: Handle, *, is_directory: bool, most_bytes: int) -> None:
    """Nothing where nothing has come in parts. Raises OSError, and Failed (``size_mismatch``) for what is no whole file of at
    most ``most_bytes``: then nothing was changed."""
    parts = _opened(folder)
    if parts is None:
        return
    written = _written_list(parts)
    files = read_list(written) if written is not None else []
    # Otherwise an earlier try had begun, and the last one took no parts: it has brought all without them.
    if files and not all(file.is_compared for file in files) and _bytes_beside_parts(folder) != most_bytes:
        raise Failed("receiver_failed", "The list of parts tells of some that were not compared; nothing was touched.")
    if files and all(file.is_compared for file in files):
        if not is_directory and (len(files) != 1 or "/" in files[0].path):
            raise Failed("size_mismatch", "One file was to arrive, and the parts are of others.")
        if sum(file.size_bytes for file in files) > most_bytes:
            raise Failed("size_mismatch", "The parts are of more than was sent.")
        joinings = [_Joining(folder, parts, number, file) for number, file in enumerate(files, 1)]
        for joining in joinings:
            joining.require_parts()
        for joining in joinings:
            joining.append(lambda: False)
            joining.finish()
        if not is_directory:
            # Of an earlier try that took no parts.
            for name in os.listdir(folder.descriptor):
                if name not in {files[0].path, FOLDER}:
                    remove_tree(folder.descriptor, os.fsencode(name))
    remove_tree(folder.descriptor, FOLDER.encode())
    os.fsync(folder.descriptor)


def join_compared(folder: Handle, is_stopped: Callable[[], bool]) -> None:
    """As far as the sender has compared, while the rest is still under way; what is of earlier contents of the source is
    removed. Returns soon after ``is_stopped``. Raises as :func:`join_parts` does."""
    parts = _opened(folder)
    written = _written_list(parts) if parts is not None else None
    if parts is None or written is None:
        return
    files = read_list(written)
    known = {name for number, file in enumerate(files, 1) for name in (file.folder(number), f"joined-{file.folder(number)}")}
    for name in os.listdir(parts.descriptor):
        if _OF_A_FILE.fullmatch(name) and name not in known:
            remove_tree(parts.descriptor, os.fsencode(name))
    for number, file in enumerate(files, 1):
        if is_stopped():
            return
        if file.compared_parts:
            joining = _Joining(folder, parts, number, file)
            joining.require_parts()
            joining.append(is_stopped)


def _bytes_beside_parts(folder: Handle) -> int:
    size_bytes = 0
    for path, directories, names, descriptor in os.fwalk(".", dir_fd=folder.descriptor):
        if path == ".":
            directories[:] = [name for name in directories if name != FOLDER]
        size_bytes += sum(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_size for name in names)
    return size_bytes


def _opened(folder: Handle) -> Handle | None:
    try:
        return Handle(os.open(FOLDER, DIRECTORY_FLAGS, dir_fd=folder.descriptor))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Failed("size_mismatch", "Where the parts should be there is no directory.") from None
        raise


def _written_list(parts: Handle) -> bytes | None:
    found = _regular(LIST_NAME, parts)
    if found is None:
        return None
    if found.st_size > MOST_LIST_BYTES:
        raise Failed("size_mismatch", "The list of parts in the transfer's hidden folder is too long.")
    with os.fdopen(os.open(LIST_NAME, _FILE_FLAGS, dir_fd=parts.descriptor), "rb") as file:
        return file.read(MOST_LIST_BYTES)


class _Joining:
    """Of one file, as far as it was compared, from wherever an earlier one was cut off."""

    def __init__(self, folder: Handle, parts: Handle, number: int, file: PartedFile) -> None:
        self._folder = folder
        self._parts = parts
        self._file = file
        self._name = file.folder(number)
        self._joined = f"joined-{self._name}"
        self._own: Handle | None = None
        with suppress(FileNotFoundError):
            self._own = Handle(os.open(self._name, DIRECTORY_FLAGS, dir_fd=parts.descriptor))
        self._first = 1

    def require_parts(self) -> None:
        """Raises Failed unless each part that was compared is there, or in the whole already."""
        joined, last = _regular(self._joined, self._parts), self._file.compared_parts
        # Not asked for one by one: a stranger's list may tell of many more than there are.
        names = set(os.listdir(self._own.descriptor)) if self._own is not None else set()
        first = last + 1
        while first > 1 and part_name(first - 1) in names:
            first -= 1
        if joined is None and not any(1 <= int(name) <= last for name in names if name.isdecimal()):
            if not (self._file.is_compared and self._is_in_place()):
                raise self._missing()
            self._own = None
            return
        # A part is removed when it is durable in the whole with all before it, so these are not needed any more either.
        self._first = first
        if (joined.st_size if joined is not None else 0) < self._file.start_bytes(first):
            raise self._missing()
        for part in range(first, last + 1):
            found = _regular(part_name(part), self._own) if self._own is not None else None
            if found is None or found.st_size != self._file.length_bytes(part):
                raise self._missing()

    def append(self, is_stopped: Callable[[], bool]) -> None:
        """May be cut off anywhere. Returns between two parts when ``is_stopped``."""
        own, last = self._own, self._file.compared_parts
        if own is None or self._first > last:
            return
        if self._first == 1:
            self._take_first(own)
        joined = Handle(os.open(self._joined, os.O_RDWR | os.O_NOFOLLOW, dir_fd=self._parts.descriptor))
        os.ftruncate(joined.descriptor, self._file.start_bytes(self._first))
        for part in range(self._first, last + 1):
            if is_stopped():
                return
            self._append(joined, own, part)

    def finish(self) -> None:
        """The whole takes its place in the folder."""
        if self._own is None:
            return
        joined = Handle(os.open(self._joined, os.O_RDWR | os.O_NOFOLLOW, dir_fd=self._parts.descriptor))
        os.ftruncate(joined.descriptor, self._file.size_bytes)
        os.utime(joined.descriptor, ns=(self._file.mtime_ns, self._file.mtime_ns))
        os.fsync(joined.descriptor)
        there, name = self._target()
        os.rename(self._joined, name, src_dir_fd=self._parts.descriptor, dst_dir_fd=there.descriptor)
        os.fsync(there.descriptor)
        remove_tree(self._parts.descriptor, self._name.encode())

    def _take_first(self, own: Handle) -> None:
        """The first part becomes the whole, to which the others are appended."""
        first = Handle(os.open(part_name(1), _FILE_FLAGS, dir_fd=own.descriptor))
        os.fsync(first.descriptor)
        os.rename(part_name(1), self._joined, src_dir_fd=own.descriptor, dst_dir_fd=self._parts.descriptor)
        self._first = 2

    def _append(self, joined: Handle, own: Handle, part: int) -> None:
        source = Handle(os.open(part_name(part), _FILE_FLAGS, dir_fd=own.descriptor))
        _copy(source.descriptor, joined.descriptor, self._file.start_bytes(part), self._file.length_bytes(part))
        os.fsync(joined.descriptor)
        os.unlink(part_name(part), dir_fd=own.descriptor)

    def _is_in_place(self) -> bool:
        """An earlier run has finished this one."""
        with suppress(FileNotFoundError):
            there, name = self._target()
            found = _regular(name, there)
            return found is not None and found.st_size == self._file.size_bytes
        return False

    def _target(self) -> tuple[Handle, str]:
        """The directory in the folder, and the name in it; no link is followed."""
        here, steps = self._folder, self._file.path.split("/")
        for step in steps[:-1]:
            with suppress(FileExistsError):
                os.mkdir(step, 0o777, dir_fd=here.descriptor)
            here = Handle(os.open(step, DIRECTORY_FLAGS, dir_fd=here.descriptor))
        return here, steps[-1]

    def _missing(self) -> Failed:
        return Failed("size_mismatch", f"Of {self._file.path} not all parts are on the node.")


def _regular(name: str, directory: Handle) -> os.stat_result | None:
    """None where nothing is. Raises Failed for anything but a regular file."""
    try:
        found = os.stat(name, dir_fd=directory.descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise Failed("size_mismatch", "Something that is no regular file was put among the parts.")
    return found


def _copy(source: int, target: int, place: int, count: int) -> None:
    """By the kernel, which shares the blocks where the file system can. Raises OSError, and Failed for a part that shrank."""
    done = 0
    while done < count:
        try:
            copied = os.copy_file_range(source, target, min(_COPY_BYTES, count - done), done, place + done)
        except OSError as error:
            if error.errno not in _KERNEL_CANNOT:
                raise
            copied = os.pwrite(target, os.pread(source, min(_PIECE_BYTES, count - done), done), place + done)
        if not copied:
            raise Failed("size_mismatch", "A part got shorter while it was joined.")
        done += copied
