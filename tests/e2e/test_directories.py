"""Directories go to the cluster and back as one transfer each, equal to the last nanosecond, or leave nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.test_cli import Terminal, stored_bytes
from tests.e2e.testbed import Person, Testbed, wait_until
from tests.trees import listing, make_tree, require_equal

from stagecoach.client import CarriedTransfer, Client

PART = 8 * 1024 * 1024


@pytest.fixture
def terminal(testbed: Testbed, tmp_path: Path) -> Terminal:
    return Terminal(testbed, testbed.alice, tmp_path)


@pytest.fixture
def remote(testbed: Testbed) -> Iterator[Path]:
    """A directory of alice's on the cluster; in the end nothing is in it that the service made and hid."""
    alice = testbed.alice
    path = alice.home / "directories"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o755)
    os.chown(path, alice.uid, alice.uid)
    yield path
    assert [name for name in os.listdir(path) if name.startswith(".stagecoach")] == []
    shutil.rmtree(path)


def client(testbed: Testbed, home: Path) -> Client:
    return Client(testbed.url, testbed.environment["ALICE_TOKEN"], state_directory=home / "state")


def begin(testbed: Testbed, direction: str, path: Path, size: int | None = None, **more: str) -> httpx.Response:
    directives = {"transferMethod": "s3", **({"fileSize": size} if size is not None else {})}
    body = {"path": str(path), "archive": "tar", "transferDirectives": directives, **more}
    return testbed.alice.http.post(f"/filesystem/{testbed.system}/transfer/{direction}", json=body)


def upload_stream(testbed: Testbed, path: Path, stream: bytes, **more: str) -> dict[str, Any]:
    """As any HTTP client would."""
    begun = begin(testbed, "upload", path, len(stream), **more)
    assert begun.status_code == 201, begun.text
    testbed.complete(begun.json(), testbed.put_parts(begun.json(), stream))
    return testbed.wait(testbed.alice, begun.json()["transferId"])


