"""The program before a fake service, as a logged-in person would start it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.client.fake_service import TOKEN, URL, FakeService, Patience
from tests.unit.mover.faulty_store import FaultyStore
from typer.testing import CliRunner, Result

from stagecoach.cli.config import Access
from stagecoach.cli.main import app
from stagecoach.client import Client

Run = Callable[..., Result]


@pytest.fixture
def service() -> Iterator[FakeService]:
    with FaultyStore().serving() as store:
        yield FakeService(store)


@pytest.fixture
def stagecoach(service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``stagecoach("cp", …)``; the environment holds a good URL and token."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("STAGECOACH_URL", URL)
    monkeypatch.setenv("STAGECOACH_TOKEN", TOKEN)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def client(access: Access) -> Client:
        return Client(access.url, access.token, transport=service.transport(), clock=Patience().clock(), patience_seconds=10)

    monkeypatch.setattr(Access, "client", client)

    def run(*arguments: str, **options: str) -> Result:
        result = CliRunner().invoke(app, list(arguments), **options)  # type: ignore[arg-type]
        assert TOKEN not in result.output
        assert "X-Amz-Signature" not in result.output
        return result

    return run
