"""What Slurm's commands say of users' jobs and of the cluster."""

from __future__ import annotations

import pytest

from stagecoach.clusters import slurm_cluster_answers as cluster
from stagecoach.clusters import slurm_users_answers as answers
from stagecoach.clusters.slurm_users_commands import SEEN_ACCOUNTING_FIELDS, SEEN_QUEUE_FIELDS
from stagecoach.core.errors import CommandFailed, Conflict, JobNotFound, PermissionRefused, SystemUnavailable
from stagecoach.ports.compute import NodeState, Partition, ProjectAccount, Reservation
from stagecoach.ports.scheduler import JobPhase

SEPARATOR = "|5ca1ab1e|"
QUEUED = {
    "JobID": "103",
    "ArrayJobID": "103",
    "State": "RUNNING",
    "exit_code": "0",
    "UserName": "alice",
    "GroupName": "users",
    "Account": "proj",
    "Partition": "debug",
    "NodeList": "n[1-2]",
    "NumNodes": "2",
    "SubmitTime": "1795286400",
    "StartTime": "1795286405",
    "EndTime": "1795290005",
    "TimeLimit": "1-00:00:00",
    "TimeUsed": "1:05",
    "PriorityLong": "4294901709",
    "Reason": "None",
    "WorkDir": "/home/alice",
    "Name": "it's mine",
}
ACCOUNTED = {
    "JobIDRaw": "103",
    "JobID": "103",
    "State": "CANCELLED by 1001",
    "ExitCode": "0:15",
    "User": "alice",
    "Group": "users",
    "Account": "proj",
    "Partition": "debug",
    "NodeList": "n1",
    "NNodes": "1",
    "Submit": "1795286400",
    "Start": "1795286405",
    "End": "1795286410",
    "TimelimitRaw": "5",
    "ElapsedRaw": "5",
    "Suspended": "00:00:02",
    "Priority": "7",
    "Reason": "None",
    "WorkDir": "/home/alice",
    "JobName": "j",
}


def printed(*rows: dict[str, str]) -> str:
    """As Slurm prints them, each field followed by the separator."""
    return "".join("".join(value + SEPARATOR for value in row.values()) + "\n" for row in rows)


def test_the_fields_are_those_that_are_asked_for() -> None:
    assert (tuple(QUEUED), tuple(ACCOUNTED)) == (SEEN_QUEUE_FIELDS, SEEN_ACCOUNTING_FIELDS)


def test_a_job_in_the_queue() -> None:
    [(array, job)] = answers.queued_jobs(0, printed(QUEUED), "", SEPARATOR)
    report = job.report
    assert (array, report.job_id, report.name, report.phase) == ("103", "103", "it's mine", JobPhase.RUNNING)
    assert (report.exit_code, report.end_time) == (None, None), "a running job shows success, and guesses its end"
    assert (job.directory, job.group, job.node_count, job.priority) == ("/home/alice", "users", 2, 4294901709)
    assert (job.elapsed_seconds, job.limit_seconds) == (65, 86400)


def test_a_job_in_accounting() -> None:
    [(_, job)] = answers.accounted_jobs(0, printed(ACCOUNTED), "", SEPARATOR)
    assert (job.report.phase, job.report.signal, job.report.end_time) == (JobPhase.CANCELLED, 15, 1795286410)
    assert (job.elapsed_seconds, job.suspended_seconds, job.limit_seconds, job.priority) == (5, 2, 300, 7)


def test_what_accounting_calls_running_is_not_believed() -> None:
    assert answers.accounted_jobs(0, printed({**ACCOUNTED, "State": "RUNNING"}), "", SEPARATOR) == []


@pytest.mark.parametrize("field", ["Name", "WorkDir"])
def test_a_hostile_name_is_a_name(field: str) -> None:
    """It looks like the line of another job; its author knew everything but the separator of this question."""
    forged = "x|\n" + "|".join({**QUEUED, "JobID": "999", "UserName": "root"}.values()) + "|\n"
    found = answers.queued_jobs(0, printed({**QUEUED, field: forged}, {**QUEUED, "JobID": "104"}), "", SEPARATOR)
    assert [job.report.job_id for _, job in found] == ["103", "104"]
    assert forged in {found[0][1].report.name, found[0][1].directory}


