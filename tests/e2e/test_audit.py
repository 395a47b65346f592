"""``stagecoach audit`` as an operator runs it: every kind of orphan, planted for real, is listed and removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.test_round_trip import PART, random_bytes
from tests.e2e.testbed import Person, Testbed, wait_until


def found(report: dict[str, Any], transfer_id: str) -> set[str]:
    return {finding["kind"] for finding in report["findings"] if finding["transfer_id"] == transfer_id}


def as_owner(person: Person, path: Path, content: bytes | None = None) -> Path:
    """A file, or without content a directory, of the person's."""
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    os.chown(path, person.uid, person.uid)
    return path


def delivered(testbed: Testbed, name: str) -> dict[str, Any]:
    """An upload of which nothing is left, not even a last look of the worker."""
    transfer = testbed.upload(testbed.alice, testbed.fresh(testbed.alice, name), b"delivered")
    assert transfer["state"] == "done", transfer
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)
    return transfer


def held_job(testbed: Testbed, name: str) -> str:
    command = ["setpriv", f"--reuid={testbed.alice.uid}", f"--regid={testbed.alice.uid}", "--clear-groups"]
    submit = ["sbatch", "--parsable", "--hold", f"--job-name={name}", "--chdir=/tmp", "--output=/dev/null", "--wrap=true"]
    return testbed.slurm(*command, *submit).strip()


@pytest.fixture(autouse=True, scope="module")
def clean_before(testbed: Testbed) -> None:
    """What other tests were interrupted in is none of these tests' business."""
    testbed.audit("--fix")


def test_every_kind_of_orphan_is_listed_and_removed(testbed: Testbed) -> None:
    transfer = delivered(testbed, "audit-orphans.bin")
    transfer_id, bucket, home = transfer["id"], testbed.bucket(testbed.alice), testbed.alice.home
    wait_until(lambda: found(testbed.audit(), transfer_id) == set(), 30, "the worker is done with it", pause=1)
    testbed.s3.put_object(Bucket=bucket, Key=f"{transfer_id}/receipt.json", Body=b"late")
    upload_id = testbed.s3.create_multipart_upload(Bucket=bucket, Key=f"{transfer_id}/data")["UploadId"]
    job_id = held_job(testbed, f"stagecoach-{transfer_id}-2")
    directory = as_owner(testbed.alice, home / ".stagecoach" / transfer_id)
    as_owner(testbed.alice, directory / "receipt.json", b"{}")
    hidden = as_owner(testbed.alice, home / f".stagecoach-{transfer_id}.part", b"half")
    mine = as_owner(testbed.alice, home / ".stagecoach" / f"notes-{transfer_id}", b"mine")

    report = testbed.audit()
    assert found(report, transfer_id) == {"object", "multipart", "job", "job_directory", "temporary_file"}
    named = {finding["kind"]: finding for finding in report["findings"] if finding["transfer_id"] == transfer_id}
    assert (named["job"]["name"], named["job"]["user"], named["job"]["place"]) == (job_id, "alice", testbed.system)
    assert named["job_directory"]["name"] == str(directory)
    assert (named["multipart"]["place"], named["multipart"]["name"]) == (bucket, f"{transfer_id}/data")
    for finding in named.values():
        assert finding["why"] == "its transfer has ended (done) and was cleaned"
        assert finding["fixable"]
        assert 0 <= finding["age_seconds"] < 600
    # Within its grace nothing so young is listed.
    assert found(testbed.audit(grace_seconds=3600), transfer_id) == set()

    after = testbed.audit("--fix")
    assert {finding["kind"] for finding in after["fixed"] if finding["transfer_id"] == transfer_id} == set(named)
    assert found(after, transfer_id) == set()
    assert testbed.leftovers(testbed.alice, transfer) == {}
    assert testbed.job_line(job_id).startswith("CANCELLED")
    uploads = testbed.s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    assert upload_id not in {upload["UploadId"] for upload in uploads}
    assert not hidden.exists()
    assert mine.read_bytes() == b"mine"
    mine.unlink()
    assert testbed.audit()["findings"] == []


