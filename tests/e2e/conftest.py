"""The testbed, or a reason to skip (a failure where STAGECOACH_REQUIRE_TESTBED=1 says that it must be there)."""

from __future__ import annotations

import os

import httpx
import pytest
from tests.e2e.testbed import ENVIRONMENT_FILE, Testbed, read_environment


@pytest.fixture(scope="session")
def testbed() -> Testbed:
    """The running testbed with Stagecoach on it."""
    reason = None
    if not ENVIRONMENT_FILE.exists():
        reason = "no testbed: run 'make testbed-up' first"
    else:
        environment = read_environment()
        try:
            httpx.get(environment["STAGECOACH_URL"] + "/healthz", timeout=5).raise_for_status()
        except httpx.HTTPError as error:
            reason = f"the testbed's Stagecoach does not answer ({type(error).__name__}): run 'make testbed-up'"
    if reason is not None:
        if os.environ.get("STAGECOACH_REQUIRE_TESTBED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return Testbed(environment)
