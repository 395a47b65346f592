"""The testbed, or a reason to skip (a failure where STAGECOACH_REQUIRE_TESTBED=1 says that it must be there)."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.firecrest_place import Place, on_cluster, stagecoach_up
from tests.e2e.logs import Logs
from tests.e2e.testbed import ENVIRONMENT_FILE, REPOSITORY, Testbed, read_environment
from tests.integration.road.fault_proxy import FaultProxy

SLOW_BYTES_PER_SECOND = 50_000_000


@pytest.fixture(scope="session")
def testbed() -> Iterator[Testbed]:
    """The running testbed with Stagecoach on it. When all tests have run, no secret is in any log that they wrote."""
    yield from testbed_of(ENVIRONMENT_FILE)


def testbed_of(file: Path) -> Iterator[Testbed]:
    """That testbed, likewise."""
    reason = None
    if not file.exists():
        reason = "no testbed: run 'make testbed-up' first"
    else:
        environment = read_environment(file)
        try:
            httpx.get(environment["STAGECOACH_URL"] + "/healthz", timeout=5).raise_for_status()
        except httpx.HTTPError as error:
            reason = f"the testbed's Stagecoach does not answer ({type(error).__name__}): run 'make testbed-up'"
    if reason is not None:
        if os.environ.get("STAGECOACH_REQUIRE_TESTBED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    logs = Logs(Path(environment["TESTBED_ROOT"], "log"))
    yield Testbed(environment)
    assert logs.leaks(environment) == []


@pytest.fixture
def slow_road(testbed: Testbed) -> Iterator[FaultProxy]:
    """The way to the store of the jobs of ``testbed-slow`` and ``testbed-keeping``; it lets few bytes through, and counts."""
    proxy = FaultProxy(testbed.environment["S3_ENDPOINT"].removeprefix("http://"), bytes_per_second=SLOW_BYTES_PER_SECOND)
    with proxy.serving(int(testbed.environment["SLOW_PROXY_PORT"])):
        yield proxy


@pytest.fixture
def nodes_come_back(testbed: Testbed) -> Iterator[None]:
    """Whatever a test does to a node, the next one finds both at work."""
    yield
    environment = {**os.environ, "VENV": sys.prefix, "TESTBED_ROOT": testbed.environment["TESTBED_ROOT"]}
    subprocess.run([REPOSITORY / "deploy" / "testbed" / "slurm-up"], env=environment, check=True, capture_output=True)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], Path]]:
    """What the ready file of a ``stagecoach up`` says, and its root."""
    with stagecoach_up(tmp_path_factory.mktemp("up")) as up:
        yield up


@pytest.fixture(params=["cluster", "embedded"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "embedded":
        said, root = request.getfixturevalue("embedded")
        top = root / secrets.token_hex(6)
        top.mkdir()
        yield Place(said["url"], said["token"], said["system"], top)
        return
    with on_cluster(request.getfixturevalue("testbed")) as made:
        yield made


@pytest.fixture
def cluster(testbed: Testbed) -> Iterator[Place]:
    with on_cluster(testbed) as made:
        yield made
