"""``stagecoach convert-firecrest-config``: settings to standard output or a new file, the report to the error stream."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.unit.firecrest_settings.configurations import NEWEST
from typer.testing import CliRunner, Result

from stagecoach.operate import app


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "firecrest.yaml"
    path.write_text(NEWEST)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["convert-firecrest-config", *map(str, arguments)])


def test_settings_go_to_standard_output_and_the_report_beside_it(theirs: Path) -> None:
    result = run(theirs, "--secrets-directory", "/somewhere")
    assert result.exit_code == 0
    document = yaml.safe_load(result.stdout)
    assert document["systems"][0]["name"] == "eiger"
    assert document["s3"]["access_key_id"] == "secret_file:/somewhere/s3-access-key-id"
    assert "not carried over: clusters[0].service_account: " in result.stderr
    assert result.stderr.splitlines()[-1].endswith("places say CHECK.")
    assert "very-secret" not in result.output


def test_a_file_is_written_and_never_replaced_unasked(theirs: Path, tmp_path: Path) -> None:
    made = tmp_path / "stagecoach.yaml"
    assert run(theirs, "-o", made).exit_code == 0
    assert yaml.safe_load(made.read_text())["systems"]
    made.write_text("mine")
    refused = run(theirs, "-o", made)
    assert refused.exit_code == 2
    assert "--force replaces it" in refused.stderr
    assert made.read_text() == "mine"
    assert run(theirs, "-o", made, "--force").exit_code == 0
    assert yaml.safe_load(made.read_text())["systems"]


def test_what_is_read_is_never_written_over(theirs: Path) -> None:
    assert run(theirs, "-o", theirs, "--force").exit_code == 2
    assert theirs.read_text() == NEWEST


@pytest.mark.parametrize("content", [b"clusters: [", b"\xff\xfe", b"", b"a: 1"])
def test_nothing_is_written_of_a_file_that_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_bytes(content)
    result = run(tmp_path / "theirs.yaml", "-o", tmp_path / "made.yaml")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "made.yaml").exists()


def test_a_missing_file_is_wrong_usage(tmp_path: Path) -> None:
    assert run(tmp_path / "none.yaml").exit_code == 2
