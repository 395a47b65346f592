"""Others send to a node as far as its owner lets them, and not one byte further; what they send is the owner's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from tests.e2e.nodes.node import Node
from tests.e2e.testbed import Person, Testbed, wait_until

MIB = 1024 * 1024
FOLDER = "from others"


@pytest.fixture
def granting(bobs: Node) -> Iterator[Node]:
    """Bob's node; in the end nobody else may send to it."""
    folder = bobs.receive / FOLDER
    folder.mkdir(exist_ok=True)
    os.chown(folder, bobs.owner.uid, bobs.owner.uid)
    yield bobs
    for grant in bobs.owner.http.get(f"/nodes/{bobs.id}/grants").json()["grants"]:
        revoke(bobs, grant)
    shutil.rmtree(folder)


def grant(node: Node, user: str, **terms: Any) -> dict[str, Any]:
    answer = node.owner.http.post(f"/nodes/{node.id}/grants", json={"user": user, "folder": f"/{FOLDER}", **terms})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def revoke(node: Node, made: dict[str, Any]) -> None:
    assert node.owner.http.delete(f"/nodes/{node.id}/grants/{made['id']}").status_code == 204


def begin(testbed: Testbed, node: Node, sender: Person, path: str, size: int) -> httpx.Response:
    return testbed.begin_upload(sender, path, size, node.system)


def arrives(testbed: Testbed, node: Node, sender: Person, name: str, content: bytes) -> None:
    """Sent by whoever may, it is the node's owner's."""
    begun = begin(testbed, node, sender, f"/{FOLDER}/{name}", len(content))
    assert begun.status_code == 201, begun.text
    testbed.complete(begun.json(), testbed.put_parts(begun.json(), content))
    transfer = testbed.wait(sender, begun.json()["transferId"], seconds=180)
    assert transfer["state"] == "done", transfer
    target = node.receive / FOLDER / name
    assert target.read_bytes() == content
    assert target.stat().st_uid == node.owner.uid


def test_who_was_granted_it_sends_within_the_folder_and_the_bytes_until_it_is_revoked(testbed: Testbed, granting: Node) -> None:
    alice = testbed.alice
    assert begin(testbed, granting, alice, f"/{FOLDER}/x", 10).status_code == 404
    made = grant(granting, "alice", maxBytes=2 * MIB)
    arrives(testbed, granting, alice, "first.bin", os.urandom(MIB))
    for path in ("/x", f"/{FOLDER}/../x", f"/{FOLDER}x/y"):
        assert 400 <= begin(testbed, granting, alice, path, 10).status_code < 500, path
    too_large = begin(testbed, granting, alice, f"/{FOLDER}/x", MIB + 1)
    assert (too_large.status_code, too_large.json()["code"]) == (409, "grant_exceeded")
    assert testbed.begin_download(alice, f"/{FOLDER}/first.bin", granting.system).status_code == 404
    revoke(granting, made)
    assert begin(testbed, granting, alice, f"/{FOLDER}/x", 10).status_code == 404
    assert sorted(os.listdir(granting.receive / FOLDER)) == ["first.bin"]


def test_a_grant_that_has_expired_is_none(testbed: Testbed, granting: Node) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=3)
    grant(granting, "alice", expiresAt=ends.isoformat())
    wait_until(lambda: begin(testbed, granting, testbed.alice, f"/{FOLDER}/x", 10).status_code == 404, 30, "it expires")
    assert datetime.now(UTC) >= ends


def test_an_invitation_is_redeemed_once(testbed: Testbed, granting: Node) -> None:
    terms = {"folder": f"/{FOLDER}", "label": "the beamline"}
    invited = granting.owner.http.post(f"/nodes/{granting.id}/invitations", json=terms)
    assert invited.status_code == 201, invited.text
    token = invited.json()["token"]
    redeemed = testbed.alice.http.post("/invitations/redeem", json={"token": token})
    assert redeemed.is_success, redeemed.text
    assert testbed.alice.http.post("/invitations/redeem", json={"token": token}).status_code == 404
    assert token not in granting.owner.http.get(f"/nodes/{granting.id}/grants").text
    arrives(testbed, granting, testbed.alice, "invited.bin", os.urandom(MIB))
