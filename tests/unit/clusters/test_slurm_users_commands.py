"""Command lines for users' own jobs: what users write stays data."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from stagecoach.clusters import slurm_users_commands as commands
from stagecoach.core.errors import InvalidRequest
from stagecoach.ports.compute import JobDescription

SCRIPT = "#!/bin/sh\n"
PRINTS = '#!/bin/sh\nenv -0 > environment\nprintf "%s\\0" "$@" > arguments\ncat > input\n'


def from_sh(argv: list[str]) -> list[str]:
    """Without what takes variables out of the environment before."""
    return argv[argv.index("sh") :]


def run_in(directory: Path, argv: list[str], **programs: str) -> subprocess.CompletedProcess[bytes]:
    """``argv`` with programs of the test's own on the PATH."""
    for name, text in programs.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    path = {"PATH": f"{directory}:/usr/bin:/bin", "HOME": "/nowhere"}
    return subprocess.run(argv, cwd=directory, env=path, input=b"the script", capture_output=True, timeout=60, check=False)


def test_variables_and_options_arrive_as_they_are(tmp_path: Path) -> None:
    odd = 'it\'s "a" $(touch pwned) `id` \\ é\nsecond line\n'
    job = JobDescription(
        directory=f"/home/{odd}",
        script=SCRIPT,
        name="--wrap=id",
        account="proj",
        output_path=odd,
        environment={"PATH": "/of/the/job", "ODD": odd, "EMPTY": "", "n": "-n", "LD_LIBRARY_PATH": "/x", "EQUALS": "a=b=c"},
    )
    done = run_in(tmp_path, commands.sbatch(None, job), sbatch="#!/bin/sh\nPATH=/usr/bin:/bin\n" + PRINTS.split("\n", 1)[1])
    assert (done.returncode, done.stderr) == (0, b"")
    given = (tmp_path / "environment").read_text().split("\0")
    for name in ("ODD", "EMPTY", "n", "LD_LIBRARY_PATH", "EQUALS"):
        assert f"{name}={job.environment[name]}" in given
    arguments = (tmp_path / "arguments").read_text().split("\0")[:-1]
    assert arguments == [
        "--export=ALL",
        "--parsable",
        f"--chdir={job.directory}",
        "--job-name=--wrap=id",
        "--account=proj",
        f"--output={odd}",
    ]
    assert (tmp_path / "input").read_bytes() == b"the script"
    assert not (tmp_path / "pwned").exists()


# Names that a shell uses itself, refuses or would take for its own.
SHELLS = {"program": "/usr/bin/touch", "OPTIND": "abc", "UID": "7", "PPID": "7", "IFS": "/", "0": "x", "a-b": "dash", "_": "u"}


@pytest.mark.parametrize("name", SHELLS)
def test_a_variable_may_have_a_name_that_means_something_to_a_shell(tmp_path: Path, name: str) -> None:
    sbatch = f"#!{sys.executable} -I\nimport os\nprint(repr(os.environ.get({name!r})))\n"
    job = JobDescription("/d", script=SCRIPT, environment={name: SHELLS[name], "LAST": "1"})
    done = run_in(tmp_path, commands.sbatch(None, job), sbatch=sbatch)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{SHELLS[name]!r}\n", b"")


def test_nothing_but_the_jobs_variables_is_added_to_the_environment(tmp_path: Path) -> None:
    job = JobDescription("/d", script=SCRIPT, environment={"A": "1"})
    done = run_in(tmp_path, commands.sbatch(None, job), sbatch=f"#!{sys.executable} -I\nimport os\nprint(sorted(os.environ))\n")
    assert set(ast.literal_eval(done.stdout.decode())) - {"LC_CTYPE", "_", "PWD"} == {"A", "HOME", "PATH"}


def test_without_variables_a_scripts_own_export_is_heeded() -> None:
    assert not [word for word in commands.sbatch(None, JobDescription("/d", script=SCRIPT)) if word.startswith("--export")]


def test_the_jobs_path_does_not_hide_sbatch_and_reaches_it(tmp_path: Path) -> None:
    job = JobDescription("/d", script=SCRIPT, environment={"PATH": "/of/the/job"})
    done = run_in(tmp_path, commands.sbatch(None, job), sbatch='#!/bin/sh\necho "$PATH"\n')
    assert (done.returncode, done.stdout) == (0, b"/of/the/job\n")


def test_no_sbatch_is_what_shells_say_of_it(tmp_path: Path) -> None:
    assert run_in(tmp_path, commands.sbatch("/opt/none", JobDescription("/d", script=SCRIPT))).returncode == 127


