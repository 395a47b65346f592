"""The program as ``pip install stagecoach`` gives it: no server library, both panels, a quick start."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT_SERVER = """
import sys
for name in ("fastapi", "starlette", "uvicorn", "pydantic_settings", "sqlalchemy", "alembic", "asyncssh", "aioboto3",
             "aiobotocore", "botocore", "aiosqlite", "yaml", "joserfc", "psycopg", "pwdlib", "argon2"):
    sys.modules[name] = None
from stagecoach.__main__ import main
main()
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_SERVER, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={"HOME": "/nonexistent", "COLUMNS": "120"})


def test_help_shows_what_moves_files_and_what_runs_the_service() -> None:
    shown = run("--help")
    assert shown.returncode == 0, shown.stderr
    first, _, second = shown.stdout.partition("Run the service")
    assert "Move files" in first
    for command in ("login", "cp", "ls", "transfers", "nodes", "invitations"):
        assert f" {command} " in first
    for command in ("serve", "work", "migrate", "check", "account", "openapi", "dev-token", "up"):
        assert f" {command} " in second


WITH_JSON = [["login"], ["cp"], ["ls"], *(["transfers", verb] for verb in ("list", "show", "resume")), ["agent", "enrol"]]
WITH_JSON += [["nodes", verb] for verb in ("list", "register", "show", "rename", "revoke", "commands", "check", "invite")]
WITH_JSON += [*(["nodes", "grants", verb] for verb in ("list", "add", "revoke")), ["invitations", "redeem"]]


@pytest.mark.parametrize("command", [*WITH_JSON, ["agent", "status"]])
def test_every_command_has_its_help(command: list[str]) -> None:
    shown = run(*command, "--help")
    assert shown.returncode == 0, shown.stderr
    assert "--json" in shown.stdout
    assert "Exit codes" in shown.stdout


def test_the_light_verbs_run_and_the_others_say_what_they_need() -> None:
    assert run("transfers", "list").returncode == 3
    assert run("agent", "status", "--state", "/nonexistent").returncode == 3
    served = run("openapi")
    assert served.returncode == 1
    assert "stagecoach[" in served.stderr
