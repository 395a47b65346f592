"""``stagecoach account``: how the first administrator of a service without an identity provider comes to be."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stagecoach.core.accounts import Account
from stagecoach.database.accounts import Accounts
from stagecoach.database.engine import open_engine
from stagecoach.operate import app

PASSWORD = "seven llamas read maps"


@pytest.fixture
def database(tmp_path: Path, database_template: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    shutil.copyfile(database_template, tmp_path / "stagecoach.db")
    url = f"sqlite+aiosqlite:///{tmp_path / 'stagecoach.db'}"
    monkeypatch.setenv("STAGECOACH_DATABASE__URL", url)
    monkeypatch.setenv("STAGECOACH_S3__ACCESS_KEY_ID", "key")
    monkeypatch.setenv("STAGECOACH_S3__SECRET_ACCESS_KEY", "secret")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    return url


def said(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["account", *arguments])


def stored(database: str, name: str) -> Account | None:
    async def read() -> Account | None:
        engine = open_engine(database)
        try:
            return await Accounts(engine).find(name)
        finally:
            await engine.dispose()

    return asyncio.run(read())


def test_an_operator_makes_changes_and_disables_an_account(database: str, tmp_path: Path) -> None:
    made = said("root-of-all", "--user", "alice", "--admin", "--password-file", str(tmp_path / "password"))
    assert made.exit_code == 0, made.output
    assert "acts as alice as an administrator" in made.output
    assert PASSWORD not in made.output
    account = stored(database, "root-of-all")
    assert account is not None
    assert (account.username, account.is_admin, account.is_disabled) == ("alice", True, False)
    assert account.password_hash.startswith("$argon2id$")
    assert said("root-of-all", "--disable").exit_code == 0
    account = stored(database, "root-of-all")
    assert account is not None
    assert (account.username, account.is_admin, account.is_disabled) == (None, False, True)
    lines = [json.loads(line) for line in CliRunner().invoke(app, ["audit-log"]).output.splitlines()]
    assert [(line["what"], line["target"], line["detail"]["user"], line["detail"]["admin"]) for line in lines] == [
        ("account.make", "root-of-all", "alice", True),
        ("account.change", "root-of-all", None, False),
    ]
    assert PASSWORD not in str(lines)


def test_an_account_that_is_not_there_is_not_made_without_a_password(database: str) -> None:
    refused = said("nobody", "--user", "alice")
    assert refused.exit_code == 1
    assert stored(database, "nobody") is None
