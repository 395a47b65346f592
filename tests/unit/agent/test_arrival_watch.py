"""What is measured of a folder, and when its sender is held to what he may bring."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from stagecoach.agent import arrival_watch
from stagecoach.agent.arrival_watch import ArrivalWatch, allowed_bytes
from stagecoach.agent.arrived_bytes import Arrived, arrived_in, lack_of_room
from stagecoach.agent.stopping import Work

GIB = 2**30


def test_all_regular_files_are_measured_and_nothing_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / ".stagecoach-parts" / "1").mkdir(parents=True)
    (folder / "whole").write_bytes(b"x" * 10)
    (folder / ".stagecoach-parts" / "1" / "000001").write_bytes(b"x" * 100)
    (folder / ".stagecoach-parts" / ".rclone_temp_abc").write_bytes(b"x" * 1000)
    (tmp_path / "elsewhere").write_bytes(b"x" * 10000)
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "around").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    assert arrived_in(folder) == Arrived(1110, 1000)
    assert arrived_in(tmp_path / "gone") == Arrived()


def test_room_is_lacking_below_what_the_owner_keeps(tmp_path: Path) -> None:
    space = os.statvfs(tmp_path)
    free = space.f_bavail * space.f_frsize
    assert lack_of_room(tmp_path, 0) is None
    assert "stay free" in (lack_of_room(tmp_path, free + 10 * GIB) or "")


def test_the_slack_is_small(tmp_path: Path) -> None:
    assert allowed_bytes(0) == 256 * 2**20
    assert allowed_bytes(64 * GIB) == 65 * GIB + 256 * 2**20


class Folder:
    """A watch of one, with a bound of 100 bytes and no slack. The service answers what is told with ``bounds``, if it does."""

    def __init__(self, path: Path) -> None:
        self.path, self.work = path, Work()
        self.told: list[int] = []
        self.bounds: int | None = 100
        self.is_heard = True
        self.now = 0.0
        self.drops = 0
        self.watch = ArrivalWatch(
            path,
            100,
            0,
            tell=self._tell,
            drop_unfinished=self._drop,
            allowed=lambda most: most,
            look_seconds=0.01,
            certain_seconds=0.05,
            clock=self._clock,
        )

    def _clock(self) -> float:
        self.now += 0.01
        return self.now

    def _tell(self, arrived: Arrived) -> None:
        self.told.append(arrived.size_bytes)
        if self.is_heard:
            self.watch.allow(self.bounds)

    async def _drop(self) -> None:
        self.drops += 1
        (self.path / ".rclone_temp_a").unlink()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


async def test_it_goes_on_until_it_is_stopped_and_tells_what_is_new(folder: Folder) -> None:
    (folder.path / "a").write_bytes(b"x" * 100)
    watching = asyncio.create_task(folder.watch.until_stopped(folder.work))
    async with asyncio.timeout(10):
        while folder.told != [100]:
            await asyncio.sleep(0.01)
        (folder.path / "b").write_bytes(b"")
        (folder.path / "a").write_bytes(b"x" * 50)
        while folder.told[-1] != 50:
            await asyncio.sleep(0.01)
        folder.work.stop.set()
        assert await watching is None


async def test_beginnings_are_removed_once_before_anybody_is_held_to_it(folder: Folder) -> None:
    (folder.path / "a").write_bytes(b"x" * 60)
    (folder.path / ".rclone_temp_a").write_bytes(b"x" * 60)
    watching = asyncio.create_task(folder.watch.until_stopped(folder.work))
    async with asyncio.timeout(10):
        while folder.told[-1:] != [60]:
            await asyncio.sleep(0.01)
        assert (folder.drops, watching.done()) == (1, False)
        (folder.path / ".rclone_temp_a").write_bytes(b"x" * 60)
        ending = await watching
    assert (folder.drops, ending and ending.code) == (1, "size_mismatch")


async def test_who_may_bring_more_by_now_is_not_held_to_the_old_bound(folder: Folder) -> None:
    (folder.path / "a").write_bytes(b"x" * 500)
    folder.bounds = 1000
    watching = asyncio.create_task(folder.watch.until_stopped(folder.work))
    async with asyncio.timeout(10):
        while not folder.told:
            await asyncio.sleep(0.01)
        looks = folder.now
        while folder.now < looks + 2.0:
            await asyncio.sleep(0.01)
        assert not watching.done()
        folder.work.stop.set()
        assert await watching is None


async def test_a_service_that_says_nothing_has_said_its_last_word_at_some_time(folder: Folder) -> None:
    (folder.path / "a").write_bytes(b"x" * 500)
    folder.is_heard = False
    watching = asyncio.create_task(folder.watch.until_stopped(folder.work))
    async with asyncio.timeout(20):
        while len(folder.told) < 10:
            await asyncio.sleep(0.01)
        assert not watching.done()
        folder.now += 60.0
        ending = await watching
    assert ending is not None
    assert ending.code == "size_mismatch"


async def test_room_is_looked_at_while_a_large_folder_is_measured(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    measured, looks = threading.Event(), []

    def slow(_folder: Path) -> Arrived:
        measured.wait(30)
        return Arrived()

    def lack(_directory: Path, _least: int | None) -> str | None:
        looks.append(1)
        return "The disk is full." if len(looks) == 3 else None

    monkeypatch.setattr(arrival_watch, "arrived_in", slow)
    monkeypatch.setattr(arrival_watch, "lack_of_room", lack)
    try:
        async with asyncio.timeout(10):
            ending = await folder.watch.until_stopped(folder.work)
    finally:
        measured.set()
    assert ending is not None
    assert ending.code == "receiver_full"


async def test_what_is_whole_and_too_much_ends_it(folder: Folder) -> None:
    (folder.path / "a").write_bytes(b"x" * 101)
    (folder.path / ".rclone_temp_a").write_bytes(b"x")
    async with asyncio.timeout(10):
        ending = await folder.watch.until_stopped(folder.work)
    assert (folder.drops, ending and ending.code) == (0, "size_mismatch")
