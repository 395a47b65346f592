"""The service dies, or its settings change, and transfers end well all the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from tests.e2e.test_round_trip import PART, random_bytes
from tests.e2e.testbed import Testbed, wait_until


@pytest.fixture
def service_comes_back(testbed: Testbed) -> Iterator[None]:
    """Whatever a test does to the service, the next one finds it up with its own settings."""
    yield
    testbed.start_service("--restart")


@pytest.mark.usefixtures("service_comes_back")
def test_api_and_worker_killed_after_the_client_completed_the_upload_still_ends_done(testbed: Testbed) -> None:
    content = random_bytes(3 * PART + 1)
    target = testbed.fresh(testbed.alice, "survived.bin")
    begun = testbed.begin_upload(testbed.alice, target, len(content)).json()
    etags = testbed.put_parts(begun, content)
    os.kill(testbed.service_pid("worker"), signal.SIGKILL)
    testbed.complete(begun, etags)
    os.kill(testbed.service_pid("api"), signal.SIGKILL)
    testbed.start_service()
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    assert transfer["state"] == "done", transfer
    assert target.read_bytes() == content
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)


@pytest.mark.usefixtures("service_comes_back")
def test_worker_killed_while_the_job_moves_the_transfer_still_ends_done(testbed: Testbed) -> None:
    content = random_bytes(PART) * 8
    target = testbed.fresh(testbed.alice, "survived-moving.bin")
    begun = testbed.begin_upload(testbed.alice, target, len(content)).json()
    testbed.complete(begun, testbed.put_parts(begun, content))
    testbed.wait(testbed.alice, begun["transferId"], "queued", "moving")
    os.kill(testbed.service_pid("worker"), signal.SIGKILL)
    testbed.start_service()
    assert testbed.wait(testbed.alice, begun["transferId"])["state"] == "done"
    assert target.read_bytes() == content


@pytest.mark.usefixtures("service_comes_back")
def test_a_changed_lifecycle_setting_reaches_a_bucket_that_existed(testbed: Testbed) -> None:
    if testbed.environment["S3_KIND"] != "rgw":
        pytest.skip("rclone's store has no lifecycle rules")
    testbed.upload(testbed.alice, testbed.fresh(testbed.alice, "bucket.bin"), b"x")

    def days() -> set[int]:
        rules = testbed.s3.get_bucket_lifecycle_configuration(Bucket=testbed.bucket(testbed.alice))["Rules"]
        return {rule["Expiration"]["Days"] for rule in rules if "Expiration" in rule}

    assert days() == {10}
    testbed.start_service("--restart", STAGECOACH_S3__BUCKET_LIFECYCLE_CONFIGURATION__DAYS="3")
    wait_until(lambda: days() == {3}, 30, "the bucket's rule says 3 days")
    testbed.start_service("--restart")
    wait_until(lambda: days() == {10}, 30, "the bucket's rule says 10 days again")


def test_a_killed_staging_job_fails_the_transfer_with_the_reason_and_keeps_the_old_file(testbed: Testbed) -> None:
    target = testbed.fresh(testbed.alice, "kept.bin")
    target.write_bytes(b"old")
    content = random_bytes(PART) * 16
    begun = testbed.begin_upload(testbed.alice, target, len(content)).json()
    etags = testbed.put_parts(begun, content)
    testbed.slurm("scontrol", "update", "partitionname=debug", "state=DOWN")
    try:
        testbed.complete(begun, etags)
        testbed.wait(testbed.alice, begun["transferId"], "queued")
        testbed.slurm("scancel", begun["transferJob"]["jobId"])
    finally:
        testbed.slurm("scontrol", "update", "partitionname=debug", "state=UP")
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    assert (transfer["state"], transfer["code"]) == ("failed", "job_cancelled")
    assert target.read_bytes() == b"old"
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)


def test_a_held_job_that_somebody_removed_is_submitted_again(testbed: Testbed) -> None:
    content = random_bytes(1000)
    target = testbed.fresh(testbed.alice, "resubmitted.bin")
    begun = testbed.begin_upload(testbed.alice, target, len(content)).json()
    testbed.slurm("scancel", begun["transferJob"]["jobId"])
    testbed.complete(begun, testbed.put_parts(begun, content))
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    assert transfer["state"] == "done", transfer
    assert transfer["jobId"] != begun["transferJob"]["jobId"]
    assert target.read_bytes() == content


def test_a_job_that_waits_by_itself_delivers(testbed: Testbed) -> None:
    content = random_bytes(PART + 1)
    target = testbed.fresh(testbed.alice, "in-job.bin")
    transfer = testbed.upload(testbed.alice, target, content, system="testbed-in-job")
    assert transfer["state"] == "done", transfer
    assert target.read_bytes() == content
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)


def test_a_job_that_waits_by_itself_fails_at_its_deadline(testbed: Testbed) -> None:
    begun = testbed.begin_upload(testbed.alice, testbed.fresh(testbed.alice, "never.bin"), 10, system="testbed-in-job").json()
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    assert transfer["state"] in {"failed", "expired"}, transfer
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)


def test_an_account_directive_needs_an_account_and_uses_it(testbed: Testbed) -> None:
    target = testbed.fresh(testbed.alice, "account.bin")
    refused = testbed.begin_upload(testbed.alice, target, 1, system="testbed-account")
    assert (refused.status_code, refused.json()["code"]) == (400, "account_required")
    begun = testbed.begin_upload(testbed.alice, target, 1, system="testbed-account", account="proj").json()
    lines = testbed.slurm("squeue", "-h", "-o", "%i %a %l").splitlines()
    assert f"{begun['transferJob']['jobId']} proj 10:00" in lines
    assert testbed.alice.http.delete(f"/transfers/{begun['transferId']}").json()["state"] == "cancelled"


def test_a_source_that_changes_size_before_the_job_runs_fails_and_publishes_nothing(testbed: Testbed) -> None:
    source = testbed.fresh(testbed.alice, "growing.bin")
    source.write_bytes(b"x" * 1000)
    testbed.slurm("scontrol", "update", "partitionname=debug", "state=DOWN")
    try:
        begun = testbed.begin_download(testbed.alice, source).json()
        source.write_bytes(b"x" * 2000)
    finally:
        testbed.slurm("scontrol", "update", "partitionname=debug", "state=UP")
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    assert (transfer["state"], transfer["code"]) == ("failed", "source_changed")
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)


def test_no_presigned_url_is_kept_in_the_job_s_script_arguments_or_environment(testbed: Testbed) -> None:
    begun = testbed.begin_upload(testbed.alice, testbed.fresh(testbed.alice, "secret.bin"), 10).json()
    job_id = begun["transferJob"]["jobId"]
    script = testbed.slurm("scontrol", "write", "batch_script", job_id, "-")
    shown = testbed.slurm("scontrol", "show", "job", job_id)
    assert "stagecoach_mover.py" in script
    for text in (script, shown):
        assert "X-Amz-Signature" not in text
        assert "http" not in text
    directory = testbed.alice.home / ".stagecoach" / begun["transferId"]
    assert (directory / "ticket-url").stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    testbed.alice.http.delete(f"/transfers/{begun['transferId']}")
