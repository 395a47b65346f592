#!/usr/bin/python3 -I
"""Settings of a running program, shown and changed through a unix socket of its own: one JSON object each way.

As a command: ``control.py SOCKET [NAME=VALUE …]`` changes what is named and prints what holds now.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

ANSWER_BYTES = 65536
PATIENCE_SECONDS = 5

S = TypeVar("S", bound=Any)


class Controls(Generic[S]):
    """Holds the settings, a frozen dataclass that refuses bad values by ValueError, and answers whoever may open the socket."""

    def __init__(self, path: str, settings: S, counts: Callable[[], Mapping[str, Any]]) -> None:
        self.settings = settings
        self._counts = counts
        self._changed: Callable[[], None] = lambda: None
        unready = Path(path + ".new")
        unready.unlink(missing_ok=True)
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._door.bind(str(unready))
        unready.chmod(0o600)
        self._door.listen(8)
        # Under its name only when it listens and nobody else may open it; the one before was of a program that died.
        unready.rename(path)

    def serve(self, changed: Callable[[], None] = lambda: None) -> None:
        """From now on, in a thread, which calls ``changed`` before it answers."""
        self._changed = changed
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            visitor, _ = self._door.accept()
            with visitor:
                visitor.settimeout(PATIENCE_SECONDS)
                try:
                    visitor.send(json.dumps(self._answer(visitor.recv(ANSWER_BYTES))).encode())
                except OSError as error:  # whoever asked went away
                    print(f"a question was not answered: {error}", file=sys.stderr, flush=True)

    def _answer(self, question: bytes) -> dict[str, Any]:
        try:
            self.settings = dataclasses.replace(self.settings, **json.loads(question))
        except (TypeError, ValueError) as error:
            return {"error": str(error)}
        self._changed()
        return {"settings": dataclasses.asdict(self.settings), "counts": dict(self._counts())}


def ask(path: str | os.PathLike[str], **changes: Any) -> dict[str, Any]:
    """Change what is named; ``settings`` and ``counts`` as they are now. Raises OSError when nobody answers, else ValueError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.settimeout(PATIENCE_SECONDS)
        door.connect(os.fspath(path))
        door.send(json.dumps(changes).encode())
        answer: dict[str, Any] = json.loads(door.recv(ANSWER_BYTES))
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer


def main(path: str, *words: str) -> None:
    try:
        changes = {name: json.loads(value) for name, _, value in (word.partition("=") for word in words)}
        print(json.dumps(ask(path, **changes)))
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {error}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: control.py SOCKET [NAME=VALUE …]")
    main(*sys.argv[1:])
