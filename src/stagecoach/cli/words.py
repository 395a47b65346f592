"""How sizes, times, places and foreign text are written for people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

import typer

from stagecoach.wire.transfers import TransferView

# A node's name is any text without control characters; the first colon before a slash ends it.
_REMOTE = re.compile(r"(node:[^/\x00-\x20\x7f][^\x00-\x1f\x7f]*?|[A-Za-z0-9][A-Za-z0-9_.-]*):(/.*)", re.DOTALL)


@dataclass(frozen=True)
class Remote:
    """``SYSTEM:/path``; a node's system is ``node:NAME`` or ``node:ID``."""

    system: str
    path: str


def as_remote(place: str) -> Remote | None:
    """None for a local path; one that looks like a remote place is written with ``./`` in front."""
    found = _REMOTE.fullmatch(place)
    return Remote(found[1], found[2]) if found else None


def require_text(path: str) -> None:
    """Raises BadParameter for a path that no request can carry."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("a path on a system is UTF-8 text; give it another name") from None


def plain(text: str) -> str:
    """Without control characters: the names of files and a scheduler's words must not steer the terminal."""
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)


def size(size_bytes: float) -> str:
    """1536 is 1.5 KiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.2f} TiB"


def local_time(time: datetime | None) -> str:
    """In the person's own time zone."""
    return "" if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def summary(transfer: TransferView) -> str:
    """One line."""
    known = "size not known yet" if transfer.size_bytes is None else size(transfer.size_bytes)
    arrow = {"upload": "→", "download": "←"}.get(transfer.direction, transfer.operation or "")
    source = f"{transfer.source_path} → " if transfer.source_path is not None else ""
    line = f"{transfer.id}  {transfer.state}  {arrow} {transfer.system}:{source}{transfer.path}  {known}"
    return plain(f"{line}  {transfer.reason}" if transfer.reason and transfer.state != "done" else line)
