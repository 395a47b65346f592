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


async def test_the_portal_is_there_and_only_who_sees_the_terminal_is_signed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others of this machine can reach the page, so the code is none that stays or that could be guessed."""
    monkeypatch.setattr(embedded, "EmbeddedStore", NoStore)
    seen = []
    for _ in range(2):
        async with embedded.embedded_service(tmp_path, [str(tmp_path)], 0) as service:
            portal = service.settings.portal
            assert portal.enabled
            assert service.portal_url == f"{service.url}/portal/sign-in#{service.portal_code}"
            assert portal.url == service.url
            assert service.url in service.settings.s3.cors_origins
            seen.append((service.portal_code, portal.cookie_key))
    assert seen[0][0] != seen[1][0]
    assert len(seen[0][0]) >= 20
    # A restart signs nobody out.
    assert seen[0][1] == seen[1][1]
    assert (tmp_path / "portal-key").stat().st_mode & 0o777 == 0o600
