"""Each known trap of rclone, with the rclone that is installed: what it does by itself, and that it does not happen here."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.integration.agent.conftest import HOST, QUICK, Road, until

from stagecoach.agent.rclone_progress import Progress
from stagecoach.agent.receiver_certificate import receiver_certificate
from stagecoach.core.errors import CommandFailed, PathRefused, PermissionRefused

MIB = 1024 * 1024


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def used_seconds(road: Road) -> float:
    """Of a core, by the receiver."""
    fields = Path(f"/proc/{road.receiver.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_trap_1_a_file_removed_on_the_receivers_disk_is_sent_again(road: Road) -> None:
    (road.send / "a.bin").write_bytes(b"first")
    (road.send / "b.bin").write_bytes(b"second")
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    assert (await road.jobs.copy_directory(road.send, to, limits=QUICK).run()).trouble is None
    (road.receive / "run 1" / "a.bin").unlink()
    # Within a second it may be taken for there still, as if it had been removed a second later; by itself rclone would
    # take it for there for five minutes.
    async with asyncio.timeout(30):
        while tree(road.receive / "run 1") != tree(road.send):
            outcome = await road.jobs.copy_directory(road.send, to, limits=QUICK).run()
            assert outcome.trouble is None


async def test_trap_1_and_a_directory_is_not_read_again_for_each_file(road: Road) -> None:
    for number in range(600):
        (road.send / f"{number}").write_bytes(b"x")
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    before = used_seconds(road)
    assert (await road.jobs.copy_directory(road.send, to, limits=QUICK).run()).trouble is None
    # About 0.7 s of a core; read again for each file, about 3 s.
    assert used_seconds(road) - before < 2.0


async def test_trap_1_and_the_receiver_does_not_spin_for_it(road: Road) -> None:
    for number in range(50):
        (road.send / f"d{number}").mkdir()
        (road.send / f"d{number}" / "file").write_bytes(b"x")
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    assert (await road.jobs.copy_directory(road.send, to, limits=QUICK).run()).trouble is None

    before, began = used_seconds(road), time.monotonic()
    # A measured time: what is watched for is that nothing happens in it.
    await asyncio.sleep(1.0)
    assert (used_seconds(road) - before) / (time.monotonic() - began) < 0.3


async def test_trap_2_a_directory_arrives_in_the_folder_and_not_beside_it(road: Road) -> None:
    (road.send / "a.bin").write_bytes(b"bytes")
    (road.receive / "run 1" / "day").write_bytes(b"a file whose name begins like the folder's")
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"), "day 2/deep")
    assert (await road.jobs.copy_directory(road.send, to, limits=QUICK).run()).trouble is None
    assert tree(road.receive / "run 1")["day 2/deep/a.bin"] == b"bytes"


async def test_trap_3_after_a_crash_of_the_receiver_only_what_is_missing_is_sent(road: Road) -> None:
    for number in range(4):
        (road.send / f"{number}.bin").write_bytes(os.urandom(MIB))
    (road.send / "last.bin").write_bytes(os.urandom(24 * MIB))
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    copy = road.jobs.copy_directory(road.send, to, limits=replace(QUICK, rate_bytes_per_second=24 * MIB, attempts=5))
    seen: list[Progress] = []
    running = asyncio.create_task(copy.run(seen.append))
    folder = road.receive / "run 1"
    await until(lambda: len(list(folder.glob("?.bin"))) == 4 and any(folder.glob(".rclone_temp_multipart_*")))
    arrived = {path.name: path.stat().st_ino for path in (road.receive / "run 1").glob("?.bin")}
    old = road.receiver.pid
    assert old is not None
    os.kill(old, signal.SIGKILL)
    outcome = await asyncio.wait_for(running, 60)
    assert outcome.trouble is None
    assert road.receiver.pid != old
    assert tree(road.receive / "run 1") == tree(road.send)
    # Sent again, a file would be renamed into its place, as another inode.
    assert {path.name: path.stat().st_ino for path in (road.receive / "run 1").glob("?.bin")} == arrived
    # Trap 4: bytes that are counted twice.
    assert all(progress.bytes_done <= progress.bytes_total for progress in seen)
    assert [progress.bytes_done for progress in seen] == sorted(progress.bytes_done for progress in seen)
    assert all(progress.percent < 100 for progress in seen[:-1])
    assert seen[-1].percent == 100


async def test_trap_5_a_dead_receiver_fails_in_bounded_time(road: Road) -> None:
    (road.send / "a.bin").write_bytes(os.urandom(20 * MIB))
    key = await road.receiver.open_key(road.receive / "run 1")
    to = road.destination(key, port=closed_port())
    began = time.monotonic()
    outcome = await road.jobs.copy_file(road.send / "a.bin", to, limits=replace(QUICK, attempts=2)).run()
    assert time.monotonic() - began < 30
    assert outcome.trouble is not None
    assert outcome.trouble.code == "port_closed"
    assert outcome.progress.state == "failed"
    assert outcome.progress.percent < 100


async def test_trap_5_a_frozen_receiver_fails_in_bounded_time_and_a_stop_ends(road: Road) -> None:
    (road.send / "a.bin").write_bytes(os.urandom(20 * MIB))
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    assert road.receiver.pid is not None
    os.kill(road.receiver.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        limits = replace(QUICK, attempts=1, patience_seconds=2.0)
        outcome = await road.jobs.copy_file(road.send / "a.bin", to, limits=limits).run()
        assert time.monotonic() - began < 30
        assert outcome.trouble is not None
        assert outcome.trouble.code == "receiver_silent"
        copy = road.jobs.copy_file(road.send / "a.bin", to, limits=replace(QUICK, patience_seconds=300.0))
        running = asyncio.create_task(copy.run())
        await until(lambda: copy.job is not None)
        began = time.monotonic()
        copy.stop()
        outcome = await asyncio.wait_for(running, 30)
        assert time.monotonic() - began < 15
        assert outcome.progress.state == "stopped"
        assert outcome.progress.percent < 100
    finally:
        os.kill(road.receiver.pid, signal.SIGCONT)


async def test_trap_5_many_errors_end_a_directory_early(road: Road) -> None:
    for number in range(500):
        (road.send / f"{number}.bin").write_bytes(b"x")
    key = await road.receiver.open_key(road.receive / "run 1")
    limits = replace(QUICK, attempts=1, max_errors=5)
    began = time.monotonic()
    outcome = await road.jobs.copy_directory(road.send, road.destination(key, port=closed_port()), limits=limits).run()
    assert time.monotonic() - began < 45
    assert outcome.trouble is not None
    assert outcome.trouble.code == "port_closed"


async def test_trap_6_trying_again_is_ours(road: Road) -> None:
    (road.send / "a.bin").write_bytes(b"bytes")
    key = await road.receiver.open_key(road.receive / "run 1")
    await road.receiver.stop()
    copy = road.jobs.copy_file(road.send / "a.bin", road.destination(key), limits=replace(QUICK, attempts=8))
    running = asyncio.create_task(copy.run())
    await until(lambda: copy.job is not None)
    first = copy.job
    await until(lambda: copy.job is not first)
    await road.receiver.start()
    await road.receiver.open_key(road.receive / "run 1", key)
    outcome = await asyncio.wait_for(running, 60)
    assert outcome.trouble is None
    assert outcome.progress.attempt > 1
    assert (road.receive / "run 1" / "a.bin").read_bytes() == b"bytes"


async def test_trap_7_what_a_killed_receiver_had_begun_is_removed(road: Road) -> None:
    (road.send / "a.bin").write_bytes(os.urandom(40 * MIB))
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    limits = replace(QUICK, rate_bytes_per_second=4 * MIB, attempts=1)
    copy = road.jobs.copy_file(road.send / "a.bin", to, limits=limits)
    running = asyncio.create_task(copy.run())
    folder = road.receive / "run 1"
    await until(lambda: any(folder.glob(".rclone_temp_*")))
    old = road.receiver.pid
    assert old is not None
    os.kill(old, signal.SIGKILL)
    copy.stop()
    await asyncio.wait_for(running, 30)
    await until(lambda: road.receiver.pid not in {None, old})
    assert not list(folder.iterdir())


async def test_trap_8_a_new_rclone_has_forgotten_the_job_and_it_is_begun_again(road: Road) -> None:
    (road.send / "a.bin").write_bytes(os.urandom(12 * MIB))
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    limits = replace(QUICK, rate_bytes_per_second=6 * MIB)
    copy = road.jobs.copy_file(road.send / "a.bin", to, limits=limits)
    running = asyncio.create_task(copy.run())
    await until(lambda: copy.progress.bytes_done > 0)
    first = copy.job
    assert first is not None
    assert road.rclone.pid is not None
    os.kill(road.rclone.pid, signal.SIGKILL)
    outcome = await asyncio.wait_for(running, 60)
    assert outcome.trouble is None
    assert copy.job is not None
    assert copy.job.execute_id != first.execute_id
    assert tree(road.receive / "run 1") == tree(road.send)


async def test_trap_9_an_error_reply_reaches_nobody_with_the_key_in_it(
    road: Road, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (road.send / "a.bin").write_bytes(b"bytes")
    key = await road.receiver.open_key(road.receive / "run 1")
    remote = road.destination(key).remote()
    with pytest.raises(CommandFailed) as failed:
        await road.rclone.call("operations/copyfile", {"srcFs": str(road.send), "dstFs": remote, "dstRemote": "x"})
    said = repr(failed.value) + str(failed.value.data) + str(failed.value.__cause__) + str(failed.value.__context__)
    assert "srcRemote" in said
    outcome = await road.jobs.copy_file(road.send / "a.bin", replace(road.destination(key), bucket="none"), limits=QUICK).run()
    assert outcome.trouble is not None
    assert key.secret_access_key not in said + str(outcome) + caplog.text + repr(key) + repr(road.destination(key))


async def test_trap_10_what_rclone_keeps_of_a_remote_does_not_outlive_its_settings(road: Road, tmp_path: Path) -> None:
    (road.send / "a.bin").write_bytes(b"bytes")
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    wrong = replace(to, certificate_file=_other_certificate(tmp_path))
    outcome = await road.jobs.copy_file(road.send / "a.bin", wrong, limits=QUICK).run()
    assert outcome.trouble is not None
    assert outcome.trouble.code == "certificate_wrong"
    # The same remote to the letter, with another certificate beside it.
    assert (await road.jobs.copy_file(road.send / "a.bin", to, limits=QUICK).run()).trouble is None


def _other_certificate(directory: Path) -> Path:
    (directory / "other").mkdir()
    return receiver_certificate(directory / "other", [HOST], now=datetime.now(UTC)).certificate_file


async def test_trap_11_nobody_is_let_in_without_a_key(road: Road) -> None:
    await road.receiver.open_key(road.receive / "run 1")
    (road.receive / "run 1" / "secret").write_bytes(b"x")
    trust = ssl.create_default_context(cafile=str(road.receiver.certificate.certificate_file))
    for path in ("/", "/data", "/data/secret"):
        request = urllib.request.Request(f"https://{HOST}:{road.receiver.port}{path}")
        with pytest.raises(urllib.error.HTTPError) as refused:
            await asyncio.to_thread(urllib.request.urlopen, request, timeout=10, context=trust)
        assert refused.value.code == 403


async def test_trap_12_what_stays_behind_is_said(road: Road) -> None:
    (road.send / "tool").write_bytes(b"#!/bin/sh\n")
    (road.send / "tool").chmod(0o755)
    (road.send / "link").symlink_to("tool")
    (road.send / "nothing" / "in here").mkdir(parents=True)
    os.mkfifo(road.send / "pipe")
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    outcome = await road.jobs.copy_directory(road.send, to, limits=QUICK).run()
    assert outcome.trouble is None
    assert {notice.kind: notice.examples for notice in outcome.survey.notices} == {
        "empty_directory": ("nothing/in here",),
        "executable": ("tool",),
        "link": ("link",),
        "special": ("pipe",),
    }
    # What was said is what happened.
    arrived = road.receive / "run 1"
    assert [path.name for path in arrived.rglob("*")] == ["tool"]
    assert not (arrived / "tool").stat().st_mode & 0o111


async def test_trap_13_rclone_is_asked_for_nothing_else(road: Road, tmp_path: Path) -> None:
    (tmp_path / "private").write_text("secret")
    (road.send / "out").symlink_to(tmp_path)
    remote = road.destination(await road.receiver.open_key(road.receive / "run 1")).remote()
    for method in ("core/command", "config/dump", "operations/deletefile", "rc/list", "core/quit"):
        with pytest.raises(PermissionRefused):
            await road.rclone.call(method)
    for place in (str(tmp_path), str(road.send / "out"), str(road.send / ".."), ":local:/", "sftp,host=x:", "what is sent"):
        with pytest.raises(PathRefused):
            await road.rclone.call("sync/copy", {"srcFs": place, "dstFs": remote})
    for changed in ({"type": "local"}, {"endpoint": "http://127.0.0.1:1"}, {"env_auth": "true"}):
        with pytest.raises(PermissionRefused):
            await road.rclone.call("sync/copy", {"srcFs": str(road.send), "dstFs": {**remote, **changed}})
    with pytest.raises(PathRefused):
        await road.rclone.call(
            "operations/copyfile", {"srcFs": str(road.send), "srcRemote": "../private", "dstFs": remote, "dstRemote": "x"}
        )


async def test_trap_14_a_closed_key_is_dead_at_once(road: Road) -> None:
    (road.receive / "run 2").mkdir()
    (road.send / "a.bin").write_bytes(b"bytes")
    first = await road.receiver.open_key(road.receive / "run 1")
    second = await road.receiver.open_key(road.receive / "run 2")
    for key in (first, second):
        assert (await road.jobs.copy_file(road.send / "a.bin", road.destination(key), limits=QUICK).run()).trouble is None
    before = road.receiver.pid
    await road.receiver.close_key(first.access_key_id)
    # Nothing comes in or out by it any more, and nothing is made where its folder was.
    (road.receive / "run 1").rename(road.receive / "moved")
    outcome = await road.jobs.copy_file(road.send / "a.bin", road.destination(first), name="b.bin", limits=QUICK).run()
    assert outcome.trouble is not None
    assert [path.name for path in (road.receive / "moved").iterdir()] == ["a.bin"]
    assert not (road.receive / "run 1").exists()
    # The other one goes on, undisturbed.
    assert road.receiver.pid == before
    outcome = await road.jobs.copy_file(road.send / "a.bin", road.destination(second), name="b.bin", limits=QUICK).run()
    assert outcome.trouble is None
    assert tree(road.receive / "run 2") == {"a.bin": b"bytes", "b.bin": b"bytes"}


async def test_trap_14_a_key_that_is_closed_breaks_off_nobody_elses_file(road: Road) -> None:
    (road.receive / "run 2").mkdir()
    (road.send / "a.bin").write_bytes(b"bytes")
    (road.send / "large.bin").write_bytes(os.urandom(24 * MIB))
    first = await road.receiver.open_key(road.receive / "run 1")
    second = await road.receiver.open_key(road.receive / "run 2")
    assert (await road.jobs.copy_file(road.send / "a.bin", road.destination(first), limits=QUICK).run()).trouble is None
    limits = replace(QUICK, rate_bytes_per_second=8 * MIB, attempts=1)
    copy = road.jobs.copy_file(road.send / "large.bin", road.destination(second), limits=limits)
    running = asyncio.create_task(copy.run())
    await until(lambda: copy.progress.bytes_done > 0)
    await road.receiver.close_key(first.access_key_id)
    assert not running.done()
    assert (await running).trouble is None
    assert (road.receive / "run 2" / "large.bin").read_bytes() == (road.send / "large.bin").read_bytes()


async def test_trap_14_the_last_key_is_refused_as_if_it_had_never_been(road: Road) -> None:
    (road.send / "a.bin").write_bytes(b"bytes")
    key = await road.receiver.open_key(road.receive / "run 1")
    assert (await road.jobs.copy_file(road.send / "a.bin", road.destination(key), limits=QUICK).run()).trouble is None
    await road.receiver.close_key(key.access_key_id)
    outcome = await road.jobs.copy_file(road.send / "a.bin", road.destination(key), name="b.bin", limits=QUICK).run()
    assert outcome.trouble is not None
    assert outcome.trouble.code == "key_refused"


async def test_trap_14_a_key_that_was_never_used_is_closed_without_a_new_start(road: Road) -> None:
    key = await road.receiver.open_key(road.receive / "run 1")
    before = road.receiver.pid
    await road.receiver.close_key(key.access_key_id)
    assert road.receiver.pid == before
    (road.send / "a.bin").write_bytes(b"bytes")
    outcome = await road.jobs.copy_file(road.send / "a.bin", road.destination(key), limits=QUICK).run()
    assert outcome.trouble is not None
    assert outcome.trouble.code == "key_refused"
