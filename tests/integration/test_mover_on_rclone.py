"""The mover against a real store: `rclone serve s3`, through URLs that botocore signed."""

from __future__ import annotations

import base64
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from stagecoach.mover.stagecoach_mover import Clock, fetch, put

KEY_ID, SECRET = "testtesttest", "secretsecretsecret"
PART = 5 * 1024 * 1024


def rclone() -> str | None:
    beside = Path(sys.executable).with_name("rclone")
    return str(beside) if beside.exists() else shutil.which("rclone")


pytestmark = pytest.mark.skipif(rclone() is None, reason="rclone is not installed")


class Store:
    """A bucket of a running store, and tickets for it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, proxies={}),
        )

    def sign(self, operation: str, key: str, expires: int = 600, **more: Any) -> str:
        url: str = self.client.generate_presigned_url(
            operation, Params={"Bucket": "bucket", "Key": key, **more}, ExpiresIn=expires
        )
        return url

    def ticket(self, kind: str, key: str, path: bytes, size: int, expires: int = 600) -> dict[str, Any]:
        ticket: dict[str, Any] = {
            "version": 1,
            "transfer_id": "t1",
            "kind": kind,
            "path_base64": base64.b64encode(path).decode(),
            "size_bytes": size,
            "part_size_bytes": PART,
            "progress_url": self.sign("put_object", "progress"),
            "receipt_url": self.sign("put_object", "receipt"),
        }
        head_url = self.sign("head_object", key, expires)
        if kind == "fetch":
            ticket["object"] = {"get_url": self.sign("get_object", key, expires), "head_url": head_url, "etag": None}
            return ticket
        upload = self.client.create_multipart_upload(Bucket="bucket", Key=key)["UploadId"]
        count = max(1, -(-size // PART))
        ticket["upload"] = {
            "part_urls": [self.sign("upload_part", key, UploadId=upload, PartNumber=n + 1) for n in range(count)],
            "complete_url": self.sign("complete_multipart_upload", key, UploadId=upload),
            "head_url": head_url,
        }
        return ticket


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("store")
    (folder / "bucket").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = rclone()
    assert program is not None
    process = subprocess.Popen(
        [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--dir-cache-time", "0s", str(folder)],
        env={**os.environ, "RCLONE_AUTH_KEY": f'"{KEY_ID},{SECRET}"', "RCLONE_CONFIG": "/dev/null"},
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield Store(folder, port)
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 6 * PART + 7])
def test_a_round_trip_gives_back_every_byte(store: Store, tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    receipt = put(store.ticket("put", f"round{size}", os.fsencode(source), size))
    assert receipt["ok"], receipt
    assert {"size", "part_md5", "multipart_etag"} <= {proof["how"] for proof in receipt["proved"]}
    assert (store.folder / "bucket" / f"round{size}").read_bytes() == data
    receipt = fetch(store.ticket("fetch", f"round{size}", os.fsencode(target), size))
    assert receipt["ok"], receipt
    assert {"size", "md5"} == {proof["how"] for proof in receipt["proved"]}
    assert target.read_bytes() == data
    assert (store.folder / "bucket" / "receipt").exists()


def test_an_upload_that_is_complete_already_is_recognised_by_its_object(store: Store, tmp_path: Path) -> None:
    source, state = tmp_path / "source", str(tmp_path / "state")
    source.write_bytes(random.Random(1).randbytes(2 * PART))
    ticket = store.ticket("put", "twice", os.fsencode(source), 2 * PART)
    blind = {**ticket, "upload": {**ticket["upload"], "head_url": store.sign("head_object", "absent")}}
    assert put(blind, state)["code"] == "store_refused"
    receipt = put(ticket, state)
    assert receipt["ok"], receipt
    assert receipt["bytes_moved"] == 0
    assert {"size", "part_md5", "md5"} == {proof["how"] for proof in receipt["proved"]}


def test_expired_urls_are_replaced_by_a_new_ticket(store: Store, tmp_path: Path) -> None:
    data = random.Random(2).randbytes(3 * PART)
    (store.folder / "bucket" / "late").write_bytes(data)
    path = os.fsencode(tmp_path / "target")
    old = store.ticket("fetch", "late", path, len(data), expires=1)
    time.sleep(2.1)
    assert fetch(old)["code"] == "ticket_expired"
    receipt = fetch(old, reload_ticket=lambda: store.ticket("fetch", "late", path, len(data)))
    assert receipt["ok"], receipt
    assert (tmp_path / "target").read_bytes() == data


def test_an_absent_object_is_named_as_such(store: Store, tmp_path: Path) -> None:
    receipt = fetch(store.ticket("fetch", "absent", os.fsencode(tmp_path / "target"), 3))
    assert receipt["code"] == "object_missing"


def test_a_stopped_fetch_continues(store: Store, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(8 * PART)
    (store.folder / "bucket" / "long").write_bytes(data)
    ticket = store.ticket("fetch", "long", os.fsencode(tmp_path / "target"), len(data))
    stop = threading.Event()

    class StopsWhenPartsArrive(Clock):
        """Time is asked for when a journal may be due, so this is a moment in the middle."""

        def monotonic(self) -> float:
            if (tmp_path / ".stagecoach-t1.part").exists():
                stop.set()
            return super().monotonic()

    first = fetch(ticket, str(tmp_path / "state"), stop=stop, clock=StopsWhenPartsArrive())
    assert first["code"] == "interrupted", first
    second = fetch(ticket, str(tmp_path / "state"))
    assert second["ok"], second
    assert second["bytes_moved"] + second["bytes_resumed"] == len(data)
    assert (tmp_path / "target").read_bytes() == data
