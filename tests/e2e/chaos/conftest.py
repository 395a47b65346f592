"""The service under a hail of kills: on the testbed, with gates on its roads, and everything put right afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.chaos.batches import Batch, own_folder
from tests.e2e.chaos.command_road import gated_commands
from tests.e2e.chaos.gates import Gates
from tests.e2e.chaos.replicas import Replicas, own_replicas
from tests.e2e.chaos.store_road import StoreRoad
from tests.e2e.chaos.tally import Tally
from tests.e2e.chaos.victims import Victims
from tests.e2e.testbed import Testbed

SYSTEM = "chaos"
TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash[TALLY].as_text()
    if lines:
        terminalreporter.section("what was killed, where, and how it ended")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Tally:
    return request.config.stash[TALLY]


@pytest.fixture(scope="session")
def own_root(testbed: Testbed) -> Path:
    """Inside the testbed, where the job users can read."""
    root = Path(testbed.environment["TESTBED_ROOT"]) / "chaos"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(mode=0o755)
    return root


@dataclass
class Chaos:
    """A service whose roads have gates."""

    testbed: Testbed
    gates: Gates
    replicas: Replicas
    victims: Victims
    folder: Path

    def batch(self, name: str) -> Batch:
        return Batch(self.testbed, self.replicas, self.gates, self.folder, SYSTEM, name)


@pytest.fixture(scope="module")
def chaos(testbed: Testbed, own_root: Path) -> Iterator[Chaos]:
    """Times are short, so that what waits for a time to pass is seen within a minute."""
    gates = Gates()
    road = StoreRoad(testbed.environment["S3_ENDPOINT"].removeprefix("http://"), gates=gates)
    with road.serving(), gated_commands(own_root / "commands", gates) as binaries, own_folder(testbed.alice, "chaos") as folder:
        system = {
            "scheduler": {"kind": "slurm", "binaries": str(binaries)},
            "mover_concurrency": 1,
            "ssh": {"max_sessions_per_user": 40, "command_timeout_seconds": 60},
        }
        with own_replicas(
            testbed,
            own_root / "service",
            SYSTEM,
            apis=1,
            workers=1,
            system=system,
            # Who waits at a gate is no store that does not answer.
            s3={
                "private_url": road.url,
                "public_url": testbed.environment["S3_ENDPOINT"],
                "min_part_size": 5 * 1024 * 1024,
                "request_timeout_seconds": 150,
            },
            worker={"run_in_api": False, "lease_seconds": 20, "preparing_seconds": 40, "job_lost_seconds": 30},
        ) as replicas:
            yield Chaos(testbed, gates, replicas, Victims(testbed, replicas), folder)
            gates.open_all()


@pytest.fixture
def put_right(chaos: Chaos) -> Iterator[None]:
    """Whatever a test killed runs again for the next."""
    yield
    chaos.gates.open_all()
    chaos.victims.put_right()
    chaos.replicas.start()
