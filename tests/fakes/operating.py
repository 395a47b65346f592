"""What an operation's job does in the world of memory: to entries by their paths, as its ticket says."""

from __future__ import annotations

import base64
import json
import posixpath
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stagecoach.ports.files import FileKind

IN_ARCHIVE = "in-archive"


def decoded(text: Any) -> str:
    """A path of a ticket."""
    return base64.b64decode(str(text)).decode()


def operate(files: Any, user: str, ticket: Mapping[str, Any]) -> tuple[int, int] | None:
    """How many things of how many bytes it worked on; None where the source is gone."""
    kind, target = ticket["kind"], decoded(ticket["path_base64"])
    source = target if kind == "rm" else decoded(ticket["source_base64"])
    entries = files.entries
    if source not in entries:
        return None
    found = [source, *sorted(files.below(source))]
    size = sum(len(entries[path].content) for path in found)
    if kind == "extract":
        files.add_file(posixpath.join(target, IN_ARCHIVE), user, entries[source].content)
    elif kind == "compress":
        files.add_file(target, user, b"".join(entries[path].content for path in found))
    elif kind in {"cp", "mv"}:
        for path in found:
            entries[target + path[len(source) :]] = replace(entries[path])
    if kind in {"mv", "rm"}:
        for path in found:
            del entries[path]
    return len(found), size


def words(ticket: Mapping[str, Any], done: tuple[int, int] | None, code: str | None, message: str) -> bytes:
    """The receipt."""
    receipt = {
        "version": 1,
        "transfer_id": ticket["transfer_id"],
        "attempt": ticket["attempt"],
        "kind": ticket["kind"],
        "ok": code is None,
        "code": code,
        "message": message,
        "size_bytes": done[1] if done else 0,
        "bytes_moved": done[1] if done else 0,
        "files_done": done[0] if done else 0,
        "proved": [{"how": "size", "value": str(done[1])}] if done else [],
    }
    return json.dumps(receipt).encode()


def begin_half(files: Any, user: str, ticket: Mapping[str, Any]) -> None:
    """The hidden file that a job has made so far, where its kind makes one."""
    if ticket["kind"] == "rm":
        return
    target = decoded(ticket["path_base64"])
    directory = target if ticket["options"]["merges"] else posixpath.dirname(target)
    files.add_file(posixpath.join(directory, f".stagecoach-{ticket['transfer_id']}.part"), user, b"half", 0o600)


def end_half(files: Any, ticket: Mapping[str, Any]) -> None:
    """What it made has taken its place."""
    for path in [path for path in files.entries if path.endswith(f"/.stagecoach-{ticket['transfer_id']}.part")]:
        assert files.entries[path].kind is FileKind.FILE
        del files.entries[path]
