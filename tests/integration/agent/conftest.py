"""A real rclone that sends and a real one that receives, on loopback, with TLS between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from stagecoach.agent.rclone_calls import Destination, Limits
from stagecoach.agent.rclone_jobs import RcloneJobs
from stagecoach.agent.rclone_process import RcloneProcess
from stagecoach.agent.rclone_program import find_rclone
from stagecoach.agent.receiver import Receiver
from stagecoach.agent.receiver_keys import ReceiverKey
from stagecoach.core.errors import SettingsError

HOST = "127.0.0.1"
QUICK = Limits(attempts=3, look_seconds=0.05)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without rclone there is nothing to test here."""
    try:
        find_rclone()
    except SettingsError as missing:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=missing.message))


async def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Returns when it is true, and fails when it does not become so in time."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


@dataclass
class Road:
    """From ``send`` to ``receive``, by way of both rclones."""

    rclone: RcloneProcess
    jobs: RcloneJobs
    receiver: Receiver
    send: Path
    receive: Path

    def destination(self, key: ReceiverKey, folder: str = "", *, port: int | None = None) -> Destination:
        return Destination(
            f"https://{HOST}:{port or self.receiver.port}",
            key.access_key_id,
            key.secret_access_key,
            self.receiver.certificate.certificate_file,
            folder=folder,
        )


@pytest.fixture
def send(tmp_path: Path) -> Path:
    directory = tmp_path / "what is sent"
    directory.mkdir()
    return directory


@pytest.fixture
def receive(tmp_path: Path) -> Path:
    directory = tmp_path / "what is, received = here"
    (directory / "run 1").mkdir(parents=True)
    return directory


@pytest.fixture
async def rclone(tmp_path: Path, send: Path) -> AsyncIterator[RcloneProcess]:
    async with RcloneProcess(tmp_path / "state of rclone", roots=[send]) as running:
        yield running


@pytest.fixture
async def receiver(tmp_path: Path, receive: Path) -> AsyncIterator[Receiver]:
    directory = tmp_path / ("a long name " * 10) / "state of the receiver"
    async with Receiver(directory, receive_directory=receive, host=HOST, port=0, names=[HOST, "node.example"]) as running:
        yield running


@pytest.fixture
async def road(rclone: RcloneProcess, receiver: Receiver, send: Path, receive: Path) -> Road:
    return Road(rclone, RcloneJobs(rclone, jitter=lambda: 0.0), receiver, send, receive)
