"""The receiver: what a key opens and what not, what arrives, and that it comes back under the same address and certificate."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import ssl
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

import pytest
from tests.integration.agent.conftest import HOST, QUICK, Road, until

from stagecoach.agent.receiver import Receiver
from stagecoach.agent.receiver_certificate import receiver_certificate
from stagecoach.agent.receiver_keys import ReceiverKey
from stagecoach.agent.s3_request_signing import signed_headers
from stagecoach.core.errors import InvalidRequest, PathRefused, RcloneUnavailable, SettingsError


async def test_what_arrives_are_plain_files_with_their_names_and_times(road: Road) -> None:
    names = ["plain", " spaces  in it ", "quo\"te's", "$(touch x)", "ünïcödé", "a" * 200, "-leading", "semi;colon,comma=", "100%"]
    for name in names:
        (road.send / name).write_bytes(name.encode())
        os.utime(road.send / name, (1_600_000_000, 1_600_000_000))
    (road.send / "empty").write_bytes(b"")
    folder = road.receive / 'odd "folder", {x} = é'
    folder.mkdir()
    to = road.destination(await road.receiver.open_key(folder), "into this")
    assert (await road.jobs.copy_directory(road.send, to, limits=QUICK).run()).trouble is None
    arrived = folder / "into this"
    assert {path.name: path.read_bytes() for path in arrived.iterdir()} == {
        **{name: name.encode() for name in names},
        "empty": b"",
    }
    assert {int((arrived / name).stat().st_mtime) for name in names} == {1_600_000_000}


async def test_a_key_opens_its_own_folder_alone(road: Road) -> None:
    (road.receive / "run 2").mkdir()
    (road.send / "a.bin").write_bytes(b"bytes")
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    for bucket in ("run 2", "..", ""):
        outcome = await road.jobs.copy_file(
            road.send / "a.bin", replace(to, bucket=bucket), limits=replace(QUICK, attempts=1)
        ).run()
        assert outcome.trouble is not None, bucket
    assert [path for path in road.receive.rglob("*") if path.is_file()] == []


def raw_put(road: Road, key: ReceiverKey, path: str) -> int:
    """The status of a request that no honest client makes: ``path`` goes out as it is."""
    host = f"{HOST}:{road.receiver.port}"
    headers = signed_headers(
        "PUT",
        host,
        unquote(path),
        access_key_id=key.access_key_id,
        secret_access_key=key.secret_access_key,
        now=datetime.now(UTC),
    )
    trust = ssl.create_default_context(cafile=str(road.receiver.certificate.certificate_file))
    client = http.client.HTTPSConnection(HOST, road.receiver.port, timeout=10, context=trust)
    try:
        client.request("PUT", path, body=b"abc", headers=headers)
        return client.getresponse().status
    finally:
        client.close()


async def test_a_hostile_path_leads_nowhere(road: Road, tmp_path: Path) -> None:
    (road.receive / "run 2").mkdir()
    key = await road.receiver.open_key(road.receive / "run 1")
    assert await asyncio.to_thread(raw_put, road, key, "/data/honest") == 200
    for path in (
        "/data/../x",
        "/data/%2e%2e/x",
        "/data/..%2fx",
        "/data/%2e%2e%2frun%202/x",
        "/data/a/../../../run%202/x",
        "/data/sub/..%2f..%2f..%2frun%202%2fx",
        "/data//x",
        "/data/./x",
        "/../x",
        "/run%202/x",
        "/data%2f..%2frun%202/x",
    ):
        assert await asyncio.to_thread(raw_put, road, key, path) >= 400, path
    assert [path.name for path in tmp_path.rglob("*") if path.name in {"x", "honest"}] == ["honest"]


async def test_a_folder_outside_or_with_links_to_directories_is_not_opened(road: Road, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (road.receive / "run 1" / "deep").mkdir()
    (road.receive / "run 1" / "deep" / "out").symlink_to(tmp_path / "private")
    (road.receive / "elsewhere").symlink_to(tmp_path / "private")
    (road.receive / "a file").write_bytes(b"")
    for folder in ("run 1", "elsewhere", "..", "a file", "missing"):
        with pytest.raises(PathRefused):
            await road.receiver.open_key(road.receive / folder)
    # A link to a file is replaced, not followed.
    (tmp_path / "precious").write_bytes(b"precious")
    (road.receive / "ok").mkdir()
    (road.receive / "ok" / "a.bin").symlink_to(tmp_path / "precious")
    (road.send / "a.bin").write_bytes(b"bytes")
    to = road.destination(await road.receiver.open_key(road.receive / "ok"))
    assert (await road.jobs.copy_file(road.send / "a.bin", to, limits=QUICK).run()).trouble is None
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert (road.receive / "ok" / "a.bin").read_bytes() == b"bytes"


async def test_a_folder_that_cannot_be_said_to_rclone_is_refused(road: Road) -> None:
    (road.receive / "two\nlines").mkdir()
    with pytest.raises(InvalidRequest):
        await road.receiver.open_key(road.receive / "two\nlines")


@pytest.mark.parametrize("name", ["../../victim", "/tmp/victim", "", "a/b", "."])
async def test_a_key_whose_name_is_a_path_opens_nothing(road: Road, name: str) -> None:
    """Another may have thought it out: it becomes the name of a link in the receiver's own directory."""
    (road.receive / "mine").mkdir()
    with pytest.raises(InvalidRequest):
        await road.receiver.open_key(road.receive / "mine", ReceiverKey(name, "secret", road.receive / "mine"))
    assert name not in {key.access_key_id for key in road.receiver._desk.keys}


