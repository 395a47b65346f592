"""``send_to_store``: into a real S3 store that the node's owner has typed in, with TLS of its own or without any."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.node_service import QueuedCommand
from tests.integration.agent.direct_nodes import HOST, DirectNode, ended, free_port, soon

from stagecoach.agent.rclone_program import find_rclone
from stagecoach.agent.receiver_certificate import ReceiverCertificate, receiver_certificate

KEY = {"accessKeyId": "STOREKEY", "secretAccessKey": "a secret of the store's"}


@dataclass
class Store:
    """One bucket, ``data``, of plain files."""

    port: int
    files: Path
    certificate: ReceiverCertificate | None


@pytest.fixture(params=["plain", "TLS"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    port, folder, certificate = free_port(), tmp_path / "store", None
    (folder / "data").mkdir(parents=True)
    command = [find_rclone(), "serve", "s3", "--addr", f"{HOST}:{port}", "--dir-cache-time", "1s", str(folder)]
    if request.param == "TLS":
        (tmp_path / "tls").mkdir()
        certificate = receiver_certificate(tmp_path / "tls", [HOST], now=datetime.now(UTC))
        command += ["--cert", str(certificate.certificate_file), "--key", str(certificate.key_file)]
    key = f'"{KEY["accessKeyId"]},{KEY["secretAccessKey"]}"'
    environment = {**os.environ, "RCLONE_AUTH_KEY": key, "RCLONE_CONFIG": os.devnull}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stderr is not None
        while "Starting s3 server" not in serving.stderr.readline():
            assert serving.poll() is None
        yield Store(port, folder / "data", certificate)
        serving.terminate()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[DirectNode]:
    node = DirectNode(tmp_path / "node", receives=False)
    async with node.running():
        yield node


def ask(node: DirectNode, store: Store, name: str, source: str, **more: Any) -> QueuedCommand:
    tls: dict[str, Any] = {"tls": False}
    if store.certificate is not None:
        tls = {"certificateSha256": store.certificate.sha256}
        if more.pop("by_authority", False):
            tls = {"caPem": store.certificate.certificate_file.read_text()}
    endpoint = {"host": HOST, "port": store.port, **tls, **more.pop("endpoint", {})}
    spec = {"sourcePath": source, "isDirectory": False, "endpoint": endpoint, "bucket": "data", **more}
    return node.service.queue(name, kind="send_to_store", spec=spec, secret=more.pop("secret", KEY))


async def test_a_file_and_a_directory_go_to_a_store(node: DirectNode, store: Store) -> None:
    (node.send / "data.bin").write_bytes(os.urandom(20 * 2**20))
    (node.send / "tree" / "sub").mkdir(parents=True)
    for number in range(20):
        (node.send / "tree" / "sub" / str(number)).write_bytes(os.urandom(1000))
    result = await ended(ask(node, store, "c1", "/data.bin", folder="/run 1/"))
    assert (result["verified"], result["comparedFiles"]) == (True, 1)
    assert (store.files / "run 1" / "data.bin").read_bytes() == (node.send / "data.bin").read_bytes()
    result = await ended(ask(node, store, "c2", "/tree", isDirectory=True, folder="tree"))
    assert (result["verified"], result["comparedFiles"]) == (True, 20)
    assert len(list((store.files / "tree" / "sub").iterdir())) == 20
    result = await ended(ask(node, store, "c3", "/data.bin", fileName="another.bin"))
    assert not result["verified"]
    assert "not compared" in result["notices"][-1]
    assert (store.files / "another.bin").read_bytes() == (node.send / "data.bin").read_bytes()
    assert list(store.files.glob(".stagecoach*")) == []


async def test_a_store_with_an_authority_of_its_own_is_believed_by_that(node: DirectNode, store: Store) -> None:
    if store.certificate is None:
        pytest.skip("it has no certificate")
    (node.send / "data.bin").write_bytes(b"bytes")
    await ended(ask(node, store, "c1", "/data.bin", by_authority=True))
    assert (store.files / "data.bin").read_bytes() == b"bytes"


async def test_a_wrong_address_key_or_certificate_is_said_and_nothing_is_sent(node: DirectNode, store: Store) -> None:
    (node.send / "data.bin").write_bytes(b"bytes")
    wrong = {**KEY, "secretAccessKey": "another secret entirely"}
    commands = [
        ask(node, store, "c1", "/data.bin", endpoint={"port": free_port()}),
        node.service.queue("c2", kind="send_to_store", spec=ask(node, store, "x2", "/data.bin").spec, secret=wrong),
    ]
    if store.certificate is not None:
        commands.append(ask(node, store, "c3", "/data.bin", endpoint={"certificateSha256": "0" * 64}))
    await ended(node.service.commands["x2"])
    (store.files / "data.bin").unlink()
    for command in commands:
        await soon(lambda command=command: command.ends, 60)
        assert command.ending.code == "receiver_unreachable"
        assert wrong["secretAccessKey"] not in command.ending.model_dump_json()
    assert list(store.files.iterdir()) == []
