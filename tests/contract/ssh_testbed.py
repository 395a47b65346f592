"""The real cluster of the testbed (``.testbed/env``: sshd and Slurm), as the plugs' settings see it."""

from __future__ import annotations

import os
import pwd
import secrets
import shlex
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from stagecoach.clusters.ssh_pool import SshPool
from stagecoach.settings import SystemSettings

ENVIRONMENT_FILE = Path(os.environ.get("TESTBED_ENV") or Path(__file__).resolve().parents[2] / ".testbed" / "env")


def read_testbed() -> dict[str, str]:
    """The testbed's environment; without one the test is skipped, or fails where the testbed is required."""
    found: dict[str, str] = {}
    if ENVIRONMENT_FILE.exists():
        lines = ENVIRONMENT_FILE.read_text(encoding="utf-8").splitlines()
        found = dict(word.split("=", 1) for line in lines for word in shlex.split(line, comments=True) if "=" in word)
    if not found.get("SSH_PORT"):
        reason = "no cluster: start the testbed, whose .testbed/env must have SSH_PORT"
        if os.environ.get("STAGECOACH_REQUIRE_TESTBED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def system_settings(found: dict[str, str], *, ssh: dict[str, Any] | None = None, **more: Any) -> SystemSettings:
    """The testbed as a system; ``ssh`` and ``more`` replace parts."""
    ssh_section = {
        "host": found["SSH_HOST"],
        "port": int(found["SSH_PORT"]),
        "host_keys": [found["SSH_KNOWN_HOST_KEY"]],
        "credentials": {"key_file": found["SSH_KEYS_DIRECTORY"] + "/{user}"},
    }
    return SystemSettings.model_validate(
        {"name": "testbed", "file_systems": [{"path": "/home/{user}"}], "ssh": {**ssh_section, **(ssh or {})}, **more}
    )


@asynccontextmanager
async def open_pool(settings: SystemSettings) -> AsyncIterator[SshPool]:
    """A pool that is closed in the end."""
    assert settings.ssh is not None
    pool = SshPool(settings.name, settings.ssh)
    try:
        yield pool
    finally:
        await pool.aclose()


@contextmanager
def directory_of(user: str, home: str) -> Iterator[str]:
    """A fresh directory of the user's, removed in the end. The tests run where the cluster's disk is, as root."""
    path = os.path.join(os.path.realpath(home), f"contract {secrets.token_hex(6)}")
    os.mkdir(path, 0o700)
    account = pwd.getpwnam(user)
    os.chown(path, account.pw_uid, account.pw_gid)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
