"""Copies, moves and removes files and trees within a system: whole at their place, or not there; nothing lost on the way.

A copy is made hidden beside its place, read again, and renamed. A move between file systems is such a copy, after which
the source goes, thing by thing, and only where the copy has the same.
"""

import contextlib
import errno
import os
import stat
import sys
from typing import Dict, List, Optional, Tuple  # noqa: F401 - some stand in type comments only

if __package__:
    from stagecoach.mover import stagecoach_merging as merging
    from stagecoach.mover import stagecoach_mover as mover
    from stagecoach.mover import stagecoach_work as working
else:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import stagecoach_merging as merging  # type: ignore[import-not-found,no-redef]  # novm
    import stagecoach_mover as mover  # type: ignore[import-not-found,no-redef]  # novm
    import stagecoach_work as working  # type: ignore[import-not-found,no-redef]  # novm

COPY_BYTES = 1024 * 1024
READ_FROM_DISK_BYTES = 16 * 1024 * 1024  # what is smaller is verified as it stands in memory
KEPT_ATTRIBUTES = ("user.", "system.posix_acl_access")


class CopiedFile(mover.TargetFile):
    """The copy of one file: what it is and was is taken over from its source."""

    def descriptor(self) -> int:
        return self._descriptor

    def place_as(self, work: working.Work, source: int) -> None:
        with mover.disk_errors("target_missing_directory"):
            self.old_mode()
            keep_attributes(source, self._descriptor)
            os.fsync(self._descriptor)
            found = os.fstat(self._descriptor)
            work.note("placing", working.identity_of(found))
            if os.stat(self._hidden, dir_fd=self._directory, follow_symlinks=False).st_ino != found.st_ino:
                raise mover.AnotherMover()
            os.rename(self._hidden, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            os.fsync(self._directory)


def keep_attributes(source: int, copy: int) -> None:
    """Group and extended attributes (lists of who may access it among them) as far as user and file system let them be."""
    found = os.fstat(source)
    with contextlib.suppress(OSError):
        os.fchown(copy, -1, found.st_gid)
    os.fchmod(copy, found.st_mode & 0o777)
    with contextlib.suppress(OSError, AttributeError):
        for name in os.listxattr(source):
            if name.startswith(KEPT_ATTRIBUTES):
                with contextlib.suppress(OSError):
                    os.setxattr(copy, name, os.getxattr(source, name))
    os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))


def extents(descriptor: int, size_bytes: int) -> List[Tuple[int, int]]:
    """Where a file holds data; elsewhere are holes."""
    found = []  # type: List[Tuple[int, int]]
    at = 0
    while at < size_bytes:
        try:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
            at = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size_bytes)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            return [(0, size_bytes)]  # a file system that cannot tell
        found.append((begin, at))
    return found


def copy_content(work: working.Work, source: int, copy: int, path: bytes) -> None:
    """All of it, holes as holes; then what was written is read again and compared."""
    size_bytes = os.fstat(source).st_size
    pieces = extents(source, size_bytes)
    data_bytes = sum(end - begin for begin, end in pieces)
    crc, done = mover.Crc32(), 0
    try:
        if data_bytes == size_bytes >= mover.RESERVED_FROM_BYTES:
            mover.reserve(copy, size_bytes)
        for begin, end in pieces:
            while begin < end:
                work.check()
                data = os.pread(source, min(COPY_BYTES, end - begin), begin)
                if not data:
                    raise working.changed(path)
                write_all(copy, data, begin)
                crc.update(data)
                begin += len(data)
                work.moved(len(data))
        os.ftruncate(copy, size_bytes)
        if data_bytes < size_bytes:
            work.progress.add(done=size_bytes - data_bytes)
        if size_bytes >= READ_FROM_DISK_BYTES:
            os.fdatasync(copy)
            with contextlib.suppress(OSError, AttributeError):
                os.posix_fadvise(copy, 0, 0, os.POSIX_FADV_DONTNEED)
        again = mover.Crc32()
        for begin, end in pieces:
            while begin < end:
                work.check()
                data = os.pread(copy, min(COPY_BYTES, end - begin), begin)
                if not data:
                    break
                again.update(data)
                begin += len(data)
                done += len(data)
    except OSError as error:
        raise mover.tree_failure(error, path, "target_missing_directory") from None
    if (done, again.hexdigest()) != (data_bytes, crc.hexdigest()):
        raise mover.Failed("digest_mismatch", "{} was written, but is not what was read.".format(mover.shown(path)))


def write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while len(view):
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def measure(work: working.Work, top: mover.Handle) -> None:
    work.progress.phase = "measuring"
    size_bytes, file_count = 0, 1
    for step in working.Walk(work, top, working.own_things(work), follow=work.ticket.dereference):
        working.require_ordinary(step)
        file_count += step.kind != "left"
        size_bytes += step.found.st_size if step.kind == "file" else 0
    work.measured(size_bytes, file_count)


def copy(work: working.Work) -> None:
    """cp, to a place that is the copy's own, or into a directory that is there already."""
    ticket = work.ticket
    if was_placed(work):
        return
    source = working.Place(ticket.source, ticket.source_root, "source_missing")
    found = source.look()
    if found is None:
        raise mover.Failed("source_missing", "The source does not exist any more (No such file or directory).")
    copy_thing(work, source, found)


def was_placed(work: working.Work) -> bool:
    """Whether an earlier run has come so far that nothing but its receipt is missing; a merge that it began is ended."""
    ticket, journal = work.ticket, work.journal()
    if journal.get("phase") == "placing":
        there = working.Place(ticket.path, ticket.root, "target_missing_directory").look()
        if there is None or working.identity_of(there) != journal.get("identity"):
            return False
        work.take_over(journal)
        return True
    if journal.get("phase") in ("merging", "merged"):
        work.take_over(journal)
        tree = new_tree(work)
        try:
            if journal["phase"] == "merging":
                tree.go_on_merging(work, journal)
            tree.remove()
        finally:
            tree.close()
        return True
    return False


