"""Directories to move, and what is compared when they arrived: everything but owners, inodes and access times."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from pathlib import Path
from typing import Any

from tests.unit.mover.faulty_store import FaultyStore, some_bytes

UNUSUAL_NAMES = [
    b"with spaces ",
    b"new\nline",
    b'it\'s "quoted" `$(reboot)`; &',
    b"\xff\xfe not UTF-8",
    "h\u00e4tte ich \u2603".encode(),
    b"-rf",
    b"x" * 255,
    b"back\\slash",
    b"*",
    b".hidden",
    b"...",
    b"y" * 99,
    b"z" * 100,
    b"w" * 101,
    b"File was successfully moved",
]


def make_tree(root: Path, file_count: int = 2000) -> None:
    """A tree with whatever a file system may hold, of about so many files."""
    chance = random.Random(file_count)
    top = os.fsencode(root)
    os.makedirs(top)
    folders = [top]
    for number in range(file_count // 40):
        folder = chance.choice(folders[-20:]) + b"/d%d" % number
        os.mkdir(folder)
        folders.append(folder)
    for number in range(file_count):
        write(chance.choice(folders) + b"/f%d" % number, some_bytes(chance.choice([0, 1, 511, 512, 513, 700, 1024, 3000])))
    os.mkdir(top + b"/unusual")
    for name in UNUSUAL_NAMES:
        write(top + b"/unusual/" + name, name)
        os.symlink(name, top + b"/unusual/" + name[:250] + b" link")
    os.mkdir(top + b"/unusual/\xff directory")
    write(top + b"/unusual/\xff directory/\xfe", b"")
    os.mkdir(top + b"/empty")
    write(top + b"/large", some_bytes(150_001))
    for name, target in ((b"dangling", b"nowhere"), (b"absolute", b"/etc/passwd"), (b"parent", b".."), (b"far", b"t/" * 1000)):
        os.symlink(target, top + b"/" + name)
    for mode in (0o000, 0o400, 0o644, 0o755, 0o777, 0o111):
        write(top + b"/mode %o" % mode, b"mode")
        os.chmod(top + b"/mode %o" % mode, mode)
    set_times(root, chance)
    make_deep(top + b"/deep", 22, b"n" * 250)
    make_deep(top + b"/deeper", 500, b"ten bytes.")
    os.mkdir(top + b"/read only")
    write(top + b"/read only/file", b"content")
    os.chmod(top + b"/read only", 0o555)
    os.chmod(top + b"/empty", 0o1777)
    os.utime(top + b"/read only", ns=(1, 981173106_987654321))
    os.utime(top, ns=(1, 1234567890_000000001))


def write(path: bytes, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def make_deep(path: bytes, levels: int, name: bytes) -> None:
    """So deep that the bottom has no path the system would take."""
    os.mkdir(path)
    here = os.open(path, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open(b"bottom", os.O_CREAT | os.O_WRONLY, 0o640, dir_fd=here))
    os.close(here)


def set_times(root: Path, chance: random.Random) -> None:
    for _, folders, files, descriptor in os.fwalk(os.fsencode(root), follow_symlinks=False):
        for name in sorted(files) + sorted(folders):
            mtime_ns = chance.choice([0, 1, 10**9, -1, -1_500_000_000, 1_700_000_000_123_456_789, 2_000_000_000_000_000_000])
            os.utime(name, ns=(1, mtime_ns), dir_fd=descriptor, follow_symlinks=False)


def snapshot(root: Path) -> dict[bytes, tuple[Any, ...]]:
    """Kind, mode, mtime in nanoseconds, and content or target, of everything, by path; b"" is the root itself."""
    found: dict[bytes, tuple[Any, ...]] = {}
    waiting = [(b"", os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))]
    while waiting:
        path, here = waiting.pop()
        own = os.fstat(here)
        found[path] = ("directory", stat.S_IMODE(own.st_mode), own.st_mtime_ns)
        for name in map(os.fsencode, os.listdir(here)):
            at = path + b"/" + name
            one = os.stat(name, dir_fd=here, follow_symlinks=False)
            said = (stat.S_IMODE(one.st_mode), one.st_mtime_ns)
            if stat.S_ISDIR(one.st_mode):
                waiting.append((at, os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=here)))
            elif stat.S_ISLNK(one.st_mode):
                found[at] = ("link", *said, os.readlink(name, dir_fd=here))
            else:
                with open(os.open(name, os.O_RDONLY, dir_fd=here), "rb") as file:
                    found[at] = ("file", *said, one.st_size, hashlib.sha256(file.read()).hexdigest())
        os.close(here)
    return found


def put_ticket(store: FaultyStore, source: Path, url_count: int = 4000, **more: Any) -> dict[str, Any]:
    """A put that measures: the service knows nothing of the tree but that there are addresses enough."""
    ticket = store.put_ticket(os.fsencode(source), url_count * store.part_size)
    return {**ticket, "archive": "tar", "size_bytes": None, **more}


def fetch_ticket(store: FaultyStore, target: Path, **more: Any) -> dict[str, Any]:
    return store.fetch_ticket(os.fsencode(target), len(store.objects["object"]), archive="tar", **more)
