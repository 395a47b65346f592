"""What all operations on files within a system share: the ticket, the journal, progress, and walks through directories.

As the mover beside it, it needs nothing but Python 3.6 and follows no link that it was not told to follow.
"""
# Python 3.6 is still the system Python of many clusters: spellings that are newer are out of reach here.

import base64
import binascii
import contextlib
import errno
import os
import re
import stat
import sys
import threading
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

if __package__:
    from stagecoach.mover import stagecoach_mover as mover
else:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import stagecoach_mover as mover  # type: ignore[import-not-found,no-redef]  # novm

JOURNAL = "journal.json"
PROGRESS = "progress.json"
OPERATIONS = ("mv", "cp", "rm", "compress", "extract")
COMPRESSIONS = ("none", "gzip", "bzip2", "xz")
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe in a file's place must not hang us

Document = Dict[str, Any]
Identity = List[int]


class OperationTicket:
    """The ticket, checked: whatever is not expected in it is `ticket_unreadable`."""

    def __init__(self, document: Any) -> None:
        self._document = document if isinstance(document, dict) else {}
        if self._document.get("version") != 1:
            raise self._unreadable("version")
        self.transfer_id = str(self._document.get("transfer_id"))
        if not re.match(r"[a-z0-9]{1,64}\Z", self.transfer_id):
            raise self._unreadable("transfer_id")
        self.kind = str(self._document.get("kind"))
        if self.kind not in OPERATIONS:
            raise self._unreadable("kind")
        attempt = self._document.get("attempt")
        if not isinstance(attempt, int) or attempt < 1:
            raise self._unreadable("attempt")
        self.attempt = attempt
        self.path = self._path("path_base64", self._document.get("path_base64"))
        self.source = b"" if self.kind == "rm" else self._path("source_base64", self._document.get("source_base64"))
        self.root = self._optional_path("root_base64")
        self.source_root = self._optional_path("source_root_base64")
        roots = self._document.get("roots_base64")
        if not isinstance(roots, list):
            raise self._unreadable("roots_base64")
        self.roots = [self._path("roots_base64", root) for root in roots]
        options = self._document.get("options")
        if not isinstance(options, dict) or options.get("compression") not in COMPRESSIONS:
            raise self._unreadable("options")
        self.dereference = options.get("dereference") is True
        self.compression = str(options["compression"])
        self.from_inside = options.get("from_inside") is True
        self.merges = options.get("merges") is True
        pattern = options.get("match_pattern")
        if pattern is not None and (not isinstance(pattern, str) or not pattern or "\0" in pattern):
            raise self._unreadable("options")
        self.match_pattern = pattern  # type: Optional[str]
        self.size_bytes = 0  # what is found to work on

    @staticmethod
    def _unreadable(key: str) -> mover.Failed:
        return mover.Failed("ticket_unreadable", "The ticket's '{}' is not what this program understands.".format(key))

    def _path(self, key: str, value: Any) -> bytes:
        try:
            path = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
        except (ValueError, binascii.Error):
            raise self._unreadable(key) from None
        if not path.startswith(b"/") or b"\0" in path:
            raise self._unreadable(key)
        return path

    def _optional_path(self, key: str) -> Optional[bytes]:
        value = self._document.get(key)
        return None if value is None else self._path(key, value)


class Work:
    """One operation under way: its ticket, what is written down of it, how far it is, and the word to stop."""

    def __init__(self, ticket: OperationTicket, state: mover.State, clock: mover.Clock, stop: threading.Event) -> None:
        self.ticket = ticket
        self.state = state
        self.progress = mover.Progress(clock)
        self.file_count = None  # type: Optional[int]
        self.files_done = 0
        self.proved = []  # type: List[Dict[str, str]]
        self._stop = stop
        self._is_past_stopping = False

    def check(self) -> None:
        """Raises when somebody wants it to stop, while it may."""
        if self._stop.is_set() and not self._is_past_stopping:
            raise mover.Failed("interrupted", "The job was stopped before its work was complete; run it again.")

    def past_stopping(self) -> None:
        """From here on an end in the middle would leave something half done, and it will not be long."""
        self.check()
        self._is_past_stopping = True

    def moved(self, count: int) -> None:
        self.progress.moved(count)

    def counted(self) -> None:
        self.files_done += 1

    def measured(self, size_bytes: int, file_count: int) -> None:
        self.ticket.size_bytes, self.file_count = size_bytes, file_count

    def journal(self) -> Document:
        """What an earlier run of this transfer has written down."""
        journal = self.state.load(JOURNAL)
        mine = journal.get("transfer_id") == self.ticket.transfer_id and journal.get("kind") == self.ticket.kind
        return journal if mine else {}

    def note(self, phase: str, identity: Identity, **more: Any) -> None:
        """Before an act that must not be done twice. What cannot be written down must not be begun."""
        mine = {"transfer_id": self.ticket.transfer_id, "kind": self.ticket.kind}  # type: Document
        mine.update(files_done=self.files_done, size_bytes=self.ticket.size_bytes)
        if not self.state.save(JOURNAL, dict(mine, phase=phase, identity=identity, **more)):
            raise mover.Failed("mover_error", "The job's directory cannot be written; nothing was begun. Free space there.")

    def take_over(self, journal: Document) -> None:
        """What an earlier run has done, for the receipt that it could not write any more."""
        files_done, size_bytes = journal.get("files_done"), journal.get("size_bytes")
        # A single thing is counted only when it is at its place.
        self.files_done = max(1, files_done if isinstance(files_done, int) else 0)
        self.measured(size_bytes if isinstance(size_bytes, int) else 0, self.files_done)

    def document(self) -> Document:
        """What is told of its progress."""
        told = self.progress.document(self.ticket)  # type: Document
        return dict(told, files_done=self.files_done, file_count=self.file_count)

    def prove(self, how: str, value: str) -> None:
        self.proved.append({"how": how, "value": value})


