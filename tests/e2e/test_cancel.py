"""A cancel in any state leaves nothing: no job, no multipart, no object, no temporary file."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.e2e.test_round_trip import PART, random_bytes
from tests.e2e.testbed import Testbed, wait_until


@pytest.fixture
def blocked_nodes(testbed: Testbed) -> Iterator[None]:
    """No job starts while this lasts: what is released stays queued."""
    testbed.slurm("scontrol", "update", "partitionname=debug", "state=DOWN")
    yield
    testbed.slurm("scontrol", "update", "partitionname=debug", "state=UP")


def cancel(testbed: Testbed, transfer_id: str) -> None:
    answer = testbed.alice.http.delete(f"/transfers/{transfer_id}")
    assert answer.status_code == 200, answer.text
    transfer = testbed.wait(testbed.alice, transfer_id)
    assert transfer["state"] == "cancelled", transfer
    assert testbed.leftovers(testbed.alice, transfer) == {}
    again = testbed.alice.http.delete(f"/transfers/{transfer_id}")
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")


def test_while_receiving(testbed: Testbed) -> None:
    begun = testbed.begin_upload(testbed.alice, testbed.fresh(testbed.alice, "cancelled.bin"), 2 * PART).json()
    testbed.put_parts(
        {
            "transferDirectives": {
                **begun["transferDirectives"],
                "partsUploadUrls": begun["transferDirectives"]["partsUploadUrls"][:1],
            }
        },
        b"x" * PART,
    )
    cancel(testbed, begun["transferId"])
    assert not (testbed.alice.home / "cancelled.bin").exists()
    assert testbed.job_line(begun["transferJob"]["jobId"]).startswith(("CANCELLED", ""))


@pytest.mark.usefixtures("blocked_nodes")
def test_an_upload_that_is_queued(testbed: Testbed) -> None:
    content = random_bytes(1000)
    begun = testbed.begin_upload(testbed.alice, testbed.fresh(testbed.alice, "cancelled.bin"), len(content)).json()
    testbed.complete(begun, testbed.put_parts(begun, content))
    assert testbed.wait(testbed.alice, begun["transferId"], "queued")["state"] == "queued"
    cancel(testbed, begun["transferId"])
    assert not (testbed.alice.home / "cancelled.bin").exists()


@pytest.mark.usefixtures("blocked_nodes")
def test_a_download_that_is_queued(testbed: Testbed) -> None:
    source = testbed.fresh(testbed.alice, "source.bin")
    source.write_bytes(b"x" * 1000)
    os.chown(source, testbed.alice.uid, testbed.alice.uid)
    begun = testbed.begin_download(testbed.alice, source).json()
    cancel(testbed, begun["transferId"])
    assert source.exists()


def test_an_upload_that_is_moving(testbed: Testbed) -> None:
    content = random_bytes(PART) * 16
    target = testbed.fresh(testbed.alice, "cancelled.bin")
    target.write_bytes(b"old")
    begun = testbed.begin_upload(testbed.alice, target, len(content)).json()
    etags = testbed.put_parts(begun, content)
    hidden = testbed.alice.home / f".stagecoach-{begun['transferId']}.part"
    testbed.complete(begun, etags)
    wait_until(lambda: hidden.exists() or target.read_bytes() != b"old", 30, "the job writes its hidden file", pause=0.005)
    answer = testbed.alice.http.delete(f"/transfers/{begun['transferId']}")
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    # The job may have been faster than the cancel: then the whole new file is there and the answer says so.
    assert (answer.status_code, transfer["state"]) in {(200, "cancelled"), (200, "done"), (409, "done")}
    assert target.read_bytes() == (b"old" if transfer["state"] == "cancelled" else content)
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)


def test_a_download_that_is_moving_or_staged(testbed: Testbed) -> None:
    source = testbed.fresh(testbed.alice, "source.bin")
    source.write_bytes(random_bytes(PART) * 8)
    os.chown(source, testbed.alice.uid, testbed.alice.uid)
    begun = testbed.begin_download(testbed.alice, source).json()
    testbed.wait(testbed.alice, begun["transferId"], "moving", "staged")
    cancel(testbed, begun["transferId"])


def test_a_download_that_is_staged(testbed: Testbed) -> None:
    source = testbed.fresh(testbed.alice, "source.bin")
    source.write_bytes(b"x" * 1000)
    begun = testbed.begin_download(testbed.alice, source).json()
    assert testbed.wait(testbed.alice, begun["transferId"], "staged")["state"] == "staged"
    cancel(testbed, begun["transferId"])


def test_a_done_upload_cannot_be_cancelled(testbed: Testbed) -> None:
    transfer = testbed.upload(testbed.alice, testbed.fresh(testbed.alice, "done.bin"), b"x")
    answer = testbed.alice.http.delete(f"/transfers/{transfer['id']}")
    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_state")
    assert (testbed.alice.home / "done.bin").read_bytes() == b"x"
