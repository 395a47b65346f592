"""``stagecoach up``: what it is set to without any settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import pytest

from stagecoach import embedded


class NoStore:
    """Stands where the bundled store would be started."""

    url = "http://127.0.0.1:9"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As the real one's."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        """Nothing was started."""


async def test_a_neighbour_on_the_machine_comes_from_no_other_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stands in front of it, so that the word of no proxy counts in limits and in the audit log."""
    monkeypatch.setattr(embedded, "EmbeddedStore", NoStore)
    async with embedded.embedded_service(tmp_path, [str(tmp_path)], 0) as service:
        assert service.settings.server.host == "127.0.0.1"
        assert service.settings.server.trusted_proxies == ()
