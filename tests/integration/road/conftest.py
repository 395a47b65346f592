"""Real stores, a proxy that the mover must pass on its way to them, and data to move."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.integration.road.fault_proxy import FaultProxy
from tests.integration.road.faults import FAULTS
from tests.integration.road.stores import SMALLEST_PART_BYTES, RealStore, gateway_store, rclone_program, rclone_store
from tests.integration.test_testbed import ENVIRONMENT_FILE, read_environment


@dataclass
class Stores:
    """Each is started when first asked for."""

    folder: Path
    running: contextlib.ExitStack
    started: dict[str, tuple[RealStore, bytes]] = field(default_factory=dict)

    def get(self, name: str) -> tuple[RealStore, bytes]:
        """The store, and the data that stands in it as the object ``given``: five parts, two where they are large."""
        if name not in self.started:
            store = self._rclone() if name == "rclone" else self._gateway()
            whole_parts = 4 if store.takes_small_parts else 1
            data = random.Random(3).randbytes(whole_parts * store.part_size_bytes + 1001)
            store.keep("given", data)
            self.started[name] = store, data
        return self.started[name]

    def _rclone(self) -> RealStore:
        if rclone_program() is None:
            pytest.skip("rclone is not installed")
        return self.running.enter_context(rclone_store(self.folder, 300_000))

    def _gateway(self) -> RealStore:
        environment = read_environment() if ENVIRONMENT_FILE.exists() else {}
        if environment.get("S3_KIND") != "rgw":
            pytest.skip("no testbed with a gateway is running (make testbed-up)")
        return self.running.enter_context(gateway_store(environment, SMALLEST_PART_BYTES))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with contextlib.ExitStack() as running:
        yield Stores(tmp_path_factory.mktemp("store"), running)


@pytest.fixture(params=["rclone", "rgw"])
def store(request: pytest.FixtureRequest, stores: Stores) -> RealStore:
    return stores.get(request.param)[0]


@pytest.fixture
def data(store: RealStore, stores: Stores) -> bytes:
    return next(data for known, data in stores.started.values() if known is store)


@pytest.fixture
def proxy(store: RealStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A forward proxy, and an environment that makes the mover use it."""
    for name in ("https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    monkeypatch.setenv("STAGECOACH_STALL_SECONDS", "10")
    with FaultProxy(store.address, FAULTS, store.part_size_bytes).serving() as serving:
        monkeypatch.setenv("http_proxy", serving.url)
        yield serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where source or target stand, alone."""
    made = tmp_path / "folder"
    made.mkdir()
    return made
