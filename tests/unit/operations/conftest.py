"""Two places on one file system, and a third on another."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A directory that operations may work in."""
    path = tmp_path / "top"
    path.mkdir()
    return path


@pytest.fixture
def elsewhere(top: Path) -> Iterator[Path]:
    """A directory on another file system."""
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(top).st_dev:
        pytest.skip("there is no second file system here")
    path = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield path
    shutil.rmtree(path)
