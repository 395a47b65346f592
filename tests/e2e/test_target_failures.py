"""A target or source that fails under a transfer: it ends failed, says what to do, and nothing but the old target is left.

The machine has no disk quotas, so that a quota that is used up (EDQUOT) is seen in ``tests/unit/mover/test_fetch.py`` only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.own_service import own_service
from tests.e2e.test_round_trip import random_bytes
from tests.e2e.testbed import Person, Testbed, wait_until

OLD = b"the old content"
MEBIBYTE = 1024 * 1024


@contextmanager
def small_disk(person: Person, path: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of its own at ``path``, which is the person's."""
    path.mkdir(exist_ok=True)
    options = f"size={size_bytes},mode=0700,uid={person.uid},gid={person.uid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)
        path.rmdir()


@pytest.fixture
def place(testbed: Testbed) -> Iterator[Path]:
    """A directory of alice's with an old target in it."""
    directory = testbed.alice.home / "bounds-place"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    os.chown(directory, testbed.alice.uid, testbed.alice.uid)
    old_target(testbed.alice, directory)
    yield directory
    if directory.exists():
        directory.chmod(0o700)
    shutil.rmtree(directory, ignore_errors=True)


def old_target(person: Person, directory: Path) -> Path:
    target = directory / "target.bin"
    target.write_bytes(OLD)
    os.chown(target, person.uid, person.uid)
    return target


def whole_upload(testbed: Testbed, target: Path, size: int) -> tuple[dict[str, Any], list[str]]:
    """Begun and put, not completed: the job is held, so what happens now happens between the request and the job."""
    content = random_bytes(size)
    begun = testbed.begin_upload(testbed.alice, target, size)
    assert begun.status_code == 201, begun.text
    return begun.json(), testbed.put_parts(begun.json(), content)


def failed(testbed: Testbed, begun: dict[str, Any], code: str, *words: str) -> dict[str, Any]:
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    assert (transfer["state"], transfer["code"]) == ("failed", code), transfer
    for word in words:
        assert word in transfer["reason"], transfer["reason"]
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)
    return transfer


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_that_does_not_fit_is_refused_and_nothing_is_made(testbed: Testbed, place: Path) -> None:
    with small_disk(testbed.alice, place / "disk", MEBIBYTE) as disk:
        target = old_target(testbed.alice, disk)
        before = len(testbed.alice.http.get("/transfers", params={"limit": 500}).json()["transfers"])
        answer = testbed.begin_upload(testbed.alice, target, 2 * MEBIBYTE)
        assert (answer.status_code, answer.json()["code"]) == (400, "no_space"), answer.text
        assert "make room or choose another place" in answer.json()["message"]
        after = len(testbed.alice.http.get("/transfers", params={"limit": 500}).json()["transfers"])
        assert (after, names_in(disk), target.read_bytes()) == (before, ["target.bin"], OLD)


def test_a_disk_that_fills_up_before_the_job_runs(testbed: Testbed, place: Path) -> None:
    with small_disk(testbed.alice, place / "disk", 8 * MEBIBYTE) as disk:
        target = old_target(testbed.alice, disk)
        begun, etags = whole_upload(testbed, target, 6 * MEBIBYTE)
        (disk / "other").write_bytes(bytes(5 * MEBIBYTE))
        testbed.complete(begun, etags)
        failed(testbed, begun, "no_space", "No space left on device", "Free space there and retry, or choose another")
        assert (names_in(disk), target.read_bytes()) == (["other", "target.bin"], OLD)