def new_tree(work: working.Work) -> merging.NewTree:
    """Hidden beside its place, or in the directory that it is to join."""
    ticket = work.ticket
    path = os.path.join(ticket.path, b"any") if ticket.merges else ticket.path
    return merging.NewTree(path, ticket.transfer_id, ticket.root, work.state.directory)


def copy_thing(work: working.Work, source: working.Place, found: os.stat_result) -> None:
    try:
        if stat.S_ISLNK(found.st_mode):
            copy_link(work, source, found)
        elif stat.S_ISDIR(found.st_mode):
            copy_tree(work, source)
        else:
            copy_file(work, source)
    except OSError as error:
        raise mover.tree_failure(error, source.path, "source_changed") from None


def copy_link(work: working.Work, source: working.Place, found: os.stat_result) -> None:
    ticket = work.ticket
    work.measured(0, 1)
    hidden = ".stagecoach-{}.part".format(ticket.transfer_id).encode("ascii")
    place = working.Place(ticket.path, ticket.root, "target_missing_directory")
    directory = place.directory.descriptor
    with mover.disk_errors("target_missing_directory"):
        mover.remove_tree(directory, hidden)
        os.symlink(os.readlink(source.name, dir_fd=source.directory.descriptor), hidden, dir_fd=directory)
        with contextlib.suppress(OSError, NotImplementedError):
            times = (found.st_atime_ns, found.st_mtime_ns)
            os.utime(hidden, ns=times, dir_fd=directory, follow_symlinks=False)
        work.past_stopping()
        work.note("placing", working.identity_of(os.stat(hidden, dir_fd=directory, follow_symlinks=False)))
        os.rename(hidden, place.name, src_dir_fd=directory, dst_dir_fd=directory)
        working.fsync_directory(place.directory)
    work.counted()


def copy_file(work: working.Work, source: working.Place) -> None:
    ticket = work.ticket
    handle = mover.Handle(os.open(source.name, working.READ_FLAGS, dir_fd=source.directory.descriptor))
    before = os.fstat(handle.descriptor)
    if not stat.S_ISREG(before.st_mode):
        raise mover.Failed("source_special_file", "The source is a socket, a pipe or a device.")
    work.measured(before.st_size, 1)
    work.progress.phase = "copying"
    target = CopiedFile(ticket.path, ticket.transfer_id, ticket.root)
    try:
        target.create(0)
        copy_content(work, handle.descriptor, target.descriptor(), ticket.source)
        if not working.unchanged(before, os.fstat(handle.descriptor)):
            raise working.changed(ticket.source)
        work.past_stopping()
        target.place_as(work, handle.descriptor)
    except mover.Failed as failure:
        if not isinstance(failure, mover.AnotherMover):
            target.remove()
        raise
    finally:
        target.close()
    work.counted()
    work.prove("size", str(before.st_size))
    work.prove("read_again", "crc32")


def copy_tree(work: working.Work, source: working.Place) -> None:
    top = source.open_directory()
    measure(work, top)
    work.progress.phase = "copying"
    tree = new_tree(work)
    try:
        tree.create(0)
        fill_tree(work, top, tree)
        tree.finish(work)
    except mover.Failed as failure:
        # What an interruption leaves is cleared by the next run, or by the service.
        if failure.code not in mover.MAY_RUN_AGAIN and work.journal().get("phase") != "merging":
            tree.remove()
        raise
    finally:
        tree.close()
    work.prove("size", str(work.ticket.size_bytes))
    work.prove("read_again", "crc32")


def fill_tree(work: working.Work, top: mover.Handle, tree: merging.NewTree) -> None:
    firsts = {}  # type: Dict[Tuple[int, int], bytes]
    add_member(tree, b"5", b".", os.fstat(top.descriptor))
    for step in working.Walk(work, top, working.own_things(work), follow=work.ticket.dereference):
        working.require_ordinary(step)
        key = (step.found.st_dev, step.found.st_ino)
        if step.kind == "left":
            continue
        if step.kind == "directory":
            add_member(tree, b"5", step.path, step.found)
        elif step.kind == "link":
            add_member(tree, b"2", step.path, step.found, step.link)
        elif key in firsts:
            add_member(tree, b"1", step.path, step.found, firsts[key])
            work.progress.add(done=step.found.st_size)
        else:
            handle = step.open()
            try:
                new = tree.new_file(step.path.split(b"/"))
            except OSError as error:
                raise mover.tree_failure(error, step.path, "target_missing_directory") from None
            copy_content(work, handle.descriptor, new.descriptor, step.path)
            keep_attributes(handle.descriptor, new.descriptor)
            step.require_unchanged(handle)
            if step.found.st_nlink > 1:
                firsts[key] = step.path
        work.counted()
    work.counted()


def add_member(tree: merging.NewTree, kind: bytes, path: bytes, found: os.stat_result, target: bytes = b"") -> None:
    no_content = mover.Stream(0, 0, lambda: memoryview(b""))
    tree.make(mover.Member(path, kind, stat.S_IMODE(found.st_mode), 0, found.st_mtime_ns, target), no_content)


def open_top(source: working.Place) -> Optional[mover.Handle]:
    """A directory, with its mode changed if it would bar the way; None when there is none."""
    with contextlib.suppress(FileNotFoundError):
        return mover.open_whatever_its_mode(source.directory.descriptor, source.name)
    return None
