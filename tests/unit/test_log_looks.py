"""The look through the logs of an end-to-end run finds what it is there for."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.logs import Logs

ENVIRONMENT = {"ALICE_TOKEN": "a-token-of-alice", "S3_SECRET_KEY": "very-secret-1", "ALICE_HOME": "/home/alice", "S3_KIND": "rgw"}


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("stagecoach-api.log", "x a-token-of-alice x", "stagecoach-api.log holds ALICE_TOKEN"),
        ("sshd.log", "very-secret-1", "sshd.log holds S3_SECRET_KEY"),
        ("stagecoach-worker.log", "GET /b/k?X-Amz-Signature=0a1b", "stagecoach-worker.log holds X-Amz-Signature="),
        ("radosgw.log", "GET /b/k?X-Amz-Signature=0a1b", None),
        ("stagecoach-api.log", "X-Amz-Signature=[hidden] of /home/alice at rgw", None),
    ],
)
def test_what_a_run_wrote_is_looked_through(tmp_path: Path, file: str, text: str, found: str | None) -> None:
    (tmp_path / file).write_text("before this run: a-token-of-alice\n")
    logs = Logs(tmp_path)
    assert logs.leaks(ENVIRONMENT) == []
    with (tmp_path / file).open("a") as log:
        log.write(f"{text}\n")
    assert logs.leaks(ENVIRONMENT) == ([found] if found else [])
    (tmp_path / "stagecoach-new.log").write_text("very-secret-1\n")
    assert "stagecoach-new.log holds S3_SECRET_KEY" in logs.leaks(ENVIRONMENT)