def test_a_directory_that_fills_its_disk_as_it_is_unpacked(testbed: Testbed, place: Path, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    for number in range(6):
        (source / f"{number}.bin").write_bytes(random_bytes(MEBIBYTE))
    archive = tmp_path / "tree.tar"
    subprocess.run(["tar", "-C", source, "-cf", archive, "."], check=True)
    content = archive.read_bytes()
    with small_disk(testbed.alice, place / "disk", 8 * MEBIBYTE) as disk:
        old_target(testbed.alice, disk)
        answer = testbed.begin_upload(testbed.alice, disk / "tree", len(content), archive="tar")
        assert answer.status_code == 201, answer.text
        begun = answer.json()
        etags = testbed.put_parts(begun, content)
        (disk / "other").write_bytes(bytes(4 * MEBIBYTE))
        testbed.complete(begun, etags)
        failed(testbed, begun, "no_space", "No space left on device", "Free space there and retry")
        assert names_in(disk) == ["other", "target.bin"]


def test_the_targets_directory_is_removed(testbed: Testbed, place: Path) -> None:
    begun, etags = whole_upload(testbed, place / "target.bin", MEBIBYTE)
    shutil.rmtree(place)
    testbed.complete(begun, etags)
    failed(testbed, begun, "target_missing_directory", "does not exist any more", "Make it again and retry")
    assert not place.exists()


@pytest.mark.parametrize("how", ["mode", "owner"])
def test_the_right_to_write_is_taken_away(testbed: Testbed, place: Path, how: str) -> None:
    begun, etags = whole_upload(testbed, place / "target.bin", MEBIBYTE)
    if how == "mode":
        place.chmod(0o500)
    else:
        os.chown(place, 0, 0)
        place.chmod(0o755)
    testbed.complete(begun, etags)
    failed(testbed, begun, "permission_denied", "may not write", "Permission denied", "Give yourself the right and retry")
    assert (names_in(place), (place / "target.bin").read_bytes()) == (["target.bin"], OLD)


def test_the_targets_file_system_becomes_read_only(testbed: Testbed, place: Path) -> None:
    with small_disk(testbed.alice, place / "disk", 8 * MEBIBYTE) as disk:
        target = old_target(testbed.alice, disk)
        begun, etags = whole_upload(testbed, target, MEBIBYTE)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        testbed.complete(begun, etags)
        failed(testbed, begun, "permission_denied", "read-only", "choose another directory")
        assert (names_in(disk), target.read_bytes()) == (["target.bin"], OLD)


@pytest.fixture
def no_job_starts(testbed: Testbed) -> Iterator[None]:
    """Until the test itself lets them: what happens before, happens between the request and the job."""
    testbed.slurm("scontrol", "update", "nodename=n1,n2", "state=drain", "reason=bounds")
    yield
    resume(testbed)


def resume(testbed: Testbed) -> None:
    if "drain" in testbed.slurm("sinfo", "-h", "-N", "-o", "%N %T").lower():
        testbed.slurm("scontrol", "update", "nodename=n1,n2", "state=resume")


@pytest.mark.usefixtures("no_job_starts")
@pytest.mark.parametrize(
    ("what", "code", "words"),
    [
        ("removed", "source_missing", ("does not exist any more", "Put it back")),
        ("closed", "permission_denied", ("may not read", "Give yourself the right and retry")),
        ("larger", "source_changed", ("1048577 bytes where 1048576", "Begin the download again")),
        ("replaced", "source_changed", ("524288 bytes where 1048576", "Begin the download again")),
    ],
)
def test_a_source_that_is_not_what_it_was(testbed: Testbed, place: Path, what: str, code: str, words: tuple[str, ...]) -> None:
    source = place / "source.bin"
    source.write_bytes(random_bytes(MEBIBYTE))
    os.chown(source, testbed.alice.uid, testbed.alice.uid)
    begun = testbed.begin_download(testbed.alice, source)
    assert begun.status_code == 201, begun.text
    if what == "removed":
        source.unlink()
    elif what == "closed":
        source.chmod(0)
    elif what == "larger":
        source.write_bytes(random_bytes(MEBIBYTE + 1))
    else:
        source.unlink()
        source.write_bytes(random_bytes(MEBIBYTE // 2))
        os.chown(source, testbed.alice.uid, testbed.alice.uid)
    resume(testbed)
    failed(testbed, begun.json(), code, *words)


@pytest.fixture(scope="module")
def work_disk(testbed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Testbed, Path]]:
    """A service whose jobs keep their files on a disk of their own in alice's home."""

    def own_work_directory(settings: dict[str, Any]) -> None:
        settings["systems"][0]["work_directory"] = "{home}/bounds-work"

    with (
        small_disk(testbed.alice, testbed.alice.home / "bounds-work", 2 * MEBIBYTE) as disk,
        own_service(testbed, tmp_path_factory.mktemp("own"), own_work_directory) as own,
    ):
        yield own, disk


def test_a_work_directory_that_cannot_be_written_refuses_the_request_in_words(
    work_disk: tuple[Testbed, Path], place: Path
) -> None:
    own, disk = work_disk

    def refused(status: int, code: str, *words: str) -> None:
        answer = own.begin_upload(own.alice, place / "target.bin", 10)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        for word in words:
            assert word in answer.json()["message"], answer.text
        (newest,) = own.alice.http.get("/transfers", params={"limit": 1}).json()["transfers"]
        assert newest["state"] == "failed"
        own.wait_until_nothing_is_left(own.alice, newest)
        assert [name for name in names_in(disk) if name != "filler"] == []

    (disk / "filler").write_bytes(bytes(2 * MEBIBYTE - 16384))
    refused(400, "no_space", "bounds-work", "full", "Free space")
    (disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    refused(403, "permission_denied", "bounds-work", "read-only")
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    disk.chmod(0o500)
    refused(403, "permission_denied", "bounds-work")
    disk.chmod(0o700)
    transfer = own.upload(own.alice, place / "target.bin", b"at last")
    assert (transfer["state"], (place / "target.bin").read_bytes()) == ("done", b"at last")


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_work_directory_that_fails_after_the_request_is_waited_for(
    work_disk: tuple[Testbed, Path], place: Path, how: str
) -> None:
    own, disk = work_disk
    begun, etags = whole_upload(own, place / "target.bin", MEBIBYTE)
    if how == "full":
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "filler").write_bytes(bytes(free))
    else:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    own.complete(begun, etags)

    def told() -> bool:
        shown = own.show(own.alice, begun["transferId"])
        assert shown["state"] in {"receiving", "staged"}, shown
        return "bounds-work" in (shown["reason"] or "") and how in shown["reason"]

    wait_until(told, 30, "the transfer says what it waits for")
    if how == "full":
        (disk / "filler").unlink()
    else:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    transfer = own.wait(own.alice, begun["transferId"])
    assert transfer["state"] == "done", transfer
    own.wait_until_nothing_is_left(own.alice, transfer)
    assert names_in(disk) == []
