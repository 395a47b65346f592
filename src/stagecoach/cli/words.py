"""How sizes, times, places and foreign text are written for people."""

from __future__ import annotations

import re
from datetime import datetime

import typer

from stagecoach.client.places import Place, as_place
from stagecoach.wire.transfers import TransferView

Remote = Place
as_remote = as_place


_UNITS: dict[str, int] = {"": 1, "B": 1} | {
    f"{letter}{ending}": base**power
    for power, letter in enumerate("KMGTP", 1)
    for ending, base in (("", 1024), ("IB", 1024), ("B", 1000))
}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}


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


def bytes_of(text: str | None, option: str = "--max-bytes") -> int | None:
    """``10TiB`` and ``10T`` are 10 · 1024⁴, ``10TB`` is 10 · 1000⁴. Raises BadParameter, which names the ``option``."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,18}) ?([A-Za-z]{0,3})", text.strip())
    if found is None or found[2].upper() not in _UNITS:
        raise typer.BadParameter("write a whole number of bytes, or one with a unit: 500GiB, 10TB", param_hint=option)
    return int(found[1]) * _UNITS[found[2].upper()]


def rate_of(text: str, option: str) -> int:
    """Bytes a second, written as a size. Raises BadParameter."""
    rate = bytes_of(text, option)
    if rate is None or not 1024 <= rate <= 2**50:
        raise typer.BadParameter("write at least 1K, and at most 1P, a second", param_hint=option)
    return rate


def seconds_of(text: str, option: str) -> int:
    """``90s``, ``30m``, ``12h`` or ``7d``. Raises BadParameter."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text.strip().lower())
    if found is None:
        raise typer.BadParameter("write a whole number with a unit: 30m, 12h, 7d", param_hint=option)
    return int(found[1]) * _SECONDS[found[2]]


def local_time(time: datetime | None) -> str:
    """In the person's own time zone."""
    return "" if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def is_relay(transfer: TransferView) -> bool:
    """Whether it goes from one system to another (or the same one) through the staging area."""
    return transfer.direction == "upload" and transfer.source is not None


def summary(transfer: TransferView) -> str:
    """One line."""
    known = "size not known yet" if transfer.size_bytes is None else size(transfer.size_bytes)
    arrow = {"upload": "→", "download": "←"}.get(transfer.direction, transfer.operation or "")
    source = f"{transfer.source_path} → " if transfer.source_path is not None else ""
    what = f"{arrow} {transfer.system}:{source}{transfer.path}"
    if is_relay(transfer) and transfer.source is not None:
        what = f"{transfer.source.system}:{transfer.source.path} → {transfer.system}:{transfer.path}"
    line = f"{transfer.id}  {transfer.state}  {what}  {known}"
    return plain(f"{line}  {transfer.reason}" if transfer.reason and transfer.state != "done" else line)