def download_stream(testbed: Testbed, path: Path) -> bytes:
    begun = begin(testbed, "download", path)
    assert begun.status_code == 201, begun.text
    staged = testbed.wait(testbed.alice, begun.json()["transferId"], "staged")
    assert staged["state"] == "staged", staged
    stream = httpx.get(begun.json()["transferDirectives"]["downloadUrl"], timeout=60).content
    assert staged["sizeBytes"] == staged["bytesStaged"] == staged["bytesMoved"] == len(stream)
    assert staged["partCount"] == -(-len(stream) // staged["partSizeBytes"])
    assert testbed.alice.http.post(f"/transfers/{staged['id']}/finish").json()["state"] == "done"
    testbed.wait_until_nothing_is_left(testbed.alice, staged)
    return stream


def names_in(directory: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return os.listdir(directory)
    return []


def require_owner(top: Path, person: Person) -> None:
    found = [os.path.join(directory, name) for directory, names, files in os.walk(top) for name in [*names, *files]]
    assert {os.lstat(path).st_uid for path in [*found, str(top)]} == {person.uid}


def test_a_tree_goes_up_and_down_through_the_client(testbed: Testbed, remote: Path, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", 400)
    (tmp_path / "tree").chmod(0o755)
    (tmp_path / "tree" / "large").write_bytes(os.urandom(3 * PART + 77))

    async def there_and_back() -> tuple[CarriedTransfer, CarriedTransfer]:
        async with client(testbed, tmp_path) as alice:
            up = await alice.upload(testbed.system, tmp_path / "tree", f"{remote}/tree")
            require_equal(tmp_path / "tree", remote / "tree")
            return up, await alice.download(testbed.system, f"{remote}/tree", tmp_path / "back", archive=True)

    up, down = asyncio.run(there_and_back())
    assert (up.state, up.archive, down.state, down.archive) == ("done", "tar", "done", "tar")
    assert up.size_bytes == down.size_bytes
    assert len(listing(tmp_path / "tree")) > 450
    require_equal(tmp_path / "tree", tmp_path / "back")
    require_owner(remote / "tree", testbed.alice)
    if testbed.environment["S3_KIND"] == "rgw":
        for proofs in (down.proved, down.client_leg.proved if down.client_leg else ()):
            assert "multipart_etag" in {proof.how for proof in proofs}
    # Where the service has seen the object before the client has told the digests, the job proves by the store's.
    assert {"part_crc32", "part_md5"} & {proof.how for proof in up.proved}
    for transfer in (up, down):
        testbed.wait_until_nothing_is_left(testbed.alice, {"id": transfer.id, "path": transfer.path, "state": transfer.state})


def test_a_tree_goes_up_and_down_through_the_command_line(testbed: Testbed, remote: Path, terminal: Terminal) -> None:
    make_tree(terminal.home / "tree", 300, seed=2)
    up = terminal.done("cp", "-r", terminal.home / "tree", f"{testbed.system}:{remote}/")
    assert (up["state"], up["archive"], up["clientLeg"]["bytesMoved"]) == ("done", "tar", up["sizeBytes"])
    require_equal(terminal.home / "tree", remote / "tree")
    (terminal.home / "back").mkdir()
    down = terminal.done("cp", "-r", f"{testbed.system}:{remote}/tree/", terminal.home / "back")
    assert down["state"] == "done"
    require_equal(terminal.home / "tree", terminal.home / "back" / "tree")
    code, _, err = terminal.run("cp", "-r", f"{testbed.system}:{remote}/tree", terminal.home / "back")
    assert (code, "exists" in err or "not empty" in err) == (1, True)
    code, _, err = terminal.run("cp", "-r", terminal.home / "tree", f"{testbed.system}:{remote}/")
    assert (code, "not empty" in err) == (1, True)
    for hint in (("cp", terminal.home / "tree", f"{testbed.system}:{remote}/"), ("cp", f"{testbed.system}:{remote}/tree", "x")):
        code, _, err = terminal.run(*hint)
        assert code in {1, 2}
        assert "cp -r" in err
    assert os.listdir(remote) == ["tree"]
    assert not list((terminal.home / ".local/state/stagecoach/transfers").iterdir())


def test_what_tar_made_is_unpacked_and_tar_reads_what_comes_back(testbed: Testbed, remote: Path, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", 150, seed=3)
    tar = ["tar", "--format=pax", "-C", str(tmp_path / "tree"), "-cf", "-", "."]
    stream = subprocess.run(tar, check=True, capture_output=True).stdout
    (remote / "tree").mkdir()
    os.chown(remote / "tree", testbed.alice.uid, testbed.alice.uid)
    digest = hashlib.sha256(stream).hexdigest()
    done = upload_stream(testbed, remote / "tree", stream, sha256=digest)
    assert done["state"] == "done", done
    assert {"how": "sha256", "value": digest} in done["proved"]
    require_equal(tmp_path / "tree", remote / "tree")
    require_owner(remote / "tree", testbed.alice)
    (tmp_path / "untarred").mkdir()
    untar = ["tar", "-C", str(tmp_path / "untarred"), "-xpf", "-"]
    subprocess.run(untar, check=True, input=download_stream(testbed, remote / "tree"))
    require_equal(tmp_path / "tree", tmp_path / "untarred")


def test_an_empty_directory(testbed: Testbed, remote: Path, terminal: Terminal) -> None:
    (terminal.home / "tree").mkdir(mode=0o700)
    terminal.done("cp", "-r", terminal.home / "tree", f"{testbed.system}:{remote}/")
    terminal.done("cp", "-r", f"{testbed.system}:{remote}/tree", terminal.home / "back")
    require_equal(terminal.home / "tree", terminal.home / "back")


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info.tobuf(tarfile.PAX_FORMAT)


END = bytes(1024)
UNSAFE = {
    "upwards": (member("../pwned") + END, "archive_unsafe"),
    "absolute": (member("/tmp/pwned") + END, "archive_unsafe"),
    "through-a-link": (member("link", tarfile.SYMTYPE, "..") + member("link/pwned") + END, "archive_unsafe"),
    "a-device": (member("null", tarfile.CHRTYPE) + END, "archive_unsafe"),
    "no-end": (member("a") + member("b"), "archive_unreadable"),
    "no-tar": (b"x" * 2048, "archive_unreadable"),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_an_archive_that_must_not_be_unpacked_leaves_nothing(testbed: Testbed, remote: Path, name: str) -> None:
    stream, code = UNSAFE[name]
    failed = upload_stream(testbed, remote / "tree", stream)
    assert (failed["state"], failed["code"]) == ("failed", code), failed
    testbed.wait_until_nothing_is_left(testbed.alice, failed)
    assert os.listdir(remote) == []
    assert not Path("/tmp/pwned").exists()


def test_what_is_refused_at_once_makes_nothing(testbed: Testbed, remote: Path) -> None:
    make_tree(remote / "full", 5, owner=testbed.alice.uid)
    (remote / "file").write_bytes(b"x")
    (remote / "link").symlink_to("nowhere")
    before = set(os.listdir(remote))
    for name in ("full", "file", "link"):
        answer = begin(testbed, "upload", remote / name, 10240)
        assert (answer.status_code, answer.json()["code"]) == (409, "target_exists")
    answer = begin(testbed, "upload", remote / "none" / "x", 10240)
    assert (answer.status_code, answer.json()["code"]) == (404, "file_missing")
    answer = begin(testbed, "download", remote / "file")
    assert (answer.status_code, answer.json()["code"]) == (400, "not_a_directory")
    answer = testbed.begin_download(testbed.alice, remote / "full")
    assert (answer.status_code, answer.json()["code"]) == (400, "not_a_file")
    assert "archive" in answer.json()["message"]
    assert set(os.listdir(remote)) == before


def test_a_directory_that_came_meanwhile_stays(testbed: Testbed, remote: Path) -> None:
    stream = member("a") + END
    begun = begin(testbed, "upload", remote / "tree", len(stream)).json()
    etags = testbed.put_parts(begun, stream)
    make_tree(remote / "tree", 5, owner=testbed.alice.uid)
    before = listing(remote / "tree")
    testbed.complete(begun, etags)
    failed = testbed.wait(testbed.alice, begun["transferId"])
    assert (failed["state"], failed["code"]) == ("failed", "target_exists")
    assert listing(remote / "tree") == before
    testbed.wait_until_nothing_is_left(testbed.alice, failed)


def test_a_source_with_a_pipe_in_it_is_refused_by_name(testbed: Testbed, remote: Path) -> None:
    make_tree(remote / "tree", 5, owner=testbed.alice.uid)
    (remote / "tree").chmod(0o755)
    os.mkfifo(remote / "tree" / "the pipe")
    begun = begin(testbed, "download", remote / "tree").json()
    failed = testbed.wait(testbed.alice, begun["transferId"])
    assert (failed["state"], failed["code"]) == ("failed", "source_special_file"), failed
    assert "the pipe" in failed["reason"]
    testbed.wait_until_nothing_is_left(testbed.alice, failed)


def test_a_cancel_in_the_middle_of_unpacking_leaves_nothing(testbed: Testbed, remote: Path, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", 3000, seed=4)
    tar = ["tar", "--format=pax", "-C", str(tmp_path / "tree"), "-cf", "-", "."]
    stream = subprocess.run(tar, check=True, capture_output=True).stdout
    begun = begin(testbed, "upload", remote / "tree", len(stream)).json()
    testbed.complete(begun, testbed.put_parts(begun, stream))
    hidden = remote / f".stagecoach-{begun['transferId']}.part"

    wait_until(lambda: len(names_in(hidden)) > 3 or (remote / "tree").exists(), 30, "the job unpacks", pause=0.005)
    answer = testbed.alice.http.delete(f"/transfers/{begun['transferId']}")
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    # The job may have been faster than the cancel: then the whole tree is there and the answer says so.
    assert (answer.status_code, transfer["state"]) in {(200, "cancelled"), (200, "done"), (409, "done")}
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)
    if transfer["state"] == "cancelled":
        assert os.listdir(remote) == []
    else:
        require_equal(tmp_path / "tree", remote / "tree")


def test_a_download_cancelled_while_it_is_queued_or_moving(testbed: Testbed, remote: Path) -> None:
    make_tree(remote / "tree", 500, seed=5, owner=testbed.alice.uid)
    before = listing(remote / "tree")
    begun = begin(testbed, "download", remote / "tree").json()
    shown = testbed.show(testbed.alice, begun["transferId"])
    assert shown["archive"] == "tar"
    assert testbed.alice.http.delete(f"/transfers/{begun['transferId']}").status_code == 200
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    assert transfer["state"] == "cancelled"
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)
    assert listing(remote / "tree") == before


def test_ctrl_c_and_going_on_with_a_directory_from_another_process(testbed: Testbed, remote: Path, terminal: Terminal) -> None:
    make_tree(terminal.home / "tree", 100, seed=6)
    (terminal.home / "tree").chmod(0o755)
    (terminal.home / "tree" / "large").write_bytes(os.urandom(20 * PART))
    copying = terminal.start("cp", "-r", terminal.home / "tree", f"{testbed.system}:{remote}/")
    transfer_id = terminal.begun(copying)
    wait_until(lambda: stored_bytes(testbed, transfer_id) or copying.poll() is not None, 30, "a part is stored", pause=0.005)
    copying.send_signal(signal.SIGINT)
    code, _, err = terminal.end(copying)
    assert code == 130, err
    done = terminal.done("transfers", "resume", transfer_id)
    assert done["state"] == "done"
    assert 0 < done["clientLeg"]["bytesResumed"] < done["sizeBytes"]
    require_equal(terminal.home / "tree", remote / "tree")
    testbed.wait_until_nothing_is_left(testbed.alice, done)


def test_a_requeued_job_goes_on_with_a_directory(testbed: Testbed, remote: Path, terminal: Terminal) -> None:
    make_tree(terminal.home / "tree", 100, seed=8)
    (terminal.home / "tree").chmod(0o755)
    for number in range(60):
        (terminal.home / "tree" / f"large-{number}").write_bytes(os.urandom(PART))
    copying = terminal.start("cp", "-r", terminal.home / "tree", f"{testbed.system}:{remote}/")
    transfer_id = terminal.begun(copying)
    hidden = remote / f".stagecoach-{transfer_id}.part"
    wait_until(lambda: sum(name.startswith("large-") for name in names_in(hidden)) > 3, 60, "the job unpacks", pause=0.005)
    testbed.requeue(testbed.show(testbed.alice, transfer_id)["jobId"])
    code, _, err = terminal.end(copying)
    assert code == 0, err
    require_equal(terminal.home / "tree", remote / "tree")
    copying = terminal.start("cp", "-r", f"{testbed.system}:{remote}/tree", terminal.home / "back")
    transfer_id = terminal.begun(copying)
    wait_until(lambda: stored_bytes(testbed, transfer_id) > 3 * PART, 60, "parts are stored", pause=0.005)
    testbed.requeue(testbed.show(testbed.alice, transfer_id)["jobId"])
    code, _, err = terminal.end(copying)
    assert code == 0, err
    require_equal(terminal.home / "tree", terminal.home / "back")
    testbed.wait_until_nothing_is_left(testbed.alice, testbed.show(testbed.alice, transfer_id))


def test_the_stream_is_what_python_reads(testbed: Testbed, remote: Path) -> None:
    make_tree(remote / "tree", 50, seed=7, owner=testbed.alice.uid)
    with tarfile.open(fileobj=io.BytesIO(download_stream(testbed, remote / "tree"))) as archive:
        names = {os.fsencode(name) for name in archive.getnames()}
    assert names == set(listing(remote / "tree"))
