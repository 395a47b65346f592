"""The real client of FirecREST, from PyPI, against the real application with this machine as its system."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from tests.integration.firecrest.service import Client, FirecrestService, client_of, firecrest_service


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirecrestService]:
    """With FirecREST's own limit of 5 MiB."""
    with firecrest_service(tmp_path_factory.mktemp("service"), {"max_direct_file_bytes": 5 * 1024**2}) as served:
        yield served


@pytest.fixture
def hasty_service(tmp_path: Path) -> Iterator[FirecrestService]:
    """One whose operations may last a few seconds only."""
    with firecrest_service(tmp_path, max_operation_seconds=8) as served:
        yield served


@pytest.fixture
def top(service: FirecrestService) -> Path:
    """A fresh directory in the system's file system."""
    made = service.home / secrets.token_hex(6)
    made.mkdir()
    return made


@pytest.fixture(params=["sync", "async"])
async def client(request: pytest.FixtureRequest, service: FirecrestService) -> AsyncIterator[Client]:
    """Each test is done with both forms."""
    async with client_of(request.param, service.url, service.token) as made:
        yield made


def http_of(served: FirecrestService) -> httpx.AsyncClient:
    """For what the client has no words for; its base is the system's operations."""
    headers = {"Authorization": f"Bearer {served.token}"}
    return httpx.AsyncClient(base_url=f"{served.url}/filesystem/{served.system}/ops", headers=headers, timeout=60)


@pytest.fixture
async def http(service: FirecrestService) -> AsyncIterator[httpx.AsyncClient]:
    """Asks as the user."""
    async with http_of(service) as made:
        yield made


@pytest.fixture
async def hasty_http(hasty_service: FirecrestService) -> AsyncIterator[httpx.AsyncClient]:
    """Asks as the user."""
    async with http_of(hasty_service) as made:
        yield made
