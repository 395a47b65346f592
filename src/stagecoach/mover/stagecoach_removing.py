"""Moves and removes files and trees within a system; whatever stops it, the next run goes on, and takes nothing else away."""

import errno
import os
import stat
import sys
from typing import List, Optional

if __package__:
    from stagecoach.mover import stagecoach_copying as copying
    from stagecoach.mover import stagecoach_mover as mover
    from stagecoach.mover import stagecoach_work as working
else:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import stagecoach_copying as copying  # type: ignore[import-not-found,no-redef]  # novm
    import stagecoach_mover as mover  # type: ignore[import-not-found,no-redef]  # novm
    import stagecoach_work as working  # type: ignore[import-not-found,no-redef]  # novm

IN_THE_WAY = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
# Some file systems keep times more coarsely than others.
COARSE_NANOSECONDS = (1, 100, 1000, 1000000, 1000000000)


def move(work: working.Work) -> None:
    """mv: a rename where that can be; else a copy, after which the source goes."""
    ticket, journal = work.ticket, work.journal()
    source = working.Place(ticket.source, ticket.source_root, "source_missing")
    target = working.Place(ticket.path, ticket.root, "target_missing_directory")
    found, there = source.look(), target.look()
    identity = journal.get("identity")
    phase = journal.get("phase")
    is_there = there is not None and working.identity_of(there) == identity
    if phase == "renaming" and is_there and (found is None or working.identity_of(found) != identity):
        work.take_over(journal)
        work.prove("renamed", "within one file system")
        return
    if phase == "placing" and is_there:
        work.take_over(journal)
        remove_copied(work, source, target)
        return
    if found is None:
        raise mover.Failed("source_missing", "The source does not exist any more (No such file or directory).")
    if renamed(work, source, target, found):
        return
    copying.copy_thing(work, source, found)
    remove_copied(work, source, target)


def renamed(work: working.Work, source: working.Place, target: working.Place, found: os.stat_result) -> bool:
    """False where the two are not on one file system, or nearly so: quotas and mounts have borders of their own."""
    here, there = source.directory.descriptor, target.directory.descriptor
    work.measured(found.st_size if stat.S_ISREG(found.st_mode) else 0, 1)
    work.check()
    work.note("renaming", working.identity_of(found))
    try:
        os.rename(source.name, target.name, src_dir_fd=here, dst_dir_fd=there)
        left = source.look()
        if left is not None and os.path.samestat(left, found):
            os.unlink(source.name, dir_fd=here)  # two names of one file: renaming does nothing then
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        if error.errno in IN_THE_WAY:
            words = "Something stands at the target that cannot be replaced ({})."
            raise mover.Failed("target_exists", words.format(mover.plain(error))) from None
        raise mover.tree_failure(error, source.path, "source_missing") from None
    for place in (target, source):
        working.fsync_directory(place.directory)
    work.counted()
    work.prove("renamed", "within one file system")
    return True


def remove_copied(work: working.Work, source: working.Place, target: working.Place) -> None:
    """What has the same in the copy goes; whatever else is there stays, and is told."""
    work.past_stopping()
    work.progress.phase = "removing"
    found, there = source.look(), target.look()
    if found is None:
        return
    kept = []  # type: List[bytes]
    if there is None:
        raise mover.Failed("source_changed", "The copy is not at the target any more; the source is left as it is.")
    try:
        if stat.S_ISDIR(found.st_mode):
            remove_copied_tree(work, source, target, kept)
        elif is_same(source.directory, source.name, found, target.directory, target.name):
            os.unlink(source.name, dir_fd=source.directory.descriptor)
        else:
            kept.append(source.name)
    except OSError as error:
        raise mover.tree_failure(error, source.path, "source_changed") from None
    working.fsync_directory(source.directory)
    if kept:
        words = "The copy is whole at the target, but {} of the source changed meanwhile, or came later, and stayed: {}."
        raise mover.Failed("source_changed", words.format(len(kept), ", ".join(mover.shown(path) for path in kept[:5])))


def remove_copied_tree(work: working.Work, source: working.Place, target: working.Place, kept: List[bytes]) -> None:
    require_not_mounted(source)
    top, copy = copying.open_top(source), target.open_directory()
    if top is None:
        return
    twins = Twins(copy)
    for step in working.Walk(work, top, is_removal=True):
        if step.kind == "directory":
            continue
        if step.kind == "left":
            rmdir_unless_full(step.directory, step.name, step.path, kept)
            continue
        parent, _, name = step.path.rpartition(b"/")
        twin = twins.directory(parent)
        if twin is not None and is_same(step.directory, step.name, step.found, twin, name):
            os.unlink(step.name, dir_fd=step.directory.descriptor)
        else:
            kept.append(step.path)
    rmdir_unless_full(source.directory, source.name, source.name, kept)


