"""mv, cp, rm, compress and extract as jobs of real Slurm, as the user: done right, failed with a reason, cancelled clean."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.testbed import Person, Testbed, wait_until

NAME = "g2 operations"
ODD = "it's $(odd) & \n name"


@pytest.fixture
def place(testbed: Testbed) -> Iterator[Path]:
    """A directory of alice's, gone afterwards."""
    path = testbed.alice.home / NAME
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    own(testbed.alice, path)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def own(person: Person, path: Path) -> None:
    for one in (path, *path.rglob("*")):
        os.chown(one, person.uid, person.uid, follow_symlinks=False)


def make_tree(person: Person, path: Path) -> Path:
    (path / ODD / "deep").mkdir(parents=True)
    (path / ODD / "deep" / "file.txt").write_bytes(b"content" * 1000)
    (path / "empty").write_bytes(b"")
    (path / "link").symlink_to(ODD)
    (path / "private").write_bytes(b"private")
    (path / "private").chmod(0o600)
    own(person, path)
    return path


def picture(path: Path) -> dict[str, Any]:
    """Names, modes, owners and contents."""
    seen: dict[str, Any] = {}
    for one in sorted(path.rglob("*")):
        found = one.lstat()
        content = one.read_bytes() if one.is_file() and not one.is_symlink() else os.readlink(one) if one.is_symlink() else None
        seen[str(one.relative_to(path))] = (found.st_mode, found.st_uid, content)
    return seen


def asked(testbed: Testbed, operation: str, **body: Any) -> Any:
    return testbed.alice.http.post(f"/filesystem/{testbed.system}/transfer/{operation}", json=body)


def done(testbed: Testbed, operation: str, **body: Any) -> dict[str, Any]:
    """Through the job route, as FirecREST's client waits, and then the transfer."""
    answer = asked(testbed, operation, **body)
    assert answer.status_code == 201, answer.text
    return finished(testbed, answer.json())


def finished(testbed: Testbed, begun: dict[str, Any], state: str = "done") -> dict[str, Any]:
    job = begun["transferJob"]
    assert job["logs"]["outputLog"].startswith(job["workingDirectory"])
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    assert transfer["state"] == state, transfer
    told = testbed.alice.http.get(f"/compute/{testbed.system}/jobs/{job['jobId']}").json()["jobs"][0]["status"]["state"]
    assert told == ("COMPLETED" if state == "done" else "FAILED")
    require_nothing_left(testbed, transfer)
    return testbed.show(testbed.alice, begun["transferId"])


def require_nothing_left(testbed: Testbed, transfer: dict[str, Any]) -> None:
    """On the cluster; in the store there was nothing."""
    directory, name = testbed.alice.home / ".stagecoach" / transfer["id"], f".stagecoach-{transfer['id']}.part"

    def is_clean() -> bool:
        hidden = list((testbed.alice.home / NAME).rglob(name))
        return not hidden and not directory.exists() and not testbed.open_jobs(transfer["id"])

    wait_until(is_clean, 60, f"nothing is left of {transfer['id']}")


def slurm_state(testbed: Testbed, job_id: str) -> str:
    """What Slurm's own accounting says."""
    return wait_until(
        lambda: testbed.slurm("sacct", "-n", "-X", "-j", job_id, "-o", "State,ExitCode").strip(), 30, "the accounting has it"
    )


def test_cp_then_mv_then_rm(testbed: Testbed, place: Path) -> None:
    source = make_tree(testbed.alice, place / "source")
    before = picture(source)
    copied = done(testbed, "cp", sourcePath=str(source), targetPath=str(place / "copy"), dereference=False)
    assert (copied["direction"], copied["operation"], copied["sourcePath"]) == ("within", "cp", str(source))
    assert (copied["fileCount"], copied["filesMoved"], copied["sizeBytes"]) == (7, 7, 7007)
    assert picture(place / "copy") == before == picture(source)
    assert "Files were successfully copied" in copied["jobLog"]
    assert [line["state"] for line in copied["history"]][:2] == ["preparing", "queued"]
    done(testbed, "mv", sourcePath=str(place / "copy"), targetPath=str(place / "moved"))
    assert (picture(place / "moved"), (place / "copy").exists()) == (before, False)
    answer = testbed.alice.http.delete(f"/filesystem/{testbed.system}/transfer/rm", params={"path": str(place / "moved")})
    assert answer.status_code == 200, answer.text
    finished(testbed, answer.json())
    assert sorted(path.name for path in place.iterdir()) == ["source"]


@pytest.mark.parametrize(("compression", "option"), [("gzip", "z"), ("bzip2", "j"), ("xz", "J"), ("none", "")])
def test_compress_and_extract(testbed: Testbed, place: Path, compression: str, option: str) -> None:
    source = make_tree(testbed.alice, place / "source")
    archive, out = place / "archive", place / "out"
    done(testbed, "compress", source_path=str(source), target_path=str(archive), compression=compression, match_pattern=None)
    listed = subprocess.run(["tar", f"-t{option}f", archive], capture_output=True, text=True, check=True).stdout
    assert listed.splitlines()[0] == "source/"
    out.mkdir()
    own(testbed.alice, out)
    done(testbed, "extract", source_path=str(archive), target_path=str(out), compression=compression)
    assert picture(out / "source") == picture(source)