def test_what_start_files_print_is_no_job() -> None:
    found = answers.queued_jobs(0, "Welcome!\n" + printed(QUEUED, {**QUEUED, "JobID": "104"}), "", SEPARATOR)
    assert [job.report.job_id for _, job in found] == ["103", "104"]
    assert answers.queued_jobs(0, "Welcome!\n", "", SEPARATOR) == []


def test_no_answer_is_not_no_job() -> None:
    dead = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    with pytest.raises(SystemUnavailable):
        answers.queued_jobs(1, "", dead, SEPARATOR)
    assert answers.queued_jobs(1, "", "slurm_load_jobs error: Invalid job id specified", SEPARATOR) == []
    assert answers.accounted_jobs(1, "", "Slurm accounting storage is disabled", SEPARATOR) == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:00", 0),
        ("5:00", 300),
        ("01:02:03", 3723),
        ("1-02:03:04", 93784),
        ("00:00:02.123", 2),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("", None),
        ("INVALID", None),
    ],
)
def test_durations(text: str, seconds: int | None) -> None:
    assert answers.duration_seconds(text) == seconds


def test_nodes() -> None:
    line = (
        "NodeName=n1 Arch=x86_64 CoresPerSocket=4 CPUAlloc=1 CPUEfctv=4 CPUTot=4 CPULoad=0.85 AvailableFeatures=a,b "
        "ActiveFeatures=a Gres=(null) NodeAddr=127.0.0.1 NodeHostName=host Version=22.05.8 OS=Linux 6.1 State=hidden "
        "RealMemory=4000 AllocMem=100 FreeMem=N/A Sockets=1 Boards=1 State=IDLE+DRAIN ThreadsPerCore=1 TmpDisk=0 Weight=3 "
        "Owner=N/A MCS_label=N/A Partitions=debug,short Reason=State=DOWN is near"
    ).replace("State=hidden ", "")
    (node,) = cluster.nodes(0, line + "\n", "")
    assert (node.name, node.cpus, node.states) == ("n1", 4, (NodeState.IDLE, NodeState.DRAIN))
    assert (node.cpu_load, node.free_memory_mib, node.allocated_memory_mib, node.allocated_cpus) == (0.85, None, 100, 1)
    assert (node.features, node.partitions, node.weight, node.address) == (("a",), ("debug", "short"), 3, "127.0.0.1")


@pytest.mark.parametrize(
    ("words", "states"),
    [
        (["DOWN*"], (NodeState.DOWN,)),
        (["IDLE*"], (NodeState.IDLE, NodeState.DOWN)),
        (["MIXED", "CLOUD"], (NodeState.MIXED,)),
        (["idle~"], (NodeState.IDLE,)),
        (["ALLOCATED", "COMPLETING"], (NodeState.ALLOCATED, NodeState.COMPLETING)),
        (["SOMETHING_NEW"], (NodeState.UNKNOWN,)),
    ],
)
def test_node_states(words: list[str], states: tuple[NodeState, ...]) -> None:
    assert cluster.node_states(words) == states


def test_partitions_and_reservations() -> None:
    text = "PartitionName=debug AllowGroups=ALL Nodes=n1,n2 State=UP TotalCPUs=8 TotalNodes=2 SelectTypeParameters=NONE\n"
    assert cluster.partitions(0, text, "") == [Partition("debug", "UP", 8, 2)]
    text = "ReservationName=course StartTime=1795286400 EndTime=1795290000 Nodes=n1 NodeCnt=1 Features=(null) State=ACTIVE\n"
    assert cluster.reservations(0, text, "") == [Reservation("course", "n1", 1795286400, 1795290000, None, "ACTIVE")]
    assert cluster.reservations(0, "No reservations in the system\n", "") == []


def test_accounts() -> None:
    assert cluster.accounts(0, "proj|other\nproj|proj\n", "") == [ProjectAccount("other", False), ProjectAccount("proj", True)]
    assert cluster.accounts(1, "", "You are not running a supported accounting_storage plugin") is None
    with pytest.raises(SystemUnavailable):
        cluster.accounts(1, "", "sacctmgr: error: slurm_persist_conn_open: Connection refused")


