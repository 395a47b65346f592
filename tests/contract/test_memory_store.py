"""The store in memory keeps the same promises as the real ones, so tests may rely on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from tests.contract.object_store_contract import MovableClock, ObjectStoreContract, StoreUnderTest

from stagecoach.core.errors import StoreUnavailable
from stagecoach.object_stores.memory import MemoryStore


class MemoryTransport(httpx.AsyncBaseTransport):
    """Lets an HTTP client follow ``memory://`` URLs."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        status, headers, body = self.store.follow(request.method, str(request.url), await request.aread())
        return httpx.Response(status, headers=headers, content=body)


class TestMemoryStore(ObjectStoreContract):
    honours_content_disposition = False

    @pytest.fixture
    async def under_test(self) -> AsyncIterator[StoreUnderTest]:
        clock = MovableClock()
        store = MemoryStore(clock)
        async with httpx.AsyncClient(transport=MemoryTransport(store)) as http:
            yield StoreUnderTest(store, http, clock)

    async def test_tests_may_act_as_a_client(self) -> None:
        store = MemoryStore(MovableClock(), smallest_part_bytes=1)
        await store.ensure_bucket("b")
        upload_id = await store.open_multipart("b", "k")
        store.put_part("b", "k", upload_id, 2, b"lo")
        part = store.put_part("b", "k", upload_id, 1, b"hel")
        assert await store.list_parts("b", "k", upload_id) is not None
        assert part.size_bytes == 3
        assert store.complete("b", "k", upload_id).size_bytes == 5
        assert await store.read_object("b", "k", 10) == b"hello"

    async def test_a_failing_store(self) -> None:
        store = MemoryStore(MovableClock())
        await store.ensure_bucket("b")
        store.failing = True
        with pytest.raises(StoreUnavailable):
            await store.head_object("b", "k")
        with pytest.raises(StoreUnavailable):
            await store.ensure_bucket("b")
        store.failing = False
        assert await store.head_object("b", "k") is None
