"""Reads what SFTP says of a file: its attributes as a status, its name as text."""

from __future__ import annotations

import stat

import asyncssh

from stagecoach.ports.files import FileKind, FileStatus

_KINDS = {stat.S_IFREG: FileKind.FILE, stat.S_IFDIR: FileKind.DIRECTORY, stat.S_IFLNK: FileKind.SYMLINK}


def kind_of(mode: int) -> FileKind:
    """What a mode's file type bits name."""
    return _KINDS.get(stat.S_IFMT(mode), FileKind.OTHER)


def status_of(attributes: asyncssh.SFTPAttrs) -> FileStatus:
    """The same in our words."""
    mode = attributes.permissions or 0
    return FileStatus(
        kind=kind_of(mode),
        size_bytes=attributes.size or 0,
        mode=stat.S_IMODE(mode),
        uid=attributes.uid if attributes.uid is not None else -1,
        gid=attributes.gid if attributes.gid is not None else -1,
        mtime_epoch_seconds=float(attributes.mtime or 0),
        type_letter=stat.filemode(mode)[0],
    )


def text_of(name: str | bytes) -> str:
    """Bytes that are not UTF-8 become surrogate escapes, as everywhere in the ports."""
    return name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
