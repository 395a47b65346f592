"""Orders for operations on files, carried out here or by a process of their own, and what is compared afterwards."""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

from stagecoach.mover import stagecoach_operations
from stagecoach.mover.stagecoach_operations import Operator

PROGRAM = stagecoach_operations.__file__
TRANSFER_ID = "0123456789abcdefghjkmnpqrs"
HIDDEN = f".stagecoach-{TRANSFER_ID}.part"


def encoded(path: Path | bytes | str) -> str:
    return base64.b64encode(os.fsencode(path)).decode()


class Order:
    """One operation in a world below ``top``; its job's directory is beside."""

    def __init__(self, top: Path, kind: str, target: Path, source: Path | None = None, **options: Any) -> None:
        self.top = top
        self.directory = top.parent / "job"
        self.directory.mkdir(exist_ok=True)
        root = options.pop("root", top)
        self.ticket = self.directory / "ticket.json"
        document = {
            "version": 1,
            "transfer_id": TRANSFER_ID,
            "attempt": 1,
            "kind": kind,
            "path_base64": encoded(target),
            "source_base64": None if source is None else encoded(source),
            "root_base64": encoded(root),
            "source_root_base64": None if source is None else encoded(options.pop("source_root", root)),
            "roots_base64": [encoded(root)],
            "options": {"compression": "gzip", **options},
        }
        self.ticket.write_text(json.dumps(document))

    def carry_out(self, stop: threading.Event | None = None) -> dict[str, Any]:
        """The receipt."""
        operator = Operator(str(self.ticket), str(self.directory), stop or threading.Event())
        receipt: dict[str, Any] = operator.carry_out()
        return receipt

    def done(self) -> dict[str, Any]:
        """The receipt of a success."""
        receipt = self.carry_out()
        assert receipt["ok"], receipt
        return receipt

    def failed(self, code: str) -> str:
        """The message of a failure with that code."""
        receipt = self.carry_out()
        assert (receipt["ok"], receipt["code"]) == (False, code), receipt
        assert "successful" not in receipt["message"]
        return str(receipt["message"])

    def forget(self) -> None:
        """As if the job had never run."""
        for path in self.directory.iterdir():
            if path != self.ticket:
                path.unlink()


def picture(path: Path) -> dict[str, Any]:
    """Everything at and below a path: kinds, modes, times in ns, contents, links; by relative name."""
    seen: dict[str, Any] = {}
    top = os.fsencode(path)
    if not os.path.lexists(top):
        return seen
    names = [b""]
    for directory, folders, files in os.walk(top):
        below = os.path.relpath(directory, top)
        names += [name if below == b"." else below + b"/" + name for name in (*folders, *files)]
    for name in names:
        one = top + b"/" + name if name else top
        found = os.lstat(one)
        key = os.fsdecode(name)
        if stat.S_ISLNK(found.st_mode):
            seen[key] = ("link", os.readlink(one))
        elif stat.S_ISDIR(found.st_mode):
            seen[key] = ("directory", stat.S_IMODE(found.st_mode), found.st_mtime_ns)
        else:
            content = Path(os.fsdecode(one)).read_bytes()
            seen[key] = ("file", stat.S_IMODE(found.st_mode), found.st_mtime_ns, found.st_size, content)
    return seen


def hidden_below(top: Path) -> list[str]:
    """Whatever of ours was left."""
    return [str(path) for path in top.rglob(".stagecoach-*")]


def make_things(path: Path) -> Path:
    """A small tree with odd names, links, modes, times, an empty directory and a file with holes."""
    path.mkdir(parents=True)
    (path / "a dir").mkdir()
    (path / "a dir" / "it's $(x); & \n.txt").write_bytes(b"odd")
    Path(os.fsdecode(os.fsencode(path) + b"/\xff\xfe")).write_bytes(b"not UTF-8")
    (path / "-rf").write_bytes(b"")
    (path / ("n" * 255)).write_bytes(b"long")
    (path / "empty").mkdir()
    (path / "link").symlink_to("a dir")
    (path / "dangling").symlink_to("/nowhere")
    os.link(path / "-rf", path / "twin")
    with (path / "holes").open("wb") as file:
        file.truncate(3_000_000)
        file.seek(1_500_000)
        file.write(b"in the middle")
    (path / "closed").mkdir()
    (path / "closed" / "inner").write_bytes(b"x" * 100_000)
    os.chmod(path / "closed" / "inner", 0o400)
    os.chmod(path / "closed", 0o500)
    for number, one in enumerate(sorted(path.rglob("*"), reverse=True)):
        os.utime(one, ns=(10**18 + number, 10**18 + 123456789 * number), follow_symlinks=False)
    os.utime(path, ns=(10**18, 10**18 + 1))
    return path
