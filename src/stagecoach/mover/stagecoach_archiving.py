"""Packs files into a tar archive, and unpacks one, within a system: whole at their place, or not there.

The archive is read again before it takes its name. What comes out of one is made hidden in the target and joins it when
all of it is there; nothing of it is written through a link, and no name leads outside.
"""

import bz2
import contextlib
import gzip
import os
import stat
import subprocess
import sys
import zlib
from typing import IO, Any, Callable, Iterator, Optional, Tuple  # noqa: F401 - some stand in type comments only

if __package__:
    from stagecoach.mover import stagecoach_copying as copying
    from stagecoach.mover import stagecoach_merging as merging
    from stagecoach.mover import stagecoach_mover as mover
    from stagecoach.mover import stagecoach_work as working
else:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import stagecoach_copying as copying  # type: ignore[import-not-found,no-redef]  # novm
    import stagecoach_merging as merging  # type: ignore[import-not-found,no-redef]  # novm
    import stagecoach_mover as mover  # type: ignore[import-not-found,no-redef]  # novm
    import stagecoach_work as working  # type: ignore[import-not-found,no-redef]  # novm

try:
    import lzma

    LZMA_ERRORS = (lzma.LZMAError,)  # type: Tuple[Any, ...]
except ImportError:  # a Python built without it
    LZMA_ERRORS = ()

PIECE_BYTES = 512 * 1024
GZIP_LEVEL = 6
NO_END_BYTES = 2**62  # how long a stream will be, only its end can tell
MAGIC = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"))


def opened(compression: str, raw: Any, mode: str) -> Any:
    """A file whose content is that of `raw`, packed or unpacked on the way."""
    if compression == "gzip":
        return gzip.GzipFile(filename="", mode=mode, compresslevel=GZIP_LEVEL, fileobj=raw)
    if compression == "bzip2":
        unpacker = bz2.BZ2File  # type: Any
        return unpacker(raw, mode)
    if compression == "xz":
        if not LZMA_ERRORS:
            raise mover.Failed("compression_unsupported", "The Python on this node knows no xz; take gzip.")
        return lzma.LZMAFile(raw, mode)
    return raw