def test_papers() -> None:
    shown = "JobId=7 JobName=x\n   StdOut=/forged\n   StdErr=/a b/e\n   StdIn=/dev/null\n   StdOut=/a b/o\n   Power=\n"
    papers = answers.job_papers("7", "#!/bin/sh\n\0", shown)
    assert (papers.script, papers.input_path, papers.output_path, papers.error_path) == (
        "#!/bin/sh\n",
        "/dev/null",
        "/a b/o",
        "/a b/e",
    )
    assert answers.accounted_script(0, "Batch Script for 7\n" + "-" * 80 + "\n#!/bin/sh\ntrue\n") == "#!/bin/sh\ntrue\n"
    assert answers.accounted_script(0, "Batch Script for 7\n" + "-" * 80 + "\nNONE\n") is None
    assert answers.accounted_script(1, "") is None


@pytest.mark.parametrize(
    ("exit_status", "stderr", "kind"),
    [
        (0, "", None),
        (0, "scancel: Terminating job 7", None),
        (1, "scancel: error: Kill job error on job id 7: Job/step already completing or completed", None),
        (0, "scancel: error: Kill job error on job id 7: Invalid job id specified", JobNotFound),
        (210, "scancel: error: Kill job error on job id 7: Access/permission denied", PermissionRefused),
        (1, "scancel: error: slurm_kill_job2: Unable to contact slurm controller (connect failure)", SystemUnavailable),
    ],
)
def test_how_cancelling_ends(exit_status: int, stderr: str, kind: type[Exception] | None) -> None:
    assert type(answers.own_job_trouble(exit_status, "", stderr, "scancel")) is (kind or type(None))


INVALID = "srun: error: Unable to confirm allocation for job 7: Invalid job id specified"


@pytest.mark.parametrize(
    ("ending", "stderr", "kind", "words"),
    [
        ("begun 0", "", None, ""),
        ("goes on", "", None, ""),
        (
            "begun 3",
            "so bad\nsrun: error: n1: task 0: Exited with exit code 3\n",
            CommandFailed,
            "exit status:3 and error message:so bad",
        ),
        ("not begun 1", INVALID, JobNotFound, "Job not found"),
        (
            "not begun 1",
            "srun: error: Unable to create step for job 7: Job/step already completing or completed",
            Conflict,
            "not run",
        ),
        ("not begun 1", "srun: error: Unable to create step for job 7: Access/permission denied", PermissionRefused, "ermission"),
        (
            "not begun 1",
            "srun: error: Unable to create step for job 7: Unable to contact slurm controller",
            SystemUnavailable,
            "contact",
        ),
        (
            "not begun 2",
            "slurmstepd: error: execve(): sh\nsrun: error: n1: task 0: Exited with exit code 2",
            CommandFailed,
            "execve",
        ),
        ("not begun 2", "slurmstepd: error: couldn't chdir to `/Invalid job id specified'", CommandFailed, "chdir"),
        ("no srun", "", SystemUnavailable, "binaries"),
        ("begun 127", "sh: 1: no: not found\nsrun: error: n1: task 0: Exited with exit code 127\n", CommandFailed, "not found"),
        # The command may say what it likes.
        ("begun 1", INVALID, CommandFailed, "status:1"),
        ("begun 1", "Access/permission denied", CommandFailed, "Access/permission denied"),
        ("begun 1", "Job is pending execution", CommandFailed, "pending"),
        ("begun 127", "stagecoach: no srun\n", CommandFailed, "status:127"),
        ("begun 137", "srun: error: n1: task 0: Killed", CommandFailed, "status:137"),
    ],
)
def test_how_attaching_ends(ending: str, stderr: str, kind: type[Exception] | None, words: str) -> None:
    found = answers.attach_trouble(f"Welcome!\nstagecoach: {ending}\n", stderr)
    assert type(found) is (kind or type(None))
    assert words in str(found)


@pytest.mark.parametrize("stdout", ["", "Welcome!\n", "stagecoach: begun 0\nmore\n", "stagecoach: begun"])
def test_an_attachment_that_ends_without_our_own_word_was_not_made(stdout: str) -> None:
    with pytest.raises(SystemUnavailable, match="No space left"):
        raise answers.attach_trouble(stdout, "mktemp: No space left on device\n") or AssertionError("it was believed")
