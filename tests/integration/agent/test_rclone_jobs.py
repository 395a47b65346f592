"""Copies and comparisons between two real rclones, where nothing goes wrong or the user has a wish."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace

import pytest
from tests.integration.agent.conftest import QUICK, Road, until

from stagecoach.agent.rclone_progress import Progress
from stagecoach.core.errors import FileMissing, NotAFile, PathRefused

MIB = 2**20


async def test_a_file_in_several_parts_arrives_whole_and_its_progress_is_told(road: Road) -> None:
    content = os.urandom(40 * MIB + 1)
    (road.send / "big [1].bin").write_bytes(content)
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"), "sub")
    seen: list[Progress] = []
    copy = road.jobs.copy_file(road.send / "big [1].bin", to, limits=replace(QUICK, rate_bytes_per_second=20 * MIB))
    outcome = await copy.run(seen.append)
    assert outcome.trouble is None
    assert (road.receive / "run 1" / "sub" / "big [1].bin").read_bytes() == content
    assert outcome.progress == seen[-1]
    assert (outcome.progress.bytes_done, outcome.progress.files_done, outcome.progress.percent) == (len(content), 1, 100)
    assert any(0 < progress.bytes_done < len(content) and progress.current_file == "big [1].bin" for progress in seen)
    comparison = await road.jobs.compare(road.send / "big [1].bin", to)
    assert comparison.equal
    assert comparison.compared_files == 1


async def test_a_rate_is_kept_by_one_file_and_by_many_together(road: Road) -> None:
    (road.send / "one").mkdir()
    (road.send / "many").mkdir()
    (road.send / "one" / "0").write_bytes(os.urandom(24 * MIB))
    for number in range(12):
        (road.send / "many" / str(number)).write_bytes(os.urandom(2 * MIB))
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    limits = replace(QUICK, rate_bytes_per_second=8 * MIB)
    for copy in (
        road.jobs.copy_file(road.send / "one" / "0", to, limits=limits),
        road.jobs.copy_directory(road.send / "many", to, limits=limits),
    ):
        began = time.monotonic()
        assert (await copy.run()).trouble is None
        # 3 s, but for the first bytes, which are let through at once.
        assert time.monotonic() - began > 1.5


async def test_the_rate_of_all_together_changes_while_they_run(road: Road) -> None:
    (road.send / "a.bin").write_bytes(os.urandom(64 * MIB))
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    await road.jobs.set_total_rate(2 * MIB)
    copy = road.jobs.copy_file(road.send / "a.bin", to, limits=QUICK)
    running = asyncio.create_task(copy.run())
    await until(lambda: copy.progress.bytes_done > 0)
    assert not running.done()
    await road.jobs.set_total_rate(None)
    assert (await asyncio.wait_for(running, 25)).trouble is None


async def test_a_stop_leaves_nothing_and_is_no_success(road: Road) -> None:
    (road.send / "a.bin").write_bytes(os.urandom(40 * MIB))
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    copy = road.jobs.copy_file(road.send / "a.bin", to, limits=replace(QUICK, rate_bytes_per_second=8 * MIB))
    running = asyncio.create_task(copy.run())
    await until(lambda: copy.progress.bytes_done > 0)
    copy.stop()
    outcome = await asyncio.wait_for(running, 20)
    assert outcome.trouble is not None
    assert outcome.trouble.code == "stopped"
    assert outcome.progress.state == "stopped"
    assert outcome.progress.percent < 100
    await until(lambda: not list((road.receive / "run 1").iterdir()))


async def test_a_cancelled_task_takes_its_job_with_it(road: Road) -> None:
    (road.send / "a.bin").write_bytes(os.urandom(40 * MIB))
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    copy = road.jobs.copy_file(road.send / "a.bin", to, limits=replace(QUICK, rate_bytes_per_second=8 * MIB))
    running = asyncio.create_task(copy.run())
    await until(lambda: copy.progress.bytes_done > 0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert copy.job is not None
    assert (await road.rclone.call("job/status", {"jobid": copy.job.number}))["finished"]


async def test_what_is_there_already_is_not_sent_again(road: Road) -> None:
    for number in range(200):
        (road.send / f"{number}").write_bytes(os.urandom(1000))
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    assert (await road.jobs.copy_directory(road.send, to, limits=QUICK).run()).trouble is None
    inodes = {path.name: path.stat().st_ino for path in (road.receive / "run 1").iterdir()}
    # Another time says nothing; other bytes do, of the same size and with the same time.
    os.utime(road.send / "7", (1, 1))
    kept = (road.send / "8").stat()
    (road.send / "8").write_bytes(os.urandom(1000))
    os.utime(road.send / "8", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    outcome = await road.jobs.copy_directory(road.send, to, limits=QUICK).run()
    assert outcome.trouble is None
    assert outcome.progress.bytes_done == outcome.progress.bytes_total == 200_000
    now = {path.name: path.stat().st_ino for path in (road.receive / "run 1").iterdir()}
    assert {name for name in now if now[name] != inodes[name]} == {"8"}


async def test_a_comparison_reads_the_disk_and_not_what_was_said_of_it(road: Road) -> None:
    (road.send / "big").write_bytes(os.urandom(20 * MIB))
    for number in range(10):
        (road.send / str(number)).write_bytes(os.urandom(1000))
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    assert (await road.jobs.copy_directory(road.send, to, limits=QUICK).run()).trouble is None
    comparison = await road.jobs.compare(road.send, to)
    assert comparison.equal
    assert comparison.compared_files == 11
    arrived = road.receive / "run 1" / "big"
    before = arrived.stat()
    with arrived.open("r+b") as file:
        file.seek(MIB)
        file.write(b"\0\0\0\0")
    os.utime(arrived, ns=(before.st_atime_ns, before.st_mtime_ns))
    (road.receive / "run 1" / "3").unlink()
    comparison = await road.jobs.compare(road.send, to)
    assert not comparison.equal
    assert comparison.differing == ("big",)
    assert comparison.missing == ("3",)
    assert not (await road.jobs.compare(road.send / "big", to)).equal


async def test_a_source_that_cannot_be_sent_is_said_at_once(road: Road) -> None:
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    (road.send / "link").symlink_to("/etc/passwd")
    with pytest.raises(FileMissing):
        await road.jobs.copy_file(road.send / "missing", to).run()
    with pytest.raises(NotAFile):
        await road.jobs.copy_file(road.send / "link", to).run()
    with pytest.raises(PathRefused):
        await road.jobs.copy_directory(road.receive, to).run()
