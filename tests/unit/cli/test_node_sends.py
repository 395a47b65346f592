"""Sends to stores on the command line: where the secret key comes from, what is asked, and how it is followed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.cli.conftest import Run
from tests.unit.client.fake_nodes import ARCHIVE, AT, CHECK, command
from tests.unit.client.fake_service import FakeService

SECRET = "very-secret-key"
TO = ("--endpoint", "https://s3.example.org:9000", "--access-key-id", "their-key")
WORDS = "The store\x1b[2J refuses the key."


def sent(state: str, done: int = 0, **more: Any) -> dict[str, Any]:
    progress = {"bytesDone": done, "bytesTotal": 1000}
    return command(state, kind="send_to_store", sourcePath="/run1", progress=progress, **more)


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def test_a_file_is_sent_and_followed_to_its_end(stagecoach: Run, service: FakeService) -> None:
    service.nodes.commands = [sent("running", 100), sent("running", 560), sent("done", 1000, endedAt=AT)]
    done = stagecoach("nodes", "send", "archive", "/run1/a.bin", "s3://lake/raw/", *TO)
    assert done.exit_code == 0, done.output
    assert SECRET not in done.output
    assert service.nodes.told is not None
    route, body = service.nodes.told
    assert route == f"POST /nodes/{ARCHIVE}/sends"
    assert body == {
        "sourcePath": "/run1/a.bin",
        "isDirectory": False,
        "endpoint": {"host": "s3.example.org", "port": 9000, "tls": True, "caPem": None, "certificateSha256": None},
        "bucket": "lake",
        "folder": "raw",
        "fileName": "a.bin",
        "rateLimitBytesPerSecond": None,
        "accessKeyId": "their-key",
        "secretAccessKey": SECRET,
    }
    assert f"{CHECK}  done" in done.stdout
    assert "560 B of 1000 B" in done.stderr


@pytest.mark.parametrize("way", ["stdin", "asked"])
def test_the_secret_is_read_and_a_directory_keeps_its_names(
    stagecoach: Run, service: FakeService, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    more = ("--secret-stdin",) if way == "stdin" else ()
    what = ("/run1", "s3://lake/deep/er", "-r", "--no-wait", "--json", "--rate-limit", "10M")
    asked = stagecoach("nodes", "send", "archive", *what, *TO, *more, input=f"{SECRET}\n")
    assert asked.exit_code == 0, asked.output
    assert SECRET not in asked.output
    assert json.loads(asked.stdout)["state"] == "pending"
    assert service.nodes.told is not None
    body = service.nodes.told[1]
    assert (body["secretAccessKey"], body["folder"], body["fileName"]) == (SECRET, "deep/er", None)
    assert (body["isDirectory"], body["rateLimitBytesPerSecond"]) == (True, 10 * 2**20)


@pytest.mark.parametrize(
    "wrong",
    [
        ("lake/x", *TO),
        ("s3://", *TO),
        ("s3://lake", "--endpoint", "s3.example.org", "--access-key-id", "k"),
        ("s3://lake", "--endpoint", "https://u@s3.example.org/x", "--access-key-id", "k"),
        ("s3://lake", *TO, "--rate-limit", "10"),
    ],
)
def test_wrong_usage_asks_nothing(stagecoach: Run, service: FakeService, wrong: tuple[str, ...]) -> None:
    refused = stagecoach("nodes", "send", "archive", "/run1", *wrong)
    assert refused.exit_code == 2, refused.output
    assert SECRET not in refused.output
    assert service.nodes.told is None


def test_sends_are_listed_and_a_failed_one_ends_with_1(stagecoach: Run, service: FakeService) -> None:
    service.nodes.commands = [command(), sent("failed", 10, message=WORDS)]
    listed = stagecoach("nodes", "sends", "archive", "--json")
    assert {each["kind"] for each in json.loads(listed.stdout)["commands"]} == {"send_to_store"}
    service.nodes.commands = [sent("failed", 10, endedAt=AT, message=WORDS)]
    watched = stagecoach("nodes", "watch", "archive", CHECK)
    assert watched.exit_code == 1
    assert "refuses the key." in watched.stdout
    assert "\x1b" not in watched.output