class Archive:
    """The archive being written: counts and digests the stream of tar, so that it can be compared afterwards."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self.crc = mover.Crc32()
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        self._sink.write(data)
        self.crc.update(data)
        self.size_bytes += len(data)

    def end(self) -> None:
        self.write(bytes(2 * mover.BLOCK_BYTES))
        self.write(bytes(-self.size_bytes % mover.RECORD_BYTES))


def compress(work: working.Work) -> None:
    ticket, journal = work.ticket, work.journal()
    target = mover.TargetFile(ticket.path, ticket.transfer_id, ticket.root)
    try:
        place = working.Place(ticket.path, ticket.root, "target_missing_directory")
        there = place.look()
        if journal.get("phase") == "placing" and there is not None and working.identity_of(there) == journal.get("identity"):
            work.take_over(journal)
            return
        target.create(0)
        descriptor = target._descriptor
        left_out = working.own_things(work, there, os.fstat(descriptor))
        source = working.Place(ticket.source, ticket.source_root, "source_missing")
        work.progress.phase = "measuring"
        size_bytes, file_count = 0, 0
        for step in members(work, source, left_out):
            working.require_ordinary(step)
            size_bytes += step.found.st_size if step.kind == "file" else 0
            file_count += 1
        work.measured(size_bytes, file_count)
        work.progress.phase = "packing"
        with mover.disk_errors("target_missing_directory"), os.fdopen(os.dup(descriptor), "wb") as raw:
            packed = opened(ticket.compression, raw, "wb")
            archive = Archive(packed)
            for step in members(work, source, left_out):
                add(work, archive, step)
            archive.end()
            if packed is not raw:
                packed.close()
        verify(work, descriptor, archive)
        work.past_stopping()
        work.note("placing", working.identity_of(os.fstat(descriptor)))
        target.place()
    except mover.Failed as failure:
        if not isinstance(failure, mover.AnotherMover):
            target.remove()
        raise
    finally:
        target.close()
    work.prove("read_again", "crc32 of the tar stream {}".format(archive.crc.hexdigest()))


def members(work: working.Work, source: working.Place, left_out: Any) -> Iterator[working.Step]:
    """What goes into the archive; the path of each step is its name there."""
    ticket = work.ticket
    if ticket.match_pattern is not None:
        for step in matching(work, source):
            if (step.found.st_dev, step.found.st_ino) not in left_out:
                yield step
        return
    found = source.look()
    if found is None:
        raise mover.Failed("source_missing", "The source does not exist any more (No such file or directory).")
    handle, name = None, source.name
    if stat.S_ISLNK(found.st_mode) and ticket.dereference:
        handle = working.followed_link(ticket, source.directory, name, name)
        found = os.fstat(handle.descriptor)
    if (found.st_dev, found.st_ino) in left_out:
        raise mover.Failed("target_exists", "The archive and what goes into it are the same; name another archive.")
    kind = working.kind_of(found)
    link = os.readlink(name, dir_fd=source.directory.descriptor) if kind == "link" else b""
    if not ticket.from_inside:
        yield working.Step(kind, name, source.directory, name, found, link, handle)
    if kind == "directory":
        with mover.disk_errors("source_missing"):
            top = handle or source.open_directory()
        for step in working.Walk(work, top, left_out, follow=ticket.dereference):
            if step.kind != "left":
                yield step._replace(path=step.path if ticket.from_inside else name + b"/" + step.path)


def matching(work: working.Work, source: working.Place) -> Iterator[working.Step]:
    """The regular files that `find` finds: the same program, with the same understanding of patterns, as everywhere else."""
    ticket = work.ticket
    with mover.disk_errors("source_missing"):
        top = source.open_directory() if ticket.from_inside else source.directory
    start = b"." if ticket.from_inside else b"./" + source.name
    words = [b"find"] + ([b"-L"] if ticket.dereference else [])
    words += [start, b"-type", b"f", b"-regex", (ticket.match_pattern or "").encode("utf-8", "surrogateescape"), b"-print0"]
    try:
        process = subprocess.Popen(
            words,
            cwd="/proc/self/fd/{}".format(top.descriptor),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=(top.descriptor,),
            env=dict(os.environ, LC_ALL="C"),
        )
    except OSError as error:
        raise mover.Failed("program_missing", "find cannot be run on this node ({}).".format(mover.plain(error))) from None
    try:
        for name in names_from(process.stdout):
            work.check()
            yield found_by_name(work, top, name)
        if process.wait() != 0:
            raise mover.Failed("find_failed", "find could not look at everything, or not read the pattern; see the error log.")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def names_from(pipe: Optional[IO[bytes]]) -> Iterator[bytes]:
    rest = b""
    while pipe is not None:
        data = pipe.read(mover.SMALL_BODY_BYTES)
        if not data:
            break
        *whole, rest = (rest + data).split(b"\0")
        for name in whole:
            yield name


def found_by_name(work: working.Work, top: mover.Handle, name: bytes) -> working.Step:
    names = [one for one in name.split(b"/") if one not in (b"", b".")]
    try:
        if work.ticket.dereference:
            handle = working.followed_link(work.ticket, top, name, name)
            return working.Step("file", name, top, names[-1], os.fstat(handle.descriptor), b"", handle)
        directory = working.open_below(top, names[:-1])
        found = os.stat(names[-1], dir_fd=directory.descriptor, follow_symlinks=False)
    except OSError as error:
        raise mover.tree_failure(error, name, "source_changed") from None
    return working.Step(working.kind_of(found), name, directory, names[-1], found)


def add(work: working.Work, archive: Archive, step: working.Step) -> None:
    path = step.path + b"/" if step.kind == "directory" else step.path
    archive.write(mover.tar_header(path, mover.entry_of(step.found, 0, step.name, step.link)))
    if step.kind == "file":
        handle, at = step.open(), 0
        while at < step.found.st_size:
            work.check()
            try:
                data = os.pread(handle.descriptor, min(PIECE_BYTES, step.found.st_size - at), at)
            except OSError as error:
                raise mover.tree_failure(error, step.path, "source_changed") from None
            if not data:
                raise working.changed(step.path)
            archive.write(data)
            at += len(data)
            work.moved(len(data))
        step.require_unchanged(handle)
        archive.write(bytes(-step.found.st_size % mover.BLOCK_BYTES))
    work.counted()


def verify(work: working.Work, descriptor: int, archive: Archive) -> None:
    """Reads the archive from the disk and unpacks it: what comes out must be what went in."""
    work.progress.phase = "verifying"
    with mover.disk_errors("target_missing_directory"):
        os.fdatasync(descriptor)
        with contextlib.suppress(OSError, AttributeError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.lseek(descriptor, 0, os.SEEK_SET)
    crc, size_bytes = mover.Crc32(), 0
    with os.fdopen(os.dup(descriptor), "rb") as raw:
        for data in pieces(work, opened(work.ticket.compression, raw, "rb")):
            crc.update(data)
            size_bytes += len(data)
    if (size_bytes, crc.hexdigest()) != (archive.size_bytes, archive.crc.hexdigest()):
        raise mover.Failed("digest_mismatch", "The archive was written, but what comes out of it is not what went in.")


def pieces(work: working.Work, unpacked: Any, tell: Callable[[], None] = lambda: None) -> Iterator[bytes]:
    while True:
        work.check()
        try:
            data = unpacked.read(PIECE_BYTES)
        except (EOFError, OSError, zlib.error, *LZMA_ERRORS) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise mover.tree_failure(error, work.ticket.source, "source_changed") from None
            raise mover.unreadable("it cannot be unpacked ({})".format(mover.redact(str(error)))) from None
        tell()
        if not data:
            return
        yield data


def extract(work: working.Work) -> None:
    ticket = work.ticket
    if copying.was_placed(work):
        return
    source = working.Place(ticket.source, ticket.source_root, "source_missing")
    with mover.disk_errors("source_missing"):
        handle = mover.Handle(os.open(source.name, working.READ_FLAGS, dir_fd=source.directory.descriptor))
    before = os.fstat(handle.descriptor)
    if not stat.S_ISREG(before.st_mode):
        raise mover.Failed("source_missing", "The archive is not a regular file any more.")
    work.measured(before.st_size, 0)
    work.progress.phase = "unpacking"
    tree = copying.new_tree(work)
    try:
        with os.fdopen(os.dup(handle.descriptor), "rb") as raw:
            require_kind(raw, ticket.compression)
            tree.create(0)
            unpack(work, raw, tree)
        if not working.unchanged(before, os.fstat(handle.descriptor)):
            raise working.changed(ticket.source)
        tree.finish(work)
    except mover.Failed as failure:
        if failure.code not in mover.MAY_RUN_AGAIN and work.journal().get("phase") != "merging":
            tree.remove()
        raise
    finally:
        tree.close()
    work.measured(before.st_size, work.files_done)
    work.prove("size", str(before.st_size))


def require_kind(raw: IO[bytes], compression: str) -> None:
    """A friendly word where another compression was named than the archive has."""
    begin = os.pread(raw.fileno(), 8, 0)
    looks_like = next((name for magic, name in MAGIC if begin.startswith(magic)), "none")
    if looks_like != compression:
        words = "it was to be compressed with {}, but looks like {}; say so in 'compression'"
        raise mover.unreadable(words.format(compression, looks_like))


def unpack(work: working.Work, raw: IO[bytes], tree: merging.NewTree) -> None:
    told = 0

    def tell() -> None:
        nonlocal told
        at = os.lseek(raw.fileno(), 0, os.SEEK_CUR)
        work.moved(max(0, at - told))
        told = max(told, at)

    unpacked = pieces(work, opened(work.ticket.compression, raw, "rb"), tell)

    def next_piece() -> memoryview:
        data = next(unpacked, b"")
        if not data:
            raise mover.unreadable("it ends too early")
        return memoryview(data)

    stream = mover.Stream(0, NO_END_BYTES, next_piece)
    reader = mover.TarReader(stream)
    umask = mover.current_umask()
    for member in iter(reader.next, None):
        # As tar does it: what a stranger packed may be open to all, and set-id bits are dropped in any case.
        tree.make(member._replace(mode=member.mode & 0o777 & ~umask), stream)
        work.counted()
    # To the end: only there the compression's own digest is compared.
    for _ in unpacked:
        pass
