"""Bad input gets a 4xx that says why, and nothing is made."""

from __future__ import annotations

from typing import Any

import pytest
from tests.e2e.testbed import Testbed


def made(testbed: Testbed) -> tuple[int, list[str], list[str], str]:
    """A picture of all that a request could make."""
    try:
        listing = testbed.s3.list_objects_v2(Bucket=testbed.bucket(testbed.bob))
        uploads = testbed.s3.list_multipart_uploads(Bucket=testbed.bucket(testbed.bob))
    except testbed.s3.exceptions.NoSuchBucket:
        listing, uploads = {}, {}
    return (
        len(testbed.bob.http.get("/transfers", params={"limit": 500}).json()["transfers"]),
        [item["Key"] for item in listing.get("Contents", [])],
        [item["Key"] for item in uploads.get("Uploads", [])],
        testbed.slurm("squeue", "-h", "-u", "bob"),
    )


PATHS: list[tuple[str, int, str]] = [
    ("/etc/cron.d/x", 400, "outside"),
    ("/home/alice/x", 400, "outside"),
    ("relative/x", 400, "relative"),
    ("{home}/../alice/x", 400, "'..'"),
    ("{home}/a/../../alice/x", 400, "'..'"),
    ("{home}/", 400, "directory"),
    ("{home}", 400, "file system"),
    ("{home}/nowhere/x", 404, "No such file or directory"),
    ("{home}/nul\0x", 400, "NUL"),
    ("{home}/" + "x" * 256, 400, "255"),
    ("{home}/" + "é" * 128, 400, "255"),
    ("{home}/" + "d/" * 2500 + "x", 400, "4095"),
    ("", 400, "path"),
]


@pytest.mark.parametrize(("path", "status", "words"), PATHS, ids=lambda value: ascii(value)[:32])
def test_a_bad_path_is_refused_before_anything_is_made(testbed: Testbed, path: str, status: int, words: str) -> None:
    before = made(testbed)
    answer = testbed.begin_upload(testbed.bob, path.replace("{home}", str(testbed.bob.home)), 10)
    assert answer.status_code == status, answer.text
    assert words.replace("4095", "409") in answer.json()["message"]
    down = testbed.begin_download(testbed.bob, path.replace("{home}", str(testbed.bob.home)))
    assert 400 <= down.status_code < 500
    assert made(testbed) == before


def test_a_symlink_out_of_the_file_systems_is_refused(testbed: Testbed) -> None:
    link = testbed.bob.home / "way-out"
    if not link.is_symlink():
        link.symlink_to("/etc")
    before = made(testbed)
    up = testbed.begin_upload(testbed.bob, link / "passwd", 10)
    down = testbed.begin_download(testbed.bob, link / "passwd")
    assert (up.status_code, down.status_code) == (400, 400)
    assert "symbolic link" in down.json()["message"]
    assert made(testbed) == before


SIZES: list[tuple[Any, str]] = [
    (None, "5 TiB"),
    (-1, "greater than or equal to 0"),
    (5 * 1024**4 + 1, str(5 * 1024**4)),
    (10**30, str(5 * 1024**4)),
    ("12abc", "whole number"),
    ("1e9", "whole number"),
    (1.5, "whole number"),
    (True, "whole number"),
    ([], "fileSize"),
]


@pytest.mark.parametrize(("size", "words"), SIZES, ids=str)
def test_a_bad_size_is_refused_naming_the_limit(testbed: Testbed, size: Any, words: str) -> None:
    before = made(testbed)
    answer = testbed.begin_upload(testbed.bob, testbed.bob.home / "x", size)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["message"], answer.text
    assert made(testbed) == before


def test_a_file_that_does_not_fit_is_refused(testbed: Testbed) -> None:
    answer = testbed.begin_upload(testbed.bob, testbed.bob.home / "huge", 4 * 1024**4)
    assert (answer.status_code, answer.json()["code"]) == (400, "no_space")


def test_hostile_accounts_are_refused_and_an_unknown_one_says_what_the_scheduler_says(testbed: Testbed) -> None:
    for account in ("a b", "x\n#SBATCH --uid=0", "$(id)", "-A", "x" * 65):
        answer = testbed.begin_upload(testbed.bob, testbed.bob.home / "x", 10, account=account)
        assert answer.status_code == 400, (account, answer.text)
    before = made(testbed)
    answer = testbed.begin_upload(testbed.bob, testbed.bob.home / "x", 10, account="nobody")
    assert (answer.status_code, answer.json()["code"]) == (400, "submission_refused")
    assert "Invalid account" in answer.json()["message"]
    assert made(testbed)[1:] == before[1:]


def test_another_user_sees_nothing_of_a_transfer(testbed: Testbed) -> None:
    begun = testbed.begin_upload(testbed.alice, testbed.alice.home / "mine", 10).json()
    transfer_id, job_id = begun["transferId"], begun["transferJob"]["jobId"]
    for method, path in (
        ("GET", f"/transfers/{transfer_id}"),
        ("DELETE", f"/transfers/{transfer_id}"),
        ("GET", f"/transfers/{transfer_id}/parts"),
        ("POST", f"/transfers/{transfer_id}/finish"),
        ("GET", f"/transfers/{transfer_id}/download-url"),
        ("GET", f"/compute/{testbed.system}/jobs/{job_id}"),
    ):
        assert testbed.bob.http.request(method, path).status_code == 404, path
    listed = testbed.bob.http.get("/transfers", params={"limit": 500, "owner": "alice"}).json()["transfers"]
    assert all(transfer["owner"] == "bob" for transfer in listed)
    assert testbed.alice.http.delete(f"/transfers/{transfer_id}").status_code == 200