def test_only_what_matches_is_packed(testbed: Testbed, place: Path) -> None:
    source = make_tree(testbed.alice, place / "source")
    (source / "it's $(one).txt").write_bytes(b"one")
    own(testbed.alice, source)
    done(
        testbed,
        "compress",
        source_path=str(source),
        target_path=str(place / "archive"),
        compression="gzip",
        match_pattern=r".*\.txt",
    )
    with tarfile.open(place / "archive") as archive:
        assert [os.path.normpath(name) for name in archive.getnames()] == ["source/it's $(one).txt"]


def test_a_failed_job_is_failed_in_slurm_too(testbed: Testbed, place: Path) -> None:
    (place / "bad.tar.gz").write_bytes(b"\x1f\x8b\x08 this is no archive")
    own(testbed.alice, place)
    (place / "out").mkdir()
    own(testbed.alice, place)
    answer = asked(testbed, "extract", source_path=str(place / "bad.tar.gz"), target_path=str(place / "out"), compression="gzip")
    failed = finished(testbed, answer.json(), "failed")
    assert (failed["code"], "not a whole tar archive" in failed["reason"]) == ("archive_unreadable", True)
    assert slurm_state(testbed, answer.json()["transferJob"]["jobId"]).split() == ["FAILED", "1:0"]
    assert "successfully" not in failed["jobLog"]
    assert list((place / "out").iterdir()) == []


def test_what_only_the_job_can_see_fails_it_with_a_reason(testbed: Testbed, place: Path) -> None:
    source = make_tree(testbed.alice, place / "source")
    os.chown(source / "private", 0, 0)
    for operation, more in (("cp", {"dereference": False}), ("compress", {"compression": "gzip"})):
        answer = asked(testbed, operation, sourcePath=str(source), targetPath=str(place / "target"), **more)
        failed = finished(testbed, answer.json(), "failed")
        assert (failed["code"], "'private'" in failed["reason"]) == ("permission_denied", operation == "cp") or (
            "private" in failed["reason"]
        )
    assert sorted(path.name for path in place.iterdir()) == ["source"]


def test_what_cannot_be_is_refused_at_once(testbed: Testbed, place: Path) -> None:
    source = make_tree(testbed.alice, place / "source")
    (place / "way out").symlink_to("/etc")
    for operation, body, status in (
        ("cp", {"sourcePath": str(place / "nothing"), "targetPath": str(place / "x")}, 404),
        ("cp", {"sourcePath": str(source), "targetPath": "/etc/x"}, 400),
        ("mv", {"sourcePath": str(source), "targetPath": str(place / "way out" / "x")}, 400),
        ("mv", {"sourcePath": "/home/bob/x", "targetPath": str(place / "x")}, 400),
        ("extract", {"sourcePath": str(source / "empty"), "targetPath": str(place / "nowhere")}, 404),
    ):
        assert asked(testbed, operation, **body).status_code == status, (operation, body)
    answer = testbed.alice.http.delete(f"/filesystem/{testbed.system}/transfer/rm", params={"path": str(testbed.alice.home)})
    assert answer.status_code == 400
    assert picture(source)


def test_a_large_copy_is_seen_and_cancelled_in_the_middle(testbed: Testbed, place: Path) -> None:
    source = place / "source"
    source.mkdir()
    for number in range(6):
        (source / f"{number}.bin").write_bytes(os.urandom(1024 * 1024) * 500)
    own(testbed.alice, source)
    (place / "target").mkdir()
    own(testbed.alice, place / "target")
    begun = asked(testbed, "cp", sourcePath=str(source), targetPath=str(place / "target")).json()

    def some() -> dict[str, Any] | None:
        shown = testbed.show(testbed.alice, begun["transferId"])
        assert shown["state"] not in {"done", "failed"}, shown
        return shown if 0 < shown["bytesMoved"] < shown["sizeBytes"] and shown["filesMoved"] else None

    seen = wait_until(some, 120, "progress in bytes and files") or {}
    assert (seen["state"], seen["fileCount"], seen["sizeBytes"]) == ("moving", 7, 6 * 500 * 1024 * 1024)
    answer = testbed.alice.http.delete(f"/transfers/{begun['transferId']}")
    assert answer.status_code == 200
    cancelled = testbed.wait(testbed.alice, begun["transferId"])
    assert cancelled["state"] == "cancelled"
    hidden = place / "target" / f".stagecoach-{begun['transferId']}.part"
    wait_until(lambda: not hidden.exists(), 60, "the half copy is gone")
    require_nothing_left(testbed, cancelled)
    assert (list((place / "target").iterdir()), len(list(source.iterdir()))) == ([], 6)


def test_a_requeued_copy_ends_right(testbed: Testbed, place: Path) -> None:
    source = place / "source"
    source.mkdir()
    for number in range(4):
        (source / f"{number}.bin").write_bytes(os.urandom(1024 * 1024) * 250)
    own(testbed.alice, source)
    begun = asked(testbed, "cp", sourcePath=str(source), targetPath=str(place / "target")).json()
    hidden = place / f".stagecoach-{begun['transferId']}.part"
    wait_until(hidden.exists, 120, "the copy has begun", pause=0.02)
    testbed.requeue(begun["transferJob"]["jobId"])
    transfer = testbed.wait(testbed.alice, begun["transferId"], seconds=300)
    assert transfer["state"] == "done", transfer
    assert picture(place / "target") == picture(source)
    require_nothing_left(testbed, transfer)