async def test_it_comes_back_with_its_port_its_certificate_and_its_keys(road: Road) -> None:
    (road.send / "a.bin").write_bytes(b"bytes")
    to = road.destination(await road.receiver.open_key(road.receive / "run 1"))
    old = road.receiver.pid
    assert old is not None
    os.kill(old, signal.SIGKILL)
    await until(lambda: road.receiver.pid not in {None, old})
    assert (await road.jobs.copy_file(road.send / "a.bin", to, limits=QUICK).run()).trouble is None


async def test_no_secret_is_on_disk_or_in_an_argument(road: Road, tmp_path: Path) -> None:
    (road.send / "a.bin").write_bytes(b"bytes")
    key = await road.receiver.open_key(road.receive / "run 1")
    assert (await road.jobs.copy_file(road.send / "a.bin", road.destination(key), limits=QUICK).run()).trouble is None
    secret = key.secret_access_key.encode()
    for pid in (road.rclone.pid, road.receiver.pid):
        assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert secret not in Path(f"/proc/{pid}/environ").read_bytes()
    for path in tmp_path.rglob("*"):
        if stat.S_ISREG(path.lstat().st_mode):
            assert secret not in path.read_bytes(), path
    state = road.receiver.certificate.key_file.parent
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE(road.receiver.certificate.key_file.stat().st_mode) == 0o600


def test_a_certificate_is_kept_until_its_names_change_or_it_nears_its_end(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    first = receiver_certificate(tmp_path, ["node.example", "192.0.2.7"], now=now)
    assert receiver_certificate(tmp_path, ["192.0.2.7", "node.example"], now=now + timedelta(days=700)) == first
    second = receiver_certificate(tmp_path, ["node.example"], now=now)
    assert second.sha256 != first.sha256
    third = receiver_certificate(tmp_path, ["node.example"], now=now + timedelta(days=800))
    assert third.sha256 != second.sha256
    third.key_file.write_bytes(b"torn")
    assert receiver_certificate(tmp_path, ["node.example"], now=now).sha256 != third.sha256
    with pytest.raises(SettingsError):
        receiver_certificate(tmp_path, [], now=now)


async def test_a_port_that_is_taken_is_said(road: Road, tmp_path: Path) -> None:
    second = Receiver(tmp_path / "second", receive_directory=road.receive, host=HOST, port=road.receiver.port, names=[HOST])
    with pytest.raises(RcloneUnavailable, match="address already in use"):
        await second.start()


@pytest.fixture
def small_disk(receive: Path) -> Iterator[Path]:
    """A folder below the receive directory with 4 MiB."""
    folder = receive / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can make a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_full_disk_fails_the_sender_leaves_nothing_and_is_told_to_the_owner(road: Road, small_disk: Path) -> None:
    (road.send / "a.bin").write_bytes(os.urandom(8 * 2**20))
    to = road.destination(await road.receiver.open_key(small_disk))
    assert road.receiver.health() == []
    outcome = await road.jobs.copy_file(road.send / "a.bin", to, limits=replace(QUICK, attempts=1)).run()
    assert outcome.trouble is not None
    assert outcome.trouble.code == "receiver_failed"
    assert outcome.progress.percent < 100
    assert list(small_disk.iterdir()) == []
    [sentence] = road.receiver.health()
    assert "full" in sentence
    await road.receiver.stop()
    assert len(road.receiver.health()) == 2


async def test_an_rclone_that_would_let_everybody_in_is_not_used(
    tmp_path: Path, receive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "rclone"
    old.write_text("#!/bin/sh\necho 'rclone v1.70.3'\n")
    old.chmod(0o755)
    monkeypatch.setattr("stagecoach.agent.rclone_program.find_rclone", lambda: str(old))
    receiver = Receiver(tmp_path / "state", receive_directory=receive, host=HOST, port=0, names=[HOST])
    with pytest.raises(SettingsError, match=r"1\.75\.2 or newer.*v1\.70\.3"):
        await receiver.start()