def rmdir_unless_full(directory: mover.Handle, name: bytes, path: bytes, kept: List[bytes]) -> None:
    try:
        os.rmdir(name, dir_fd=directory.descriptor)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not kept:
            kept.append(path)


class Twins:
    """Directories of the copy, by their path in the source; the last one stays open."""

    def __init__(self, top: mover.Handle) -> None:
        self._top = top
        self._path = b""
        self._last = top  # type: Optional[mover.Handle]

    def directory(self, path: bytes) -> Optional[mover.Handle]:
        if path != self._path:
            self._path = path
            try:
                self._last = working.open_below(self._top, path.split(b"/") if path else [])
            except OSError:
                self._last = None  # it is not there, or may not be seen: then nothing is the same
        return self._last


def is_same(here: mover.Handle, name: bytes, found: os.stat_result, there: mover.Handle, twin_name: bytes) -> bool:
    """Whether the copy has the same kind of thing by that name, of the same size and time, or leading to the same."""
    twin = working.lstat(twin_name, there)
    if twin is None or stat.S_IFMT(twin.st_mode) != stat.S_IFMT(found.st_mode) or os.path.samestat(twin, found):
        return False
    if stat.S_ISLNK(found.st_mode):
        one, other = os.readlink(name, dir_fd=here.descriptor), os.readlink(twin_name, dir_fd=there.descriptor)
        return one == other
    times = {found.st_mtime_ns // unit * unit for unit in COARSE_NANOSECONDS}
    return found.st_size == twin.st_size and twin.st_mtime_ns in times


def remove(work: working.Work) -> None:
    """rm: the thing that was there when the first run began, and no other that has taken its name since."""
    ticket, journal = work.ticket, work.journal()
    place = working.Place(ticket.path, ticket.root, "source_missing")
    found = place.look()
    if journal.get("phase") == "removed":
        work.take_over(journal)
        return
    if journal.get("phase") == "removing":
        if found is None or working.identity_of(found) != journal.get("identity"):
            return
    elif found is None:
        raise mover.Failed("source_missing", "{}: No such file or directory.".format(mover.shown(ticket.path)))
    else:
        work.note("removing", working.identity_of(found))
    work.progress.phase = "removing"
    try:
        if stat.S_ISDIR(found.st_mode):
            remove_directory(work, place)
        else:
            size = found.st_size if stat.S_ISREG(found.st_mode) else 0
            os.unlink(place.name, dir_fd=place.directory.descriptor)
            work.moved(size)
            work.counted()
    except FileNotFoundError:
        pass  # it is gone, and that is what was wanted
    except OSError as error:
        raise mover.tree_failure(error, ticket.path, "source_changed") from None
    working.fsync_directory(place.directory)
    # The file system may give its number to the next thing that is made there.
    work.measured(work.progress.bytes_done, work.files_done)
    work.note("removed", working.identity_of(found))


def require_not_mounted(place: working.Place) -> None:
    found = place.look()
    if found is not None and found.st_dev != os.fstat(place.directory.descriptor).st_dev:
        raise working.mounted(place.path)


def remove_directory(work: working.Work, place: working.Place) -> None:
    require_not_mounted(place)
    for last in (False, False, True):
        top = copying.open_top(place)
        if top is None:
            return
        for step in working.Walk(work, top, is_removal=True):
            if step.kind == "directory":
                continue
            try:
                if step.kind == "left":
                    os.rmdir(step.name, dir_fd=step.directory.descriptor)
                else:
                    os.unlink(step.name, dir_fd=step.directory.descriptor)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    continue  # something came meanwhile; the next round takes it
                raise mover.tree_failure(error, step.path, "source_changed") from None
            if step.kind == "file" and step.found.st_nlink == 1:
                work.moved(step.found.st_size)
            work.counted()
        try:
            os.rmdir(place.name, dir_fd=place.directory.descriptor)
            work.counted()
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if last:
                words = "New files keep coming into {} (Directory not empty); stop what writes there and retry."
                raise mover.Failed("source_changed", words.format(mover.shown(place.path))) from None
