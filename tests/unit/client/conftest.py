"""A fake service before a store on loopback, and a state directory of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.client.fake_service import TOKEN, URL, FakeService, Patience
from tests.unit.mover.faulty_store import FaultyStore

from stagecoach.client import Client


@pytest.fixture(autouse=True)
def own_directories_and_no_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def service() -> Iterator[FakeService]:
    with FaultyStore().serving() as store:
        yield FakeService(store)


@pytest.fixture
def patience() -> Patience:
    return Patience()


@pytest.fixture
def client(service: FakeService, patience: Patience) -> Client:
    return Client(URL, TOKEN, transport=service.transport(), clock=patience.clock())
