"""A real Chromium before a ``stagecoach up``; or a reason to skip (a failure where STAGECOACH_REQUIRE_BROWSER=1)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from tests.e2e.portal.desk import AXE, VENDOR, Desk, chromium

from stagecoach.api.signing_keys import ensure_signing_key, sign_token
from stagecoach.settings import IssuerSettings

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
def sign(embedded: tuple[dict[str, str], Path]) -> Callable[..., str]:
    """A token of another user of this service, whom its key has signed; an administrator's with ``is_admin``."""
    state = embedded[1].parent / "state"
    key = ensure_signing_key(state / "signing-key.json", state / "jwks.json")
    return partial(sign_token, key, ttl_seconds=3600, issuer=IssuerSettings(jwks=str(state / "jwks.json")))


@pytest.fixture(scope="module")
def browser(browser_is_there: None) -> Iterator[Browser]:
    """One for all tests of a file. Not longer: as long as it is open, no test of asyncio can run in this process."""
    with chromium() as opened:
        yield opened


@pytest.fixture
def desk(browser: Browser, embedded: tuple[dict[str, str], Path], tmp_path: Path) -> Iterator[Desk]:
    """Signed in, with a fresh folder of the system. Nothing that the pages did may have troubled the browser."""
    said, root = embedded
    folder = root / tmp_path.name
    folder.mkdir()
    with Desk(said, folder, browser.new_context) as sitting:
        yield sitting
    assert sitting.troubles == []
