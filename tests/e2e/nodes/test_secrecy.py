"""A node is its owner's: others do not even learn that it is there, and what it knows in secret stands nowhere in clear."""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from tests.e2e.logs import Logs
from tests.e2e.nodes.node import Node
from tests.e2e.testbed import Testbed

MIB = 1024 * 1024
ELSEWHERE = "0123456789abcdefghjkmnpqrs"  # has the form of an id, and is none


def shape(testbed: Testbed, node_id: str) -> list[tuple[int, str]]:
    """What bob is told of a node, whatever he asks; without the id itself."""
    http, system = testbed.bob.http, f"node:{node_id}"
    answers = [
        testbed.begin_upload(testbed.bob, "/x", 10, system),
        testbed.begin_download(testbed.bob, "/x", system),
        http.get(f"/nodes/{node_id}"),
        http.patch(f"/nodes/{node_id}", json={"name": "mine"}),
        http.delete(f"/nodes/{node_id}"),
        http.post(f"/nodes/{node_id}/enrolment"),
        http.get(f"/nodes/{node_id}/commands"),
        http.post(f"/nodes/{node_id}/commands", json={"kind": "check_network"}),
    ]
    seen = []
    for answer in answers:
        said = answer.json()
        said.pop("requestId", None)
        seen.append((answer.status_code, json.dumps(said, sort_keys=True).replace(node_id, "ID")))
    return seen


def test_a_node_of_somebody_else_is_as_one_that_does_not_exist(testbed: Testbed, alices: Node) -> None:
    seen = shape(testbed, alices.id)
    assert {status for status, _ in seen} == {404}
    assert seen == shape(testbed, ELSEWHERE)
    assert alices.id not in testbed.bob.http.get("/nodes").text
    assert testbed.alice.http.get(f"/nodes/{alices.id}").json()["state"] == "online"


def test_a_nodes_credential_opens_nothing_of_its_owners(testbed: Testbed, alices: Node) -> None:
    credential = json.loads((alices.state / "agent.json").read_text())["credential"]
    for path in ("/nodes", "/transfers", f"/nodes/{alices.id}", "/status/systems"):
        answer = testbed.store.get(testbed.url + path, headers={"Authorization": f"Bearer {credential}"})
        assert answer.status_code in {401, 403}, (path, answer.text)


class Watch:
    """All arguments of all processes, for as long as it runs."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes())
                except OSError:  # it has ended meanwhile
                    continue


def dump(url: str) -> bytes:
    """Every row of every table as text, with what it holds as bytes decoded."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        names = [row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        assert {"nodes", "node_commands"} <= set(names)
        rows = [
            row[0]
            for name in names
            for row in connection.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(name)))
        ]
    text = "\n".join(rows).encode()
    return text + b"\n".join(bytes.fromhex(found.decode()) for found in re.findall(rb"\\\\x((?:[0-9a-f]{2})+)", text))


@pytest.mark.parametrize("direction", ["to", "from"])
def test_no_secret_is_in_a_log_a_process_list_or_the_database(testbed: Testbed, bobs: Node, direction: str) -> None:
    log_directory = Path(testbed.environment["TESTBED_ROOT"], "log")
    logs = Logs(log_directory)
    content = os.urandom(20 * MIB)
    made = testbed.bob.http.post("/nodes", json={"name": f"secret-{direction}"})
    assert made.status_code == 201, made.text
    credential = json.loads((bobs.state / "agent.json").read_text())["credential"]
    with Watch() as watch:
        if direction == "to":
            begun = bobs.begin_upload("/secret.bin", len(content))
            signed = begun["transferDirectives"]["partsUploadUrls"][0]
            assert bobs.wait(bobs.put(begun, content))["state"] == "done"
        else:
            bobs.offer("secret.bin", content)
            begun = bobs.begin_download("/secret.bin")
            signed = begun["transferDirectives"]["downloadUrl"]
            assert bobs.fetch_staged(begun) == content
    assert testbed.bob.http.delete(f"/nodes/{made.json()['id']}").status_code == 204

    signature = re.search(r"X-Amz-Signature=([0-9a-f]+)", signed)
    assert signature is not None
    secrets = {
        "credential": credential,
        "enrolment token": made.json()["enrolmentToken"],
        "signature": signature[1],
        "store's key": testbed.environment["S3_SECRET_KEY"],
    }
    written = b"".join(path.read_bytes() for path in sorted(log_directory.glob("stagecoach-*.log")))
    places = {"log": written, "process list": b"\n".join(watch.seen), "database": dump(testbed.environment["DATABASE_URL"])}
    assert b"stagecoach_mover" in places["process list"]  # it was looked at while the mover ran
    found = [
        (what, where)
        for what, secret in secrets.items()
        for form in (secret.encode(), base64.b64encode(secret.encode()))
        for where, text in places.items()
        if form in text
    ]
    assert found == []
    assert b"X-Amz-Signature=" not in places["process list"]
    assert logs.leaks(testbed.environment) == []
