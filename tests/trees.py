"""Directories full of what is unusual, and a comparison that overlooks nothing a user has a right to."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from pathlib import Path
from typing import Any

ODD_NAMES: list[bytes] = [
    b"with a space",
    b"quotes'\"and`ticks",
    b"$(touch pwned)",
    b"semi;colon&and|pipe",
    b"new\nline",
    "é-ü-漢字".encode(),
    b"not utf-8 \xff\xfe",
    b"-leading-dash",
    b"*?[glob]{a,b}",
    b"back\\slash",
    b".hidden",
    b" ",
    b"\x01\x1b[2Jcontrol",
    b"x" * 255,
    "ü".encode() * 127 + b"x",
    b"k=v 12 size=7",
]
MODES = [0o400, 0o600, 0o640, 0o644, 0o700, 0o755, 0o444, 0o666]


def make_tree(top: Path, files: int = 300, seed: int = 1, owner: int | None = None) -> None:
    """``files`` small files in a few dozen directories, every fourth thing with an odd name; links, empty directories,
    read-only directories, times with nanoseconds."""
    dice = random.Random(seed)
    top.mkdir()
    directories = [os.fsencode(top)]
    for number in range(max(8, files // 12)):
        parent = dice.choice(directories)
        name = dice.choice(ODD_NAMES)[:200] + b"%d" % number if number % 4 == 0 else b"directory-%d" % number
        if len(parent) + len(name) > 3000:
            parent = directories[0]
        os.mkdir(os.path.join(parent, name))
        directories.append(os.path.join(parent, name))
    for number in range(files):
        name = dice.choice(ODD_NAMES) if number % 4 == 0 else b"file-%d" % number
        path = os.path.join(dice.choice(directories), name)
        if not os.path.lexists(path):
            with open(path, "wb") as file:
                file.write(dice.randbytes(dice.choice([0, 1, 511, 512, 513, dice.randint(0, 9000)])))
            os.chmod(path, dice.choice(MODES))
    for number in range(max(6, files // 20)):
        target = dice.choice([b"/nowhere/at all", b"..", b"file-1", b".", b"\xff\xfe", b"t" * 1000, os.fsencode(top)])
        os.symlink(target, os.path.join(dice.choice(directories), b"link-%d" % number))
        os.mkdir(os.path.join(dice.choice(directories), b"empty-%d" % number))
    _finish(os.fsencode(top), dice, owner)


def _finish(top: bytes, dice: random.Random, owner: int | None) -> None:
    for directory, names, files in os.walk(top, topdown=False):
        for path in [os.path.join(directory, name) for name in [*files, *names]] + ([top] if directory == top else []):
            if owner is not None:
                os.chown(path, owner, owner, follow_symlinks=False)
            if not os.path.islink(path) and os.path.isdir(path):
                os.chmod(path, dice.choice([0o700, 0o755, 0o555, 0o500, 0o1777]))
            nanoseconds = dice.randint(0, 17 * 10**17)
            os.utime(path, ns=(nanoseconds, nanoseconds), follow_symlinks=False)


def listing(top: Path) -> dict[bytes, tuple[Any, ...]]:
    """Every entry, the top itself included: kind, mode, mtime in ns, and what it holds or points to."""
    root = os.fsencode(top)
    found = {b".": _entry(root)}
    for directory, names, files in os.walk(root):
        for name in [*names, *files]:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, root)] = _entry(path)
    return found


def _entry(path: bytes) -> tuple[Any, ...]:
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return ("link", status.st_mtime_ns, os.readlink(path))
    if stat.S_ISDIR(status.st_mode):
        return ("directory", stat.S_IMODE(status.st_mode), status.st_mtime_ns)
    with open(path, "rb") as file:
        return ("file", stat.S_IMODE(status.st_mode), status.st_mtime_ns, status.st_size, hashlib.sha256(file.read()).hexdigest())


def require_equal(one: Path, other: Path) -> None:
    """Fails with the first differences."""
    left, right = listing(one), listing(other)
    differences = [(name, left.get(name), right.get(name)) for name in sorted(left | right) if left.get(name) != right.get(name)]
    assert not differences, f"{len(differences)} of {len(left)} entries differ: {differences[:3]}"
