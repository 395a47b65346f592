"""The staging job's script, run by a real bash: nothing of directory or environment is ever read by the shell."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from stagecoach.core.job_scripts import MOVER_FILE, job_script

# Stands in for the mover: tells what it was given.
MOVER = """
import json, os, sys
with open(os.environ["TOLD"], "w") as told:
    json.dump({"arguments": sys.argv[1:], "directory": os.getcwdb().hex(), "environment": {
        name.decode(): text.hex() for name, text in os.environb.items()}}, told)
"""
NAMES = [
    "plain",
    "two words",
    " lead and trail ",
    "it's",
    'say "hi"',
    "$(touch pwned)",
    "`touch pwned`",
    "a;touch pwned;",
    "a\nb",
    "end\n",
    "end\n\n",
    "-leading",
    "--",
    "é",
    "e\u0301",
    "用户",
    "\\",
    "a\\nb",
    "*",
    "~",
    "$HOME",
    "${x}",
    "%s",
    "end.",
    "..a",
    "\t",
    "#no comment",
    "!!",
]


def run(
    script: bytes, tmp_path: Path, environment: dict[str, str] | None = None
) -> tuple[subprocess.CompletedProcess[bytes], dict[str, object] | None]:
    told = tmp_path / "told.json"
    script_file = tmp_path / "job.sh"
    script_file.write_bytes(script)
    here = tmp_path / "here"
    here.mkdir(exist_ok=True)
    result = subprocess.run(
        ["bash", str(script_file)],
        cwd=here,
        env={"PATH": os.environ["PATH"], "TOLD": str(told), "LC_ALL": "C.UTF-8", **(environment or {})},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert not list(tmp_path.rglob("pwned")), "something was executed"
    assert list(here.iterdir()) == []
    return result, json.loads(told.read_text()) if told.exists() else None


def directory_with_mover(tmp_path: Path, name: str) -> Path:
    directory = tmp_path / "jobs" / name
    directory.mkdir(parents=True)
    (directory / MOVER_FILE).write_text(MOVER)
    return directory


@pytest.mark.parametrize("name", NAMES)
def test_the_mover_runs_in_a_directory_of_any_name(tmp_path: Path, name: str) -> None:
    directory = directory_with_mover(tmp_path, name)
    result, told = run(job_script("fetch", str(directory), "python3", {}), tmp_path)
    assert result.returncode == 0, result.stderr
    assert told is not None
    assert bytes.fromhex(str(told["directory"])) == os.fsencode(directory)
    assert told["arguments"] == ["fetch", "--ticket-url-file", "./ticket-url", "--state-directory", "."]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_a_directory_that_is_no_utf8_is_entered_too(tmp_path: Path, locale: str) -> None:
    name = b"caf\xe9\xff\xc3"
    directory = directory_with_mover(tmp_path, os.fsdecode(name))
    result, told = run(job_script("put", str(directory), "python3", {}), tmp_path, {"LC_ALL": locale})
    assert result.returncode == 0, result.stderr
    assert told is not None
    assert bytes.fromhex(str(told["directory"])).endswith(name)


@pytest.mark.parametrize("text", [*NAMES, "", "http://proxy:3128", "a=b", "x" * 20_000])
def test_an_environment_value_arrives_unchanged(tmp_path: Path, text: str) -> None:
    directory = directory_with_mover(tmp_path, "job")
    result, told = run(job_script("fetch", str(directory), "python3", {"https_proxy": text, "_B2": text}), tmp_path)
    assert result.returncode == 0, result.stderr
    assert told is not None
    environment = told["environment"]
    assert isinstance(environment, dict)
    assert bytes.fromhex(environment["https_proxy"]).decode() == text
    assert bytes.fromhex(environment["_B2"]).decode() == text


@pytest.mark.parametrize("name", ["directory", "decode", "python", "text", "CDPATH", "LC_ALL", "OLDPWD"])
def test_no_name_of_a_variable_disturbs_the_script(tmp_path: Path, name: str) -> None:
    directory = directory_with_mover(tmp_path, "two words")
    result, told = run(job_script("fetch", str(directory), "python3", {name: "/tmp", "B": "b"}), tmp_path)
    assert result.returncode == 0, result.stderr
    assert told is not None
    environment = told["environment"]
    assert isinstance(environment, dict)
    assert environment["B"] == b"b".hex()
    if name != "OLDPWD":
        assert environment[name] == b"/tmp".hex()
    assert bytes.fromhex(str(told["directory"])) == os.fsencode(directory)


def test_a_missing_python_is_said_in_words_with_exit_code_127(tmp_path: Path) -> None:
    directory = directory_with_mover(tmp_path, "job")
    result, told = run(job_script("fetch", str(directory), "/no/such/python3", {}), tmp_path)
    assert (result.returncode, told) == (127, None)
    assert b"no /no/such/python3 on node" in result.stderr
    assert b"systems.python" in result.stderr


def test_a_directory_that_is_gone_is_said_in_words(tmp_path: Path) -> None:
    result, told = run(job_script("fetch", str(tmp_path / "gone"), "python3", {}), tmp_path)
    assert (result.returncode, told) == (1, None)
    assert b"job directory is gone" in result.stderr


def test_the_movers_exit_code_is_the_jobs(tmp_path: Path) -> None:
    directory = directory_with_mover(tmp_path, "job")
    (directory / MOVER_FILE).write_text("raise SystemExit(75)")
    assert run(job_script("fetch", str(directory), "python3", {}), tmp_path)[0].returncode == 75


def test_the_script_shows_nothing_that_was_put_in() -> None:
    script = job_script("fetch", "/home/alice/secret place", "python3", {"TOKEN": "very-secret"}).decode()
    assert "secret" not in script.replace("systems.python", "")
    assert script.isascii()
    assert script.startswith("#!/bin/bash\n")
    assert not re.search(r"^#SBATCH", script, re.MULTILINE)


def test_another_kind_is_refused() -> None:
    with pytest.raises(ValueError):
        job_script("fetch; rm -rf /", "/home", "python3", {})