def identity_of(found: os.stat_result) -> Identity:
    return [found.st_dev, found.st_ino]


def unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether it is the same file, with the same content as far as its times and its size tell."""
    one, other = [(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns) for found in (before, after)]
    return one == other


def lstat(name: bytes, directory: mover.Handle) -> Optional[os.stat_result]:
    """None when nothing is there."""
    try:
        return os.stat(name, dir_fd=directory.descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return None


class Place:
    """A name in an open directory, which is where it was when the path was resolved."""

    def __init__(self, path: bytes, root: Optional[bytes], missing: str) -> None:
        self.path = path
        parent, self.name = os.path.split(path)
        with mover.disk_errors(missing):
            self.directory = mover.Handle(os.open(parent, os.O_RDONLY | os.O_DIRECTORY))
            if root is not None and mover.leads_elsewhere(parent, root, self.directory.descriptor):
                raise mover.Failed(missing, "The directory of {} was replaced after the request.".format(mover.shown(path)))

    def look(self) -> Optional[os.stat_result]:
        return lstat(self.name, self.directory)

    def open_directory(self) -> mover.Handle:
        return mover.Handle(os.open(self.name, mover.DIRECTORY_FLAGS, dir_fd=self.directory.descriptor))


class Step(NamedTuple):
    """One thing met on a walk. `kind`: directory, left (a directory, when all in it has been met), file, link, special.

    `directory` is the one that `name` is in; `path` leads from the top of the walk to it. `followed` is what a link leads
    to, open, where links are followed; `found` is then of that.
    """

    kind: str
    path: bytes
    directory: mover.Handle
    name: bytes
    found: os.stat_result
    link: bytes = b""
    followed: Optional[mover.Handle] = None

    def open(self) -> mover.Handle:
        """Of a file: open, and still the one that was met."""
        handle = self.followed
        try:
            if handle is None:
                handle = mover.Handle(os.open(self.name, READ_FLAGS, dir_fd=self.directory.descriptor))
            found = os.fstat(handle.descriptor)
        except OSError as error:
            raise mover.tree_failure(error, self.path, "source_changed") from None
        if not stat.S_ISREG(found.st_mode) or not unchanged(self.found, found):
            raise changed(self.path)
        return handle

    def require_unchanged(self, handle: mover.Handle) -> None:
        if not unchanged(self.found, os.fstat(handle.descriptor)):
            raise changed(self.path)


def changed(path: bytes) -> mover.Failed:
    return mover.Failed("source_changed", "{} changed while it was being read; begin again.".format(mover.shown(path)))


class _Level:
    def __init__(self, path: bytes, name: bytes, handle: mover.Handle) -> None:
        self.path = path
        self.name = name
        self.handle = handle  # type: Optional[mover.Handle]
        self.found = os.fstat(handle.descriptor)
        self.names = sorted((os.fsencode(one) for one in os.listdir(handle.descriptor)), reverse=True)


class Walk:
    """Everything below a directory, parents first, names sorted as bytes. Only the deepest few directories stay open."""

    def __init__(
        self,
        work: Work,
        top: mover.Handle,
        left_out: Optional[Set[Tuple[int, int]]] = None,
        follow: bool = False,
        is_removal: bool = False,
    ) -> None:
        self._work = work
        self._left_out = left_out or set()
        self._follow = follow
        self._is_removal = is_removal  # opens what is closed, and stays on one file system
        self._top = top
        self._levels = [_Level(b"", b"", top)]

    def __iter__(self) -> Iterator[Step]:
        levels = self._levels
        while levels:
            level = levels[-1]
            self._work.check()
            if not level.names:
                levels.pop()
                if levels:
                    yield Step("left", level.path, self._handle(levels[-1]), level.name, level.found)
                continue
            name = level.names.pop()
            path = level.path + b"/" + name if level.path else name
            try:
                step = self._met(self._handle(level), name, path)
            except FileNotFoundError:
                if self._is_removal:  # what is to go has gone
                    continue
                raise changed(path) from None
            except OSError as error:
                raise mover.tree_failure(error, path, "source_changed") from None
            if step is None:
                continue
            yield step
            if step.kind == "directory":
                self._enter(step)

    def _met(self, here: mover.Handle, name: bytes, path: bytes) -> Optional[Step]:
        found = os.stat(name, dir_fd=here.descriptor, follow_symlinks=False)
        if self._is_removal and found.st_dev != self._levels[0].found.st_dev:
            raise mounted(path)
        if (found.st_dev, found.st_ino) in self._left_out:
            return None
        if stat.S_ISLNK(found.st_mode):
            if self._follow:
                followed = followed_link(self._work.ticket, here, name, path)
                found = os.fstat(followed.descriptor)
                return Step(kind_of(found), path, here, name, found, b"", followed)
            return Step("link", path, here, name, found, os.readlink(name, dir_fd=here.descriptor))
        return Step(kind_of(found), path, here, name, found)

    def _enter(self, step: Step) -> None:
        if step.followed is not None and any(os.path.samestat(step.found, level.found) for level in self._levels):
            words = "The link {} leads back to a directory that it is in."
            raise mover.Failed("source_outside", words.format(mover.shown(step.path)))
        try:
            level = _Level(step.path, step.name, step.followed or self._open(step.directory, step.name))
        except FileNotFoundError:
            if self._is_removal:
                return
            raise changed(step.path) from None
        except OSError as error:
            raise mover.tree_failure(error, step.path, "source_changed") from None
        self._levels.append(level)
        if len(self._levels) > mover.DIRECTORIES_OPEN and not self._follow:
            self._levels[-mover.DIRECTORIES_OPEN].handle = None

    def _open(self, directory: mover.Handle, name: bytes) -> mover.Handle:
        if self._is_removal:
            return mover.open_whatever_its_mode(directory.descriptor, name)
        return mover.Handle(os.open(name, mover.DIRECTORY_FLAGS, dir_fd=directory.descriptor))

    def _handle(self, level: _Level) -> mover.Handle:
        """Open, if need be by going down to it once more."""
        if level.handle is None:
            at = self._levels.index(level)
            from_here = max(index for index in range(at) if self._levels[index].handle is not None)
            handle = self._levels[from_here].handle or self._top
            try:
                for lower in self._levels[from_here + 1 : at + 1]:
                    handle = self._open(handle, lower.name)
                is_same = os.path.samestat(os.fstat(handle.descriptor), level.found)
            except OSError as error:
                raise mover.tree_failure(error, level.path, "source_changed") from None
            if not is_same:
                raise changed(level.path)
            level.handle = handle
        return level.handle


def mounted(path: bytes) -> mover.Failed:
    words = "Another file system is mounted at {}; it is not removed, and what holds it stays."
    return mover.Failed("source_outside", words.format(mover.shown(path)))


def kind_of(found: os.stat_result) -> str:
    if stat.S_ISDIR(found.st_mode):
        return "directory"
    if stat.S_ISLNK(found.st_mode):
        return "link"
    return "file" if stat.S_ISREG(found.st_mode) else "special"


def require_ordinary(step: Step) -> None:
    if step.kind == "special":
        words = "{} is a socket, a pipe or a device; only files, directories and links are worked on."
        raise mover.Failed("source_special_file", words.format(mover.shown(step.path or step.name)))


def followed_link(ticket: OperationTicket, directory: mover.Handle, name: bytes, path: bytes) -> mover.Handle:
    """What a symbolic link leads to, open; it must lie inside the file systems that may be used."""
    real = os.path.realpath(os.path.join(b"/proc/self/fd/%d" % directory.descriptor, name))
    roots = [os.path.realpath(root).rstrip(b"/") for root in ticket.roots]
    if not any(real == root or real.startswith(root + b"/") for root in roots):
        words = "The link {} leads outside the file systems that may be used."
        raise mover.Failed("source_outside", words.format(mover.shown(path)))
    try:
        handle = mover.Handle(os.open(real, READ_FLAGS))
        where = os.fsencode(os.readlink("/proc/self/fd/{}".format(handle.descriptor)))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            words = "The link {} leads to nothing (No such file or directory)."
            raise mover.Failed("source_missing", words.format(mover.shown(path))) from None
        raise mover.tree_failure(error, path, "source_changed") from None
    if where != real:  # something on the way has become a link since
        raise changed(path)
    return handle


def open_below(top: mover.Handle, names: List[bytes]) -> mover.Handle:
    """The directory that so many steps lead to; raises OSError."""
    handle = top
    for name in names:
        handle = mover.Handle(os.open(name, mover.DIRECTORY_FLAGS, dir_fd=handle.descriptor))
    return handle


def own_things(work: Work, *more: Optional[os.stat_result]) -> Set[Tuple[int, int]]:
    """What no walk meets: the jobs' own directories, and `more`."""
    own = mover.own_directories(work.state.directory)  # type: Set[Tuple[int, int]]
    return own | {(found.st_dev, found.st_ino) for found in more if found is not None}


def fsync_directory(handle: mover.Handle) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot
        os.fsync(handle.descriptor)
