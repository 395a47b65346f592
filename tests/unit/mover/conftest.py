"""Stores to move from and to, and an environment without proxies and with little patience."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.unit.mover.faulty_store import FaultyStore


@pytest.fixture(autouse=True)
def no_proxy_and_short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("STAGECOACH_STALL_SECONDS", "0.3")


@pytest.fixture(params=["rgw", "rclone"])
def store(request: pytest.FixtureRequest) -> Iterator[FaultyStore]:
    with FaultyStore(dialect=request.param).serving() as serving:
        yield serving


@pytest.fixture
def rgw() -> Iterator[FaultyStore]:
    with FaultyStore().serving() as serving:
        yield serving
