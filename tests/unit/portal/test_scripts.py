"""The scripts of the portal's pages, tried by Node.js: what they do without a page."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_script(name: str) -> None:
    node = shutil.which("node")
    if node is None:
        reason = "Node.js is missing: apt-get install --no-install-recommends nodejs"
        if os.environ.get("STAGECOACH_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    ran = subprocess.run([node, "--test", HERE / name], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "# pass 0" not in ran.stdout
