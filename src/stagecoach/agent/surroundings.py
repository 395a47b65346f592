"""What an agent tells of its machine: version, platform, room on its disks, and what keeps it from its work."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import threading
from pathlib import Path

import stagecoach
from stagecoach.wire.agent import FreeBytes

PATIENCE_SECONDS = 3.0
LEAST_STATE_BYTES = 64 * 1024 * 1024


def version() -> str:
    """The agent's."""
    return stagecoach.__version__


def platform_name() -> str:
    """Of people's interest alone."""
    return f"{platform.system()} {platform.release()} {platform.machine()}, Python {platform.python_version()}"[:200]


class Surroundings:
    """Looks at the disks without ever being held up by one: a file server that hangs must not make the node look dead."""

    def __init__(self, send: Path, receive: Path, state: Path) -> None:
        self._directories = {"send": send, "receive": receive}
        self._state = state
        self._looking: threading.Thread | None = None
        self.free = FreeBytes()
        self.health: list[str] = []
        self.is_writable = True
        """Whether the journal can be written; without it nothing may be taken."""

    async def look(self) -> None:
        """Brings ``free`` and ``health`` up to date, if the disks answer in time."""
        if self._looking is None or not self._looking.is_alive():
            # A thread of its own: one that hangs must not keep the program from ending.
            self._looking = threading.Thread(target=self._look, name="stagecoach-disks", daemon=True)
            self._looking.start()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        while self._looking.is_alive():
            if loop.time() > deadline:
                self.health = ["The disks of the node's directories do not answer."]
                self.free = FreeBytes()
                return
            await asyncio.sleep(0.01)

    def _look(self) -> None:
        health: list[str] = []
        free: dict[str, int | None] = {}
        for name, directory in self._directories.items():
            free[name] = _free_bytes(directory)
            needed = os.R_OK | os.X_OK if name == "send" else os.W_OK | os.X_OK
            if free[name] is None or not directory.is_dir():
                health.append(f"The {name} directory is not there.")
            elif not os.access(directory, needed):
                verb = "read" if name == "send" else "write in"
                health.append(f"The agent may not {verb} the {name} directory.")
        room = _free_bytes(self._state)
        self.is_writable = room is not None and room >= LEAST_STATE_BYTES and os.access(self._state, os.W_OK)
        if not self.is_writable:
            health.append("The agent's state directory is full or cannot be written; nothing is taken until it can.")
        self.free, self.health = FreeBytes(**free), health


def _free_bytes(directory: Path) -> int | None:
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return None
