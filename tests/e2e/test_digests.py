"""What a client says of its bytes is compared: at the store when the upload is completed, and on the cluster."""

from __future__ import annotations

import hashlib
import os
import zlib
from typing import Any

import httpx
from tests.e2e.testbed import Testbed

PART = 8 * 1024 * 1024


def part_md5s(content: bytes) -> dict[str, Any]:
    parts = [content[start : start + PART] for start in range(0, len(content), PART)] or [b""]
    return {"partDigests": {"algorithm": "md5", "values": [hashlib.md5(part).hexdigest() for part in parts]}}


def test_a_part_that_is_not_what_the_client_says_is_named_and_can_be_put_again(testbed: Testbed) -> None:
    content = os.urandom(2 * PART + 5)
    target = testbed.fresh(testbed.alice, "digests-differ.bin")
    digests = {"sha256": hashlib.sha256(content).hexdigest(), "crc32": f"{zlib.crc32(content):08x}"}
    begun = testbed.begin_upload(testbed.alice, target, len(content), **digests).json()
    testbed.put_parts(begun, content[:PART] + b"x" * PART + content[2 * PART :])
    finish = f"/transfers/{begun['transferId']}/finish"
    answer = testbed.alice.http.post(finish, json=part_md5s(content))
    assert (answer.status_code, answer.json()["code"]) == (409, "parts_differ"), answer.text
    assert answer.json()["data"] == {"differing": [2], "differing_count": 1}
    assert testbed.show(testbed.alice, begun["transferId"])["state"] == "receiving"
    if testbed.environment["S3_KIND"] == "rclone":  # it takes no part twice (501), so this upload can only be given up
        cancelled = testbed.alice.http.delete(f"/transfers/{begun['transferId']}").json()
        testbed.wait_until_nothing_is_left(testbed.alice, cancelled)
        return
    again = httpx.put(begun["transferDirectives"]["partsUploadUrls"][1], content=content[PART : 2 * PART], timeout=60)
    assert again.status_code == 200
    assert testbed.alice.http.post(finish, json=part_md5s(content)).json()["state"] == "staged"
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    assert transfer["state"] == "done", transfer
    assert target.read_bytes() == content
    assert {"how": "sha256", "value": digests["sha256"]} in transfer["proved"]
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)


def test_all_that_the_client_says_is_true(testbed: Testbed) -> None:
    content = os.urandom(PART + 5)
    target = testbed.fresh(testbed.alice, "digests-true.bin")
    digests = {"sha256": hashlib.sha256(content).hexdigest(), "crc32": f"{zlib.crc32(content):08x}"}
    begun = testbed.begin_upload(testbed.alice, target, len(content), **part_md5s(content)).json()
    testbed.put_parts(begun, content)
    for _ in range(2):  # the answer may be lost
        answer = testbed.alice.http.post(f"/transfers/{begun['transferId']}/finish", json={**digests, **part_md5s(content)})
        assert answer.status_code == 200, answer.text
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    assert transfer["state"] == "done", transfer
    assert target.read_bytes() == content
    assert {"how": "sha256", "value": digests["sha256"]} in transfer["proved"]
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)


def test_an_empty_file_has_the_digest_of_an_empty_part(testbed: Testbed) -> None:
    target = testbed.fresh(testbed.alice, "digests-empty.bin")
    begun = testbed.begin_upload(testbed.alice, target, 0, crc32="00000000", **part_md5s(b"")).json()
    testbed.put_parts(begun, b"")
    answer = testbed.alice.http.post(f"/transfers/{begun['transferId']}/finish")
    assert answer.json()["state"] == "staged", answer.text
    transfer = testbed.wait(testbed.alice, begun["transferId"])
    assert (transfer["state"], target.read_bytes()) == ("done", b"")
    testbed.wait_until_nothing_is_left(testbed.alice, transfer)


def test_digests_that_cannot_be_are_refused(testbed: Testbed) -> None:
    target = testbed.fresh(testbed.alice, "digests-refused.bin")
    for said, code in (
        (part_md5s(bytes(PART + 1)), "digest_refused"),
        ({"crc32": "123"}, "validation_error"),
        ({"partDigests": {"algorithm": "sha512", "values": ["0" * 128]}}, "validation_error"),
    ):
        answer = testbed.begin_upload(testbed.alice, target, 10, **said)
        assert (answer.status_code, answer.json()["code"]) == (400, code), answer.text
