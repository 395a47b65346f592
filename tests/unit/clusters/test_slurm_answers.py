"""Slurm's text answers, as real clusters gave them."""

from __future__ import annotations

import pytest

from stagecoach.clusters import slurm_answers as answers
from stagecoach.core.errors import (
    JobNotFound,
    PermissionRefused,
    SubmissionRefused,
    SubmissionUncertain,
    SystemUnavailable,
)
from stagecoach.ports.scheduler import JobPhase

CONTACT = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"


@pytest.mark.parametrize("stdout", ["123\n", "123;tb\n", "Welcome to the cluster\n123\n", "7\n123\n", "123  \n"])
def test_a_submission_that_was_taken(stdout: str) -> None:
    assert answers.submitted_job_id(0, stdout, "") == "123"


@pytest.mark.parametrize(
    ("exit_status", "stderr", "words"),
    [
        (
            1,
            "sbatch: error: invalid partition specified: nope\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified\n",
            "invalid partition specified: nope; Batch job submission failed: Invalid partition name specified",
        ),
        (
            1,
            "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)\n",
            "Requested time limit is invalid",
        ),
        (
            1,
            "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified\n",
            "Invalid account or account/partition combination specified",
        ),
        (1, "sbatch: error: Batch job submission failed: Invalid qos specification\n", "Invalid qos specification"),
        (
            1,
            "sbatch: error: Batch job submission failed: More processors requested than permitted\n",
            "More processors requested than permitted",
        ),
        (1, "sbatch: error: Batch job submission failed: Node count specification invalid\n", "Node count"),
        (255, "sbatch: unrecognized option '--bad'\nTry \"sbatch --help\" for more information\n", "unrecognized option"),
        (255, "sbatch: error: Invalid --time specification\n", "Invalid --time specification"),
        (
            1,
            "sbatch: error: This does not look like a batch script.  The first\n"
            "sbatch: error: line must start with #! followed by the path to an interpreter.\n",
            "This does not look like a batch script",
        ),
        (1, "sbatch: error: Batch script contains DOS line breaks (\\r\\n)\n", "DOS line breaks"),
        (1, "our site's filter: your project has no hours left\n", "no hours left"),
    ],
)
def test_a_submission_that_was_refused(exit_status: int, stderr: str, words: str) -> None:
    with pytest.raises(SubmissionRefused) as refused:
        answers.submitted_job_id(exit_status, "", stderr)
    assert words in refused.value.message
    assert "sbatch:" not in refused.value.message
    assert words in str(refused.value.data["scheduler_message"])


