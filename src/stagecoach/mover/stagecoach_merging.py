"""A directory on its way: hidden until all of it is there, then given its place, or added to what stands there.

Adding goes thing by thing, each at one stroke, and only after it is known that each can go. What stops it in the middle
is gone on with by the next run: what has not been added yet is still in the hidden directory.
"""

import base64
import errno
import os
import stat
import sys
from typing import Any, List, Optional  # noqa: F401 - some stand in type comments only

if __package__:
    from stagecoach.mover import stagecoach_mover as mover
    from stagecoach.mover import stagecoach_work as working
else:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import stagecoach_mover as mover  # type: ignore[import-not-found,no-redef]  # novm
    import stagecoach_work as working  # type: ignore[import-not-found,no-redef]  # novm


class NewTree(mover.TargetTree):
    """What the mover makes of a tar stream, made of whatever comes."""

    def new_file(self, names: List[bytes]) -> mover.Handle:
        directory = self._directory_at(names[:-1])
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        return mover.Handle(os.open(names[-1], flags, 0o600, dir_fd=directory.descriptor))

    def finish(self, work: working.Work) -> None:
        """All of it is there: modes and times, and down to the disk. Then it takes its place, or joins what is there."""
        work.progress.phase = "placing"
        self.settle(work.check)
        self.sync()
        merge = self._merge(work)
        if work.ticket.merges:
            merge.run(is_trial=True)
        work.past_stopping()
        work.note("merging" if work.ticket.merges else "placing", self.identity())
        if work.ticket.merges:
            self._join(work, merge)
        else:
            self.place()

    def go_on_merging(self, work: working.Work, journal: working.Document) -> None:
        """As an earlier run had begun to."""
        self.reopen(None, 0)
        if self._descriptor < 0 or self.identity() != journal.get("identity"):
            raise mover.Failed("mover_error", "What was to be added to the target has been removed; begin again.")
        work.past_stopping()
        merge = self._merge(work)
        merge.close_again(journal.get("opened"))
        self._join(work, merge)

    def identity(self) -> working.Identity:
        return working.identity_of(os.fstat(self._descriptor))

    def _merge(self, work: working.Work) -> "Merge":
        here, there = mover.Handle(os.dup(self._descriptor)), mover.Handle(os.dup(self._directory))
        return Merge(work, here, there, self.identity())

    def _join(self, work: working.Work, merge: "Merge") -> None:
        merge.run(is_trial=False)
        with mover.disk_errors("target_missing_directory"):
            mover.sync_file_system(self._directory)
        work.note("merged", self.identity())
        self.remove()


class Merge:
    """Takes all that is in one directory over into another."""

    def __init__(self, work: working.Work, source: mover.Handle, target: mover.Handle, identity: working.Identity) -> None:
        self._work = work
        self._source = source
        self._target = target
        self._identity = identity

    def run(self, is_trial: bool) -> None:
        """A trial changes nothing, and raises what would stop it."""
        self._directory(self._source, self._target, b"", is_trial)

    def close_again(self, opened: Any) -> None:
        """The directory that an earlier run had opened for its way and no longer could close."""
        if not isinstance(opened, list) or len(opened) != 2 or not isinstance(opened[1], int):
            return
        names = base64.b64decode(opened[0]).split(b"/")
        for top in (self._source, self._target):
            try:
                above = working.open_below(top, names[:-1])
                if stat.S_ISDIR(os.stat(names[-1], dir_fd=above.descriptor, follow_symlinks=False).st_mode):
                    os.chmod(names[-1], opened[1], dir_fd=above.descriptor)
                    return
            except FileNotFoundError:
                continue
            except OSError as error:
                raise mover.tree_failure(error, b"/".join(names), "target_missing_directory") from None

    def _directory(self, source: mover.Handle, target: mover.Handle, path: bytes, is_trial: bool) -> None:
        for entry in sorted(os.listdir(source.descriptor)):
            name = os.fsencode(entry)
            here = path + name
            try:
                found = os.stat(name, dir_fd=source.descriptor, follow_symlinks=False)
                there = working.lstat(name, target)
                is_directory = stat.S_ISDIR(found.st_mode)
                if there is not None and is_directory != stat.S_ISDIR(there.st_mode):
                    words = "{} is a directory on one side and none on the other; nothing was changed."
                    raise mover.Failed("target_exists", words.format(mover.shown(here)))
                if there is not None and is_directory:
                    inner = mover.open_whatever_its_mode(source.descriptor, name)
                    outer = mover.Handle(os.open(name, mover.DIRECTORY_FLAGS, dir_fd=target.descriptor))
                    if not os.access(b".", os.W_OK | os.X_OK, dir_fd=outer.descriptor):
                        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
                    self._directory(inner, outer, here + b"/", is_trial)
                elif not is_trial:
                    self._take_over(source, target, name, found, here)
            except OSError as error:
                raise mover.tree_failure(error, here, "target_missing_directory") from None

    def _take_over(self, source: mover.Handle, target: mover.Handle, name: bytes, found: os.stat_result, path: bytes) -> None:
        """Renames; a directory that may not be written gets no new parent, so it may while it moves."""
        mode = stat.S_IMODE(found.st_mode)
        is_closed = stat.S_ISDIR(found.st_mode) and mode & 0o300 != 0o300
        if is_closed:
            opened = [base64.b64encode(path).decode("ascii"), mode]
            self._work.note("merging", self._identity, opened=opened)
            os.chmod(name, mode | 0o700, dir_fd=source.descriptor)
        os.rename(name, name, src_dir_fd=source.descriptor, dst_dir_fd=target.descriptor)
        if is_closed:
            os.chmod(name, mode, dir_fd=target.descriptor)