def test_living_transfers_in_every_state_are_neither_listed_nor_touched(testbed: Testbed) -> None:
    alice = testbed.alice
    content = random_bytes(2 * PART + 5)
    source = as_owner(alice, testbed.fresh(alice, "audit-source.bin"), content)
    targets = [testbed.fresh(alice, f"audit-living-{number}.bin") for number in range(2)]
    receiving = testbed.begin_upload(alice, targets[0], len(content)).json()
    etags = testbed.put_parts(receiving, content)
    staged = testbed.begin_download(alice, source).json()
    assert testbed.wait(alice, staged["transferId"], "staged")["state"] == "staged"
    testbed.slurm("scontrol", "update", "partitionname=debug", "state=DOWN")
    try:
        queued = testbed.begin_upload(alice, targets[1], len(content)).json()
        testbed.complete(queued, testbed.put_parts(queued, content))
        queued_down = testbed.begin_download(alice, source).json()
        testbed.wait(alice, queued["transferId"], "queued")
        after = testbed.audit("--fix")
        assert (after["findings"], after["unseen"], after["fixed"]) == ([], [], [])
        states = [testbed.show(alice, each["transferId"])["state"] for each in (receiving, staged, queued, queued_down)]
        assert states == ["receiving", "staged", "queued", "queued"]
    finally:
        testbed.slurm("scontrol", "update", "partitionname=debug", "state=UP")
    testbed.complete(receiving, etags)
    for begun, target in zip((receiving, queued), targets, strict=True):
        assert testbed.wait(alice, begun["transferId"])["state"] == "done"
        assert target.read_bytes() == content
    assert testbed.wait(alice, queued_down["transferId"], "staged")["state"] == "staged"
    for begun in (staged, queued_down):
        assert alice.http.post(f"/transfers/{begun['transferId']}/finish").json()["state"] == "done"
    wait_until(lambda: testbed.audit()["findings"] == [], 60, "nothing is left of any", pause=1)


def test_audits_while_transfers_come_and_go_find_nothing(testbed: Testbed) -> None:
    settings = testbed.environment["STAGECOACH_SETTINGS"]
    program = Path(sys.prefix, "bin", "stagecoach")
    command = [program, "audit", "--fix", "--json", "--grace-seconds", "0", "--settings", settings]
    for round_number in range(2):
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        ends = []
        while running.poll() is None:
            target = testbed.fresh(testbed.alice, f"audit-busy-{round_number}.bin")
            ends.append(testbed.upload(testbed.alice, target, b"x" * 1000)["state"])
        printed, words = running.communicate()
        assert running.returncode == 0, printed + words
        assert set(ends) == {"done"}


def test_a_person_reads_lines_and_a_script_the_exit_code(testbed: Testbed) -> None:
    transfer = delivered(testbed, "audit-lines.bin")
    hidden = as_owner(testbed.alice, testbed.alice.home / f".stagecoach-{transfer['id']}.part", b"half")
    program = Path(sys.prefix, "bin", "stagecoach")
    command = [program, "audit", "--grace-seconds", "0", "--settings", testbed.environment["STAGECOACH_SETTINGS"]]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert listed.returncode == 3, listed.stderr
    (line,) = [line for line in listed.stdout.splitlines() if transfer["id"] in line]
    assert line.startswith(f"FOUND   temporary file {hidden} in {testbed.system}, transfer {transfer['id']} of alice, ")
    assert line.endswith(" old: its transfer has ended (done) and was cleaned")
    assert listed.stdout.splitlines()[-1].endswith("1 found, 0 could not be looked at.")
    fixed = subprocess.run([*command, "--fix"], capture_output=True, text=True, check=False)
    assert (fixed.returncode, hidden.exists()) == (0, False), fixed.stdout


def test_a_system_that_does_not_answer_is_told_and_the_others_are_audited(testbed: Testbed) -> None:
    transfer = delivered(testbed, "audit-unseen.bin")
    key = f"{transfer['id']}/receipt.json"
    testbed.s3.put_object(Bucket=testbed.bucket(testbed.alice), Key=key, Body=b"late")
    text = Path(testbed.environment["STAGECOACH_SETTINGS"]).read_text(encoding="utf-8")
    away = Path(testbed.environment["TESTBED_ROOT"], "audit-away.yaml")
    away.write_text(text.replace(f"port: {testbed.environment['SSH_PORT']}", "port: 1"), encoding="utf-8")
    program = Path(sys.prefix, "bin", "stagecoach")
    try:
        command = [program, "audit", "--fix", "--grace-seconds", "0", "--settings", away]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        away.unlink()
    assert done.returncode == 4, done.stdout + done.stderr
    assert f"FIXED   object {key}" in done.stdout
    assert f"UNSEEN  {testbed.system}: alice: its jobs: " in done.stdout
