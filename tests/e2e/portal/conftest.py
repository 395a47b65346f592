"""A real Chromium before a ``stagecoach up``; or a reason to skip (a failure where STAGECOACH_REQUIRE_BROWSER=1)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.portal.desk import AXE, VENDOR, Desk

MISSING = {
    "Chromium": "apt-get install --no-install-recommends chromium",
    "the portal's libraries": "make portal",
}


def _missing() -> str | None:
    there = {"Chromium": shutil.which("chromium") is not None, "the portal's libraries": VENDOR.exists() and AXE.exists()}
    return "; ".join(f"{what} missing: {MISSING[what]}" for what, is_there in there.items() if not is_there) or None


@pytest.fixture(scope="session")
def browser_is_there() -> None:
    """Skips, or fails, before any service is started."""
    reason = _missing()
    if reason is not None:
        if os.environ.get("STAGECOACH_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def desk(browser_is_there: None, embedded: tuple[dict[str, str], Path], tmp_path: Path) -> Iterator[Desk]:
    """Signed in, with a fresh folder of the system. Nothing that the pages did may have troubled the browser."""
    said, root = embedded
    folder = root / tmp_path.name
    folder.mkdir()
    with Desk(said, folder, tmp_path / "profile") as sitting:
        yield sitting
    assert sitting.troubles == []