def test_a_script_on_the_system_is_named_last() -> None:
    argv = commands.sbatch("/opt/slurm/bin", JobDescription("/d", script_path="/d/a b.sh"))
    assert argv[argv.index("--") - 1] == "/d/a b.sh"
    assert "/opt/slurm/bin/sbatch" in argv


@pytest.mark.parametrize("account", ["x; touch pwned", "$(id)", "a b", "--wrap=id", "a" * 65, "é"])
def test_a_hostile_account_is_refused(account: str) -> None:
    with pytest.raises(InvalidRequest, match="account"):
        commands.sbatch(None, JobDescription("/d", script=SCRIPT, account=account))


@pytest.mark.parametrize("name", ["SBATCH_WAIT", "SLURM_CONF"])
def test_the_schedulers_own_variables_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match=name):
        commands.sbatch(None, JobDescription("/d", script=SCRIPT, environment={name: "1"}))


def test_more_than_a_command_holds_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="too long"):
        commands.sbatch(None, JobDescription("/d", script=SCRIPT, environment={"A": "é" * 60_000}))


@pytest.mark.parametrize("job_id", ["", "1,2", "1_1", "-1", "x", "1;id"])
def test_only_one_job_is_ever_named(job_id: str) -> None:
    for build in (
        lambda: commands.scancel(None, job_id),
        lambda: commands.srun(None, job_id, "true", "/d"),
        lambda: commands.scontrol_write_script(None, job_id),
        lambda: commands.sacct_script(None, job_id),
    ):
        with pytest.raises(InvalidRequest):
            build()


# Takes its own options away and runs the rest, as a step would.
SRUN = '#!/bin/sh\nprintf "%s\\0" "$@" > arguments\nwhile [ "$1" != sh ]; do shift; done\nexec "$@"\n'


def test_an_attached_command_that_ends_tells_how(tmp_path: Path) -> None:
    done = run_in(tmp_path, commands.srun(None, "7", "echo 'a b' > x; echo lost; echo why >&2; exit 3", "/d"), srun=SRUN)
    assert (done.stdout, done.stderr) == (b"stagecoach: begun 3\n", b"why\n")
    assert (tmp_path / "arguments").read_text().split("\0")[0] == "--jobid=7"
    assert (tmp_path / "x").read_text() == "a b\n"


def test_a_step_that_does_not_begin_says_so_itself(tmp_path: Path) -> None:
    srun = "#!/bin/sh\necho 'srun: error: no' >&2\nexit 1\n"
    done = run_in(tmp_path, commands.srun(None, "7", "true", "/d"), srun=srun)
    assert (done.stdout, done.stderr) == (b"stagecoach: not begun 1\n", b"srun: error: no\n")
    missing = run_in(tmp_path, commands.srun("/opt/none", "7", "true", "/d"))
    assert (missing.stdout, missing.stderr) == (b"stagecoach: no srun\n", b"")


@pytest.mark.parametrize(
    "command", ["echo stagecoach: begun 0; exit 7", "exec 1>&2; echo stagecoach: begun 0; exit 7", "kill -9 $$"]
)
def test_an_attached_command_does_not_choose_our_words(tmp_path: Path, command: str) -> None:
    done = run_in(tmp_path, commands.srun(None, "7", command, "/d"), srun=SRUN)
    assert done.stdout in {b"stagecoach: begun 7\n", b"stagecoach: begun 137\n"}


def test_of_all_that_an_attached_command_says_the_end_is_kept(tmp_path: Path) -> None:
    command = "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 3"
    done = run_in(tmp_path, commands.srun(None, "7", command, "/d"), srun=SRUN)
    assert (done.stdout, len(done.stderr), done.stderr[-8:]) == (b"stagecoach: begun 3\n", 4096, b"the end\n")


def test_an_attached_command_that_goes_on_is_left_alone_and_fills_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "ATTACH_SECONDS", 1)
    # A minute at most, should the test fail before it lets it end.
    fills = "n=0; while [ ! -e end ] && [ $n -lt 600 ]; do head -c 100000 /dev/zero >&2; sleep 0.1; n=$((n+1)); done"
    command = f"readlink /proc/self/fd/2 > where; {fills}; echo done > ended"
    argv = ["env", f"TMPDIR={tmp_path}", *commands.srun(None, "7", command, "/d")]
    done = run_in(tmp_path, argv, srun=SRUN)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"stagecoach: goes on\n", b"")
    assert not (tmp_path / "ended").exists()
    # What it says meanwhile goes into no file, which would grow until the job ends.
    assert (tmp_path / "where").read_text().startswith("pipe:")
    assert not list(tmp_path.glob("tmp.*"))
    (tmp_path / "end").touch()
    for _ in range(600):
        if (tmp_path / "ended").exists():
            break
        subprocess.run(["sleep", "0.1"], check=True)
    assert (tmp_path / "ended").read_text() == "done\n"