@pytest.mark.parametrize(
    ("exit_status", "stdout", "stderr"),
    [
        (1, "", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"),
        (1, "", "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received\n"),
        (1, "", "sbatch: error: Batch job submission failed: Unable to contact slurm controller (receive failure)\n"),
        (1, "", "sbatch: error: Munge decode failed: Expired credential\n"),
        (1, "", "sbatch: error: Batch job submission failed: Protocol authentication error\n"),
        (0, "", ""),
        (0, "no number\n", ""),
        (1, "", ""),
        (1, "123\n", ""),
        (-9, "", ""),
    ],
)
def test_a_submission_nobody_knows_about(exit_status: int, stdout: str, stderr: str) -> None:
    with pytest.raises(SubmissionUncertain):
        answers.submitted_job_id(exit_status, stdout, stderr)


@pytest.mark.parametrize(
    ("exit_status", "stderr"),
    [
        (1, "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)\n"),
        (
            1,
            "sbatch: error: If munged is up, restart with --num-threads=10\nsbatch: error: Munge encode failed: Failed"
            ' to access "/run/munge.sock": No such file or directory\n',
        ),
        (1, "sbatch: error: Batch job submission failed: Slurm backup controller in standby mode\n"),
        (1, "sbatch: fatal: Could not establish a configuration source\n"),
        (127, "bash: line 1: sbatch: command not found\n"),
        (127, "env: ‘sbatch’: No such file or directory\n"),
    ],
)
def test_a_submission_that_never_arrived(exit_status: int, stderr: str) -> None:
    with pytest.raises(SystemUnavailable) as unavailable:
        answers.submitted_job_id(exit_status, "", stderr)
    assert not isinstance(unavailable.value, SubmissionUncertain)


QUEUE = (
    "13|FAILED|1792|0|alice|proj|debug|n1|1795297645|1795297646|1795297647|NonZeroExitCode|stagecoach-x1|\n"
    "14|CANCELLED|0|0|alice|proj|debug||1795297648|1795297648|1795297648|JobHeldUser|heldc|\n"
    "15|PENDING|0|2|bob|proj|debug||1795297650|N/A|N/A|JobHeldUser|a|b|\n"
    "16|RUNNING|0|0|alice|proj|debug|n[1-2]|1795297650|1795297651|1795299999|None|r|\n"
    "9_1|COMPLETED|0|0|alice|proj|debug|n1|1795297650|1795297651|1795297652|None|array|\n"
)


def test_the_queue() -> None:
    failed, cancelled, held, running, task = answers.queue_reports(0, "motd: hello | world\n" + QUEUE, "")
    assert (failed.job_id, failed.phase, failed.exit_code, failed.signal) == ("13", JobPhase.FAILED, 7, None)
    assert (failed.name, failed.user, failed.account, failed.partition, failed.nodes) == (
        "stagecoach-x1",
        "alice",
        "proj",
        "debug",
        "n1",
    )
    assert (failed.submit_time, failed.start_time, failed.end_time) == (1795297645, 1795297646, 1795297647)
    assert (cancelled.phase, cancelled.exit_code) == (JobPhase.CANCELLED, None)
    assert (held.phase, held.name, held.restarts, held.start_time) == (JobPhase.HELD, "a|b", 2, None)
    assert (running.phase, running.exit_code, running.end_time, running.reason) == (JobPhase.RUNNING, None, None, "")
    assert (task.job_id, task.exit_code) == ("9_1", 0)


def test_an_unknown_id_is_an_empty_queue() -> None:
    assert answers.queue_reports(1, "", "slurm_load_jobs error: Invalid job id specified\n") == []
    assert answers.queue_reports(0, "", "") == []


@pytest.mark.parametrize(
    ("exit_status", "stderr"),
    [
        (1, CONTACT),
        (0, CONTACT),
        (1, "slurm_load_jobs error: Socket timed out on send/recv operation\n"),
        (1, "squeue: error: Munge encode failed: Failed to access socket\n"),
        (1, "slurm_load_jobs error: Protocol authentication error\n"),
        (1, ""),
        (-15, ""),
        (127, "bash: squeue: command not found\n"),
    ],
)
def test_no_answer_is_never_an_empty_queue(exit_status: int, stderr: str) -> None:
    for read in (answers.queue_reports, answers.accounting_reports, answers.shown_job):
        with pytest.raises(SystemUnavailable):
            read(exit_status, "", stderr)


def test_accounting() -> None:
    text = (
        "13|FAILED|7:0|alice|proj|debug|n1|1795297645|1795297646|1795297647|None|stagecoach-x1\n"
        "14|CANCELLED by 1001|0:0|alice|proj|debug|None assigned|1795297648|1795297648|1795297648|None|heldc\n"
        "15|PENDING||alice|proj||None assigned|1795297648|Unknown|Unknown|None|allocation\n"
        "16|NODE_FAIL|1:0|alice|proj|debug|n1|1795297648|1795297649|1795297650|None|again\n"
        "16|COMPLETED|0:0|alice|proj|debug|n2|1795297651|1795297652|1795297653|None|again\n"
        "17|FAILED|9:0|alice|proj|debug|n1|1795297645|1795297646|1795297647|None|exit137\n"
        "9_1|COMPLETED|0:0|alice|proj|debug|n1|1|2|3|None|array\n"
    )
    reports = answers.accounting_reports(0, text, "")
    assert reports is not None
    assert [(each.job_id, each.phase, each.exit_code, each.name) for each in reports] == [
        ("13", JobPhase.FAILED, 7, "stagecoach-x1"),
        ("14", JobPhase.CANCELLED, None, "heldc"),
        ("15", JobPhase.PENDING, None, "allocation"),
        ("16", JobPhase.NODE_FAIL, 1, "again"),
        ("16", JobPhase.COMPLETED, 0, "again"),
        ("17", JobPhase.FAILED, 9, "exit137"),
        ("9_1", JobPhase.COMPLETED, 0, "array"),
    ]
    assert reports[1].nodes == ""
    assert answers.accounting_reports(0, "", "") == []


def test_a_site_without_accounting_is_not_a_failure() -> None:
    assert answers.accounting_reports(1, "", "Slurm accounting storage is disabled\n") is None


def test_a_database_that_is_down_is_one() -> None:
    with pytest.raises(SystemUnavailable, match="Connection refused"):
        answers.accounting_reports(1, "", "sacct: error: Problem talking to the database: Connection refused\n")


SHOWN = (
    "JobId=13 JobName=odd JobState=COMPLETED name UserId=alice(1001) GroupId=alice(1001) MCS_label=N/A"
    " Priority=4294901747 Nice=0 Account=proj QOS=normal JobState=FAILED Reason=NonZeroExitCode Dependency=(null)"
    " Requeue=1 Restarts=1 BatchFlag=1 Reboot=0 ExitCode=7:0 RunTime=00:00:01 SubmitTime=1795297645"
    " EligibleTime=1795297646 AccrueTime=Unknown StartTime=1795297646 EndTime=1795297647 Deadline=N/A"
    " Partition=debug AllocNode:Sid=localhost:32196 ReqNodeList=(null) ExcNodeList=(null) NodeList=n1 BatchHost=n1\n"
)


@pytest.mark.parametrize("text", [SHOWN, SHOWN.replace(" UserId=", "\n   UserId=").replace(" JobState=F", "\n   JobState=F")])
def test_one_job_shown(text: str) -> None:
    job = answers.shown_job(0, text, "")
    assert job is not None
    assert (job.job_id, job.name, job.phase, job.exit_code) == ("13", "odd JobState=COMPLETED name", JobPhase.FAILED, 7)
    assert (job.user, job.nodes, job.restarts, job.submit_time) == ("alice", "n1", 1, 1795297645)
    assert answers.shown_job(1, "", "slurm_load_jobs error: Invalid job id specified\n") is None


def test_releasing() -> None:
    assert answers.release_trouble(0, "", "", "13") is None
    ended = "Job has already finished for job 13\nslurm_suspend error: Job has already finished\n"
    assert answers.release_trouble(1, "", ended, "13") is None
    for stderr in (
        "Invalid job id specified for job 999999\nslurm_suspend error: Invalid job id specified\n",
        "Invalid user id for job 15\nslurm_suspend error: Invalid user id\n",
    ):
        assert isinstance(answers.release_trouble(1, "", stderr, "15"), JobNotFound)
    assert isinstance(answers.release_trouble(1, "", "Access/permission denied for job 15\n", "15"), PermissionRefused)
    assert isinstance(answers.release_trouble(1, "", CONTACT, "15"), SystemUnavailable)
    assert isinstance(answers.release_trouble(127, "", "scontrol: not found", "15"), SystemUnavailable)


def test_cancelling() -> None:
    assert answers.cancel_trouble(0, "", "", "13") is None
    gone = "scancel: error: Kill job error on job id 13: Invalid job id specified\n"
    assert answers.cancel_trouble(1, "", gone, "13") is None
    done = "scancel: error: Kill job error on job id 13: Job/step already completing or completed\n"
    assert answers.cancel_trouble(1, "", done, "13") is None
    denied = "scancel: error: Kill job error on job id 15: Access/permission denied\n"
    assert isinstance(answers.cancel_trouble(210, "", denied, "15"), PermissionRefused)
    assert isinstance(answers.cancel_trouble(1, "", CONTACT, "15"), SystemUnavailable)


def test_complaints_are_short_and_printable() -> None:
    words = answers.words_of("", "sbatch: error: \x1b[31mred\x07 " + "x" * 1000)
    assert len(words) <= 400
    assert words.isprintable()
