"""Slurm's command lines."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from stagecoach.clusters import slurm_commands as commands
from stagecoach.core.errors import AccountRequired, InvalidRequest
from stagecoach.core.job_scripts import TaskLayout
from stagecoach.ports.scheduler import JobRequest

REQUEST = JobRequest(
    name="stagecoach-01j",
    script_path="/home/alice/.stagecoach/01j/job.sh",
    directory="/home/alice/.stagecoach/01j",
    output_path="/home/alice/.stagecoach/01j/out",
    error_path="/home/alice/.stagecoach/01j/err",
    held=True,
)


def sbatch_words(request: JobRequest, *directives: str) -> list[str]:
    argv = commands.sbatch(None, directives, request)
    return argv[argv.index("sbatch") :]


def test_a_held_submission() -> None:
    assert sbatch_words(REQUEST, "--partition=xfer") == [
        "sbatch",
        "--export=ALL",
        "--partition=xfer",
        "--parsable",
        "--hold",
        "--job-name=stagecoach-01j",
        "--chdir=/home/alice/.stagecoach/01j",
        "--output=/home/alice/.stagecoach/01j/out",
        "--error=/home/alice/.stagecoach/01j/err",
        "--open-mode=append",
        "/home/alice/.stagecoach/01j/job.sh",
    ]
    assert "--hold" not in sbatch_words(replace(REQUEST, held=False))


def test_several_tasks_are_asked_for_after_the_sites_own_words() -> None:
    words = sbatch_words(replace(REQUEST, layout=TaskLayout(3, 2)), "--nodes=1", "--ntasks=1")
    assert words[2:8] == ["--nodes=1", "--ntasks=1", "--nodes=3", "--ntasks=6", "--ntasks-per-node=2", "--parsable"]
    assert commands.sbatch_test(None, ["-p", "x"], None, TaskLayout(2, 1))[-5:] == [
        "--nodes=2",
        "--ntasks=2",
        "--ntasks-per-node=1",
        "--test-only",
        "--wrap=true",
    ]


def test_every_command_survives_a_shell_as_it_is() -> None:
    odd = replace(REQUEST, directory="/home/a b/$(touch pwned)/it's\n-é", script_path="/x/`id`;&.sh")
    argv = commands.sbatch("/opt/slurm/bin/", ["--comment=$HOME"], odd)
    assert shlex.split(shlex.join(argv)) == argv
    assert "/opt/slurm/bin/sbatch" in argv


def test_env_takes_variables_away_before_it_sets_any() -> None:
    argv = commands.squeue(None, job_ids=["1"])
    assert argv[0] == "env"
    assert argv[argv.index("squeue") - 1] == "SLURM_TIME_FORMAT=%s"
    assert argv[1:-1].count("-u") == 8


@pytest.mark.parametrize(("path", "pattern"), [("/a/50%j", "/a/50%%j"), ("/a\\b/%j", "/a\\\\b/%j"), ("/a b", "/a b")])
def test_log_paths_are_literal(path: str, pattern: str) -> None:
    assert commands.log_pattern(path) == pattern


@pytest.mark.parametrize("account", ["", "a b", "a;b", "$(id)", "x\n", "--wrap=id", "é", "a" * 65, "a,b", "a/b"])
def test_a_hostile_account_is_refused(account: str) -> None:
    for directives in ([], ["--account={account}"]):
        with pytest.raises(InvalidRequest):
            commands.filled_directives(directives, account)


def test_accounts_go_where_they_belong() -> None:
    assert commands.filled_directives(["-p", "--account={account}"], "proj-1.x") == ["-p", "--account=proj-1.x"]
    assert commands.filled_directives(["-A{account}"], "p") == ["-Ap"]
    assert commands.filled_directives(["--partition=x"], "p") == ["--partition=x", "--account=p"]
    assert commands.filled_directives(["--account=fixed"], "p") == ["--account=fixed"]
    assert commands.filled_directives(["--accounting-freq=30"], "p") == ["--accounting-freq=30", "--account=p"]
    assert commands.filled_directives([], None) == []
    with pytest.raises(AccountRequired):
        commands.filled_directives(["--account={account}"], None)


@pytest.mark.parametrize("job_id", ["", "1,2", "9_1", "-1", "1 2", "１", "1\n", "1;id"])
def test_only_plain_ids_are_asked_about(job_id: str) -> None:
    for build in (commands.scancel, commands.scontrol_release, commands.scontrol_show_job):
        with pytest.raises(InvalidRequest):
            build(None, job_id)
    for ask in (commands.squeue, commands.sacct):
        with pytest.raises(InvalidRequest):
            ask(None, job_ids=["1", job_id])


@pytest.mark.parametrize("name", ["a,b", "a b", "", "$(id)", "x" * 200])
def test_only_plain_names_are_asked_about(name: str) -> None:
    with pytest.raises(InvalidRequest):
        commands.sbatch(None, [], replace(REQUEST, name=name))
    if name:
        with pytest.raises(InvalidRequest):
            commands.squeue(None, user="alice", name=name)


def test_relative_paths_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        commands.sbatch(None, [], replace(REQUEST, script_path="-x"))


def test_questions() -> None:
    queue = commands.squeue("/s", job_ids=["1", "2"], user="alice")
    assert queue[queue.index("/s/squeue") + 1 :] == [
        "--noheader",
        "--all",
        "--states=all",
        "--Format=JobArrayID:|,State:|,exit_code:|,restartcnt:|,UserName:|,Account:|,Partition:|,NodeList:|,"
        "SubmitTime:|,StartTime:|,EndTime:|,Reason:|,Name:|",
        "--user=alice",
        "--jobs=1,2",
    ]
    accounting = commands.sacct(None, name="n", user="alice")
    assert accounting[-3:] == ["--user=alice", "--name=n", "--starttime=now-7days"]
    assert "--allusers" in commands.sacct(None, job_ids=["1"])
    assert commands.scontrol_release(None, "5") == ["scontrol", "release", "5"]
    assert commands.scancel(None, "5") == ["scancel", "5"]
    assert commands.squeue_json(None, ["5"])[-2:] == ["--json", "--jobs=5"]
    assert commands.sacct_json(None, ["5"])[-2:] == ["--json", "--jobs=5"]


def test_two_thousand_ids_fit_one_argument_of_a_shell() -> None:
    ids = [str(10**10 + number) for number in range(2000)]
    assert len(shlex.join(commands.sacct(None, job_ids=ids))) < 128 * 1024
