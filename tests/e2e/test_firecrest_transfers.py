"""FirecREST's own client and command line move files of every size: over real Slurm, and with ``stagecoach up`` alone."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path

import pytest
from firecrest.FirecrestException import (
    FirecrestException,
    TransferJobFailedException,
    TransferJobTimeoutException,
)
from tests.e2e.firecrest_place import Place
from tests.e2e.testbed import wait_until
from tests.integration.firecrest.service import Client, Program, client_of, refusal

# Its client's way to tell the store that an upload is complete is out of fashion.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

MEBIBYTE = 1024**2
SIZES = [0, 1, MEBIBYTE - 1, MEBIBYTE, 50 * MEBIBYTE]
# The client asks after 0.2, 0.5, 1, 2, 4, 8 s and so on, and then looks into the log.
SOON_SECONDS = 9.0
Move = Callable[[str, Path, Path], Awaitable[None]]


@pytest.fixture(params=["sync", "async"])
async def client(request: pytest.FixtureRequest, cluster: Place) -> AsyncIterator[Client]:
    async with client_of(request.param, cluster.url, cluster.token) as made:
        yield made


@pytest.fixture(params=["sync", "async", "program"])
async def move(request: pytest.FixtureRequest, place: Place, tmp_path: Path) -> AsyncIterator[Move]:
    """Upload (``up``, local, remote) or download (``down``, remote, local), and wait until it is there."""
    if request.param == "program":
        program = Program(place.url, place.system, place.token, tmp_path)

        async def by_program(way: str, source: Path, target: Path) -> None:
            if way == "up":
                await asyncio.to_thread(program, "upload", source, target.parent, target.name)
            else:
                await asyncio.to_thread(program, "download", source, target)

        yield by_program
        return
    async with client_of(request.param, place.url, place.token) as client:

        async def by_client(way: str, source: Path, target: Path) -> None:
            if way == "up":
                await client("upload", place.system, str(source), str(target.parent), target.name)
            else:
                await client("download", place.system, str(source), str(target))

        yield by_client


def make(path: Path, size: int) -> str:
    """A file of random bytes; its digest."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, 8 * MEBIBYTE):
            piece = os.urandom(min(8 * MEBIBYTE, size - start))
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def there_and_back(place: Place, move: Move, tmp_path: Path, size: int) -> None:
    name = "it's $(touch pwned) é.bin"
    digest = make(tmp_path / "local", size)
    for way, source, target in (("up", tmp_path / "local", place.top / name), ("down", place.top / name, tmp_path / "back")):
        await move(way, source, target)
        back_at = time.time()
        assert target.stat().st_size == size
        assert digest_of(target) == digest
        if size >= MEBIBYTE:
            transfer = place.last_transfer()
            assert (transfer["direction"], transfer["sizeBytes"]) == ("upload" if way == "up" else "download", size)
            if way == "up":
                # A download goes on after its job: the bytes come from the store.
                assert transfer["state"] == "done"
                assert back_at - datetime.fromisoformat(transfer["endedAt"]).timestamp() < SOON_SECONDS
    assert os.listdir(place.top) == [name]


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_of_any_size_arrives_byte_for_byte(place: Place, move: Move, tmp_path: Path, size: int) -> None:
    await there_and_back(place, move, tmp_path, size)


@pytest.mark.timeout(900)
async def test_a_gibibyte_arrives_byte_for_byte(cluster: Place, tmp_path: Path) -> None:
    async with client_of("async", cluster.url, cluster.token) as client:

        async def by_client(way: str, source: Path, target: Path) -> None:
            if way == "up":
                await client("upload", cluster.system, str(source), str(target.parent), target.name)
            else:
                await client("download", cluster.system, str(source), str(target))

        await there_and_back(cluster, by_client, tmp_path, 1024 * MEBIBYTE)


async def test_what_cannot_be_moved_is_said_before_a_byte_travels(cluster: Place, client: Client, tmp_path: Path) -> None:
    local, system = tmp_path / "local", cluster.system
    make(local, MEBIBYTE)
    (cluster.top / "roots").mkdir(0o755)
    os.chown(cluster.top / "roots", 0, 0)
    for directory, status, words in (
        (cluster.top / "missing", 404, "No such file or directory"),
        (cluster.top / "roots", 403, "ermission"),
        (Path("/etc"), 400, "outside"),
    ):
        with pytest.raises(FirecrestException) as error:
            await client("upload", system, str(local), str(directory), "f")
        assert refusal(error)[0] == status, refusal(error)
        assert words in refusal(error)[1]
    with pytest.raises(FileNotFoundError):
        await client("download", system, str(cluster.top / "missing"), str(tmp_path / "back"))
    with pytest.raises(FirecrestException) as error:
        await client("download", system, "/etc/passwd", str(tmp_path / "back"))
    assert refusal(error)[0] == 400


async def test_a_transfer_that_is_cancelled_is_no_success(cluster: Place, client: Client, tmp_path: Path) -> None:
    make(tmp_path / "local", MEBIBYTE)
    begun = await client("upload", cluster.system, str(tmp_path / "local"), str(cluster.top), "f", blocking=False)
    cluster.ask("DELETE", f"/transfers/{cluster.last_transfer()['id']}")
    with pytest.raises(TransferJobFailedException):
        await Client(begun)("wait_for_transfer_job")
    assert os.listdir(cluster.top) == []


async def test_a_wait_that_takes_too_long_cancels_the_transfer(cluster: Place, client: Client, tmp_path: Path) -> None:
    make(tmp_path / "local", MEBIBYTE)
    begun = await client("upload", cluster.system, str(tmp_path / "local"), str(cluster.top), "f", blocking=False)
    with pytest.raises(TransferJobTimeoutException):
        await Client(begun)("wait_for_transfer_job", timeout=1)
    await asyncio.to_thread(
        wait_until, lambda: cluster.last_transfer()["state"] == "cancelled", 30, "the transfer is cancelled with its job"
    )
    assert os.listdir(cluster.top) == []


async def test_many_files_at_once(cluster: Place, tmp_path: Path) -> None:
    digests = {f"f{number}": make(tmp_path / f"f{number}", 2 * MEBIBYTE) for number in range(10)}
    async with client_of("async", cluster.url, cluster.token) as client:
        await asyncio.gather(
            *(client("upload", cluster.system, str(tmp_path / name), str(cluster.top), name) for name in digests)
        )
    assert {path.name: digest_of(path) for path in cluster.top.iterdir()} == digests
