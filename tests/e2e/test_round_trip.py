"""Files of every size and name go to the cluster and back, byte for byte, as their owner."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest
from tests.e2e.testbed import Testbed, wait_until

PART = 8 * 1024 * 1024


def random_bytes(size: int, seed: int = 7) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 5 * PART + 12345])
def test_a_file_of_any_size_goes_up_and_comes_back_equal(testbed: Testbed, size: int) -> None:
    content = random_bytes(size)
    target = testbed.fresh(testbed.alice, f"size-{size}.bin")
    transfer = testbed.upload(testbed.alice, target, content)
    assert transfer["state"] == "done", transfer
    assert target.read_bytes() == content
    assert target.stat().st_uid == testbed.alice.uid
    assert transfer["bytesMoved"] == size
    assert {"how": "size", "value": str(size)} in transfer["proved"]
    if testbed.environment["S3_KIND"] == "rgw":  # rclone's store is told not to make ETags: it would read the object for each
        assert any(entry["how"] == "multipart_etag" for entry in transfer["proved"])
    assert testbed.download(testbed.alice, target) == content
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)


NAMES = [
    "with a space",
    "quotes'\"and`ticks",
    "$(touch pwned)",
    "semi;colon&and|pipe",
    "new\nline",
    "é-ü-漢字",
    "-leading-dash",
    "*?[glob]{a,b}",
    "percent%20%j%u",
    "back\\slash",
    "<html>&amp;",
    ".hidden",
    " ",
    "ü" * 127 + "x",
    "x" * 255,
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:24])
def test_a_name_with_odd_characters_is_carried_exactly(testbed: Testbed, name: str) -> None:
    directory = testbed.alice.home / "odd names"
    directory.mkdir(exist_ok=True)
    os.chown(directory, testbed.alice.uid, testbed.alice.uid)
    content = random_bytes(100_000, seed=len(name))
    transfer = testbed.upload(testbed.alice, f"{directory}/{name}", content)
    assert transfer["state"] == "done", transfer
    assert name in os.listdir(directory)
    assert Path(directory, name).read_bytes() == content
    assert testbed.download(testbed.alice, f"{directory}/{name}") == content
    pwned = [root for root, _, files in os.walk(testbed.alice.home) if "pwned" in files]
    assert not pwned


def test_the_job_is_held_and_no_node_is_busy_while_the_parts_go_up(testbed: Testbed) -> None:
    content = random_bytes(3 * PART)
    target = testbed.fresh(testbed.alice, "held.bin")
    begun = testbed.begin_upload(testbed.alice, target, len(content)).json()
    job_id = begun["transferJob"]["jobId"]
    etags = testbed.put_parts(begun, content)
    assert testbed.job_line(job_id) == "PENDING JobHeldUser"
    nodes = testbed.slurm("sinfo", "-h", "-N", "-p", "debug", "-o", "%T").split()
    assert set(nodes) == {"idle"}
    shown = wait_until(
        lambda: (view := testbed.show(testbed.alice, begun["transferId"]))["bytesStaged"] == len(content) and view,
        30,
        "the staged bytes are shown",
    )
    assert shown
    assert shown["state"] == "receiving"
    assert not target.exists()
    testbed.complete(begun, etags)
    assert testbed.wait(testbed.alice, begun["transferId"])["state"] == "done"
    assert target.read_bytes() == content


def test_an_existing_file_stays_whole_until_the_new_one_replaces_it(testbed: Testbed) -> None:
    target = testbed.fresh(testbed.alice, "replaced.bin")
    target.write_bytes(b"the old content")
    os.chown(target, testbed.alice.uid, testbed.alice.uid)
    target.chmod(0o640)
    content = random_bytes(2 * PART + 1)
    begun = testbed.begin_upload(testbed.alice, target, len(content)).json()
    etags = testbed.put_parts(begun, content)
    assert target.read_bytes() == b"the old content"
    testbed.complete(begun, etags)
    seen = set()

    def look() -> bool:
        seen.add(hashlib.sha256(target.read_bytes()).hexdigest())
        return testbed.show(testbed.alice, begun["transferId"])["state"] == "done"

    wait_until(look, 60, "the upload is done", pause=0.02)
    assert seen <= {hashlib.sha256(b"the old content").hexdigest(), hashlib.sha256(content).hexdigest()}
    assert target.read_bytes() == content
    assert target.stat().st_mode & 0o777 == 0o640


def test_the_older_flat_form_works_as_documented(testbed: Testbed) -> None:
    content = random_bytes(PART + 5)
    answer = testbed.alice.http.post(
        f"/filesystem/{testbed.system}/transfer/upload",
        json={"path": str(testbed.alice.home), "fileName": "flat.bin", "fileSize": str(len(content))},
    )
    assert answer.status_code == 201
    flat = answer.json()
    assert flat["maxPartSize"] == PART
    assert len(flat["partsUploadUrls"]) == 2
    assert set(flat) == {
        "maxPartSize",
        "partsUploadUrls",
        "completeUploadUrl",
        "completeMultipartUploadUrl",
        "transferJob",
        "transferId",
    }
    begun = {"transferDirectives": flat}
    testbed.complete(begun, testbed.put_parts(begun, content))
    assert testbed.wait(testbed.alice, flat["transferId"])["state"] == "done"
    answer = testbed.alice.http.post(
        f"/filesystem/{testbed.system}/transfer/download", json={"path": f"{testbed.alice.home}/flat.bin"}
    )
    assert set(answer.json()) == {"downloadUrl", "transferJob", "transferId"}
    testbed.wait(testbed.alice, answer.json()["transferId"], "staged")
    import httpx

    assert httpx.get(answer.json()["downloadUrl"]).content == content


def test_finish_completes_an_upload_whose_parts_are_all_there(testbed: Testbed) -> None:
    content = random_bytes(2 * PART)
    begun = testbed.begin_upload(testbed.alice, testbed.fresh(testbed.alice, "finished.bin"), len(content)).json()
    transfer_id = begun["transferId"]
    early = testbed.alice.http.post(f"/transfers/{transfer_id}/finish")
    assert (early.status_code, early.json()["code"]) == (409, "parts_missing")
    assert early.json()["data"]["missing"] == [1, 2]
    parts = testbed.alice.http.get(f"/transfers/{transfer_id}/parts").json()
    assert [(part["number"], part["offsetBytes"], part["sizeBytes"]) for part in parts["missing"]] == [
        (1, 0, PART),
        (2, PART, PART),
    ]
    fresh = {"transferDirectives": {"maxPartSize": PART, "partsUploadUrls": [part["url"] for part in parts["missing"]]}}
    testbed.put_parts(fresh, content)
    assert testbed.alice.http.get(f"/transfers/{transfer_id}/parts").json()["missing"] == []
    assert testbed.alice.http.post(f"/transfers/{transfer_id}/finish").status_code == 200
    assert testbed.wait(testbed.alice, transfer_id)["state"] == "done"
    assert (testbed.alice.home / "finished.bin").read_bytes() == content


def test_a_wrong_sha256_of_the_client_leaves_the_old_file(testbed: Testbed) -> None:
    target = testbed.fresh(testbed.alice, "digest.bin")
    assert testbed.upload(testbed.alice, target, b"old")["state"] == "done"
    content = random_bytes(1000)
    begun = testbed.begin_upload(testbed.alice, target, len(content), sha256=hashlib.sha256(b"other").hexdigest()).json()
    testbed.complete(begun, testbed.put_parts(begun, content))
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    assert (transfer["state"], transfer["code"]) == ("failed", "digest_mismatch")
    assert target.read_bytes() == b"old"
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)


def test_a_right_sha256_of_the_client_is_proved(testbed: Testbed) -> None:
    content = random_bytes(PART + 77)
    digest = hashlib.sha256(content).hexdigest()
    begun = testbed.begin_upload(testbed.alice, testbed.fresh(testbed.alice, "proved.bin"), len(content), sha256=digest).json()
    testbed.complete(begun, testbed.put_parts(begun, content))
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    assert transfer["state"] == "done"
    assert {"how": "sha256", "value": digest} in transfer["proved"]


def test_an_object_of_another_size_than_announced_fails_and_touches_nothing(testbed: Testbed) -> None:
    target = testbed.fresh(testbed.alice, "short.bin")
    begun = testbed.begin_upload(testbed.alice, target, 1000).json()
    testbed.complete(begun, testbed.put_parts(begun, b"x" * 999))
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    assert (transfer["state"], transfer["code"]) == ("failed", "size_mismatch")
    assert not target.exists()
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)
