"""The staging job's script, run by a real bash: nothing of directory or environment is ever read by the shell."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
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
    assert result.stderr.startswith(b"stagecoach: no /no/such/python3 of version 3.6 or newer on node ")
    assert b"systems.python" in result.stderr


def test_a_python_that_is_too_old_is_said_in_words_too(tmp_path: Path) -> None:
    directory, old = directory_with_mover(tmp_path, "job"), tmp_path / "python2"
    old.write_text(f"#!/bin/bash\n{sys.executable} -c 'import sys; sys.version_info = (2, 7); exec(sys.argv[1])' \"$2\"\n")
    old.chmod(0o700)
    result, told = run(job_script("fetch", str(directory), str(old), {}), tmp_path)
    assert (result.returncode, told) == (127, None)
    assert b"of version 3.6 or newer on node" in result.stderr


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


# Stands in for srun: starts the command in so many tasks, one after the other, and tells how it was called.
SRUN = """#!/bin/bash
printf '%s\\0' "$0" "$@" >"$SRUN_TOLD"
count=${1#--ntasks=}
while [ "${1#--}" != "$1" ]; do shift; done
for ((k = 0; k < count; k++)); do
  (cd / && SLURM_PROCID=$k SLURM_NTASKS=$count TOLD="$TOLD.$k" "$@") || exit
done
"""


def run_with_srun(
    tmp_path: Path, job: str, srun: str, environment: dict[str, str]
) -> tuple[subprocess.CompletedProcess[bytes], list[str]]:
    """A job of three tasks; gives what srun was called with, [] when it never was."""
    directory = directory_with_mover(tmp_path, job)
    script = job_script("fetch", str(directory), "python3", {"B": "b"}, several_tasks=True, srun=srun)
    (directory / "job.sh").write_bytes(script)
    told = tmp_path / "srun-told"
    result, _ = run(script, tmp_path, {"SRUN_TOLD": str(told), "SLURM_JOB_ID": "77", **environment})
    return result, told.read_bytes().decode().split("\0")[:-1] if told.exists() else []


def srun_in(directory: Path) -> str:
    directory.mkdir()
    (directory / "srun").write_text(SRUN)
    (directory / "srun").chmod(0o755)
    return str(directory / "srun")


@pytest.mark.parametrize("name", NAMES)
def test_each_task_enters_the_directory_and_runs_the_mover_with_its_number(tmp_path: Path, name: str) -> None:
    srun = srun_in(tmp_path / "$(touch pwned) bin")
    result, called = run_with_srun(tmp_path, name, srun, {"SLURM_NTASKS": "3", "SLURM_RESTART_COUNT": "2"})
    assert result.returncode == 0, result.stderr
    assert called[:2] == [srun, "--ntasks=3"]
    assert {"--kill-on-bad-exit=1", "--wait=0", "--export=ALL"} < set(called)
    runs = set()
    for task in range(3):
        told = json.loads((tmp_path / f"told.json.{task}").read_text())
        assert bytes.fromhex(told["directory"]) == os.fsencode(tmp_path / "jobs" / name)
        assert bytes.fromhex(told["environment"]["B"]) == b"b"
        *words, run_word = told["arguments"]
        assert words[-5:] == ["--task", str(task), "--tasks", "3", "--run"]
        assert re.fullmatch(r"77\.2\.[0-9]+\.[0-9]+", run_word)
        runs.add(run_word)
    assert len(runs) == 1


def test_srun_is_found_on_the_path_when_it_is_not_where_the_login_node_has_it(tmp_path: Path) -> None:
    srun_in(tmp_path / "bin")
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    result, called = run_with_srun(tmp_path, "job", "/no/such/srun", {"SLURM_NTASKS": "3", "PATH": path})
    assert (result.returncode, called[1]) == (0, "--ntasks=3")


@pytest.mark.parametrize("environment", [{}, {"SLURM_NTASKS": "1"}, {"SLURM_NTASKS": "3"}])
def test_one_task_does_all_where_there_are_no_more_or_no_srun(tmp_path: Path, environment: dict[str, str]) -> None:
    srun = "/no/such/srun" if environment.get("SLURM_NTASKS") == "3" else srun_in(tmp_path / "bin")
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "python3").symlink_to(sys.executable)
    for name in ("bash", "base64", "hostname"):  # this machine may have an srun of its own
        (tmp_path / "path" / name).symlink_to(shutil.which(name) or name)
    result, called = run_with_srun(tmp_path, "job", srun, {"PATH": str(tmp_path / "path"), **environment})
    assert (result.returncode, called) == (0, [])
    assert (b"no srun on node" in result.stderr) == (srun == "/no/such/srun")
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["arguments"] == ["fetch", "--ticket-url-file", "./ticket-url", "--state-directory", "."]


def test_another_kind_is_refused() -> None:
    with pytest.raises(ValueError):
        job_script("fetch; rm -rf /", "/home", "python3", {})
