"""The testbed is what the end-to-end tests stand on: is it really there, and does it behave as they expect?

The services are started by ``make testbed-up``, which writes ``.testbed/env``. Without that file these tests are
skipped, unless ``STAGECOACH_REQUIRE_TESTBED=1`` says that it has to be there.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from botocore.config import Config

ENVIRONMENT_FILE = Path(os.environ.get("TESTBED_ENV") or Path(__file__).resolve().parents[2] / ".testbed" / "env")
JOB_SCRIPT = """#!/bin/bash
command -v python3
python3 -c 'import os, sys; print(os.environ["USER"], sys.version_info >= (3, 6))'
"""

Environment = dict[str, str]
Ssh = Callable[..., str]


def read_environment() -> Environment:
    lines = ENVIRONMENT_FILE.read_text(encoding="utf-8").splitlines()
    pairs = (shlex.split(line)[0].partition("=") for line in lines if line)
    return {name: value for name, _, value in pairs}


@pytest.fixture(scope="module")
def testbed() -> Environment:
    if not ENVIRONMENT_FILE.exists():
        reason = f"no testbed: {ENVIRONMENT_FILE} is absent (make testbed-up)"
        if os.environ.get("STAGECOACH_REQUIRE_TESTBED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return read_environment()


def slurm(testbed: Environment, *command: str) -> str:
    """What one of Slurm's own commands says on this host."""
    environment = {**os.environ, "SLURM_CONF": testbed["SLURM_CONF"]}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=30).stdout


@pytest.fixture(scope="module")
def ssh_as_alice(testbed: Environment, tmp_path_factory: pytest.TempPathFactory) -> Ssh:
    """Runs a command as alice with the plain client, which accepts the published host key and no other."""
    known_hosts = tmp_path_factory.mktemp("ssh") / "known_hosts"
    door = f"[{testbed['SSH_HOST']}]:{testbed['SSH_PORT']}"
    known_hosts.write_text(f"{door} {testbed['SSH_KNOWN_HOST_KEY']}\n", encoding="utf-8")
    strict = shlex.split("-F none -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes")
    who = ["-o", f"UserKnownHostsFile={known_hosts}", "-i", f"{testbed['SSH_KEYS_DIRECTORY']}/alice"]
    client = ["ssh", *strict, *who, "-p", testbed["SSH_PORT"], f"alice@{testbed['SSH_HOST']}"]

    def run(*command: str, stdin: str = "") -> str:
        done = subprocess.run([*client, shlex.join(command)], input=stdin, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def eventually(look: Callable[[], Any], wanted: Any, seconds: float = 30) -> None:
    """Looks until it sees what is wanted."""
    deadline = time.monotonic() + seconds
    while (seen := look()) != wanted:
        assert time.monotonic() < deadline, f"{seen!r} instead of {wanted!r} after {seconds} s"
        time.sleep(0.1)


def test_two_nodes_are_ready(testbed: Environment) -> None:
    nodes = slurm(testbed, "sinfo", "--noheader", "--Node", "--partition=debug", "--format=%N %T").split("\n")

    # Other tests may be running jobs at this moment; in quiet both are idle.
    assert [line.split()[0] for line in nodes if line] == ["n1", "n2"]
    assert {line.split()[1] for line in nodes if line} <= {"idle", "mixed", "allocated", "completing"}


def test_a_held_job_waits_for_its_release_and_is_accounted_for(testbed: Environment, ssh_as_alice: Ssh) -> None:
    output = f"{testbed['ALICE_HOME']}/testbed-{uuid.uuid4().hex}.out"
    job = ssh_as_alice("sbatch", "--parsable", "--hold", f"--output={output}", stdin=JOB_SCRIPT).strip()

    def shown(field: str) -> str:
        fields = ssh_as_alice("scontrol", "show", "job", "--oneliner", job).split()
        return next(value for name, _, value in (pair.partition("=") for pair in fields) if name == field)

    try:
        eventually(lambda: (shown("JobState"), shown("Reason")), ("PENDING", "JobHeldUser"))

        ssh_as_alice("scontrol", "release", job)

        eventually(lambda: shown("JobState"), "COMPLETED")
        assert ssh_as_alice("cat", output).split("\n") == ["/usr/bin/python3", "alice True", ""]
        account = ["sacct", "-n", "-P", "-X", "-j", job, "--format=JobID,State,ExitCode"]
        eventually(lambda: ssh_as_alice(*account).strip(), f"{job}|COMPLETED|0:0")
    finally:
        ssh_as_alice("scancel", job)
        ssh_as_alice("rm", "-f", output)


def test_the_database_answers(testbed: Environment) -> None:
    with psycopg.connect(testbed["DATABASE_URL"].replace("+psycopg", ""), connect_timeout=10) as connection:
        row = connection.execute("SELECT current_user, current_setting('max_connections')").fetchone()

    assert row == ("stagecoach", "200")


@pytest.fixture
def bucket(testbed: Environment) -> Iterator[Any]:
    """A bucket of one test, removed with all that is in it."""
    store = boto3.resource(
        "s3",
        endpoint_url=testbed["S3_ENDPOINT"],
        aws_access_key_id=testbed["S3_ACCESS_KEY"],
        aws_secret_access_key=testbed["S3_SECRET_KEY"],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
    )
    made = store.create_bucket(Bucket=f"testbed-{uuid.uuid4().hex}")
    yield made
    for left in made.objects.all():
        left.delete()
    made.delete()


def test_the_store_keeps_an_object_until_it_is_deleted(bucket: Any) -> None:
    content = os.urandom(100_000)

    bucket.put_object(Key="letter", Body=content)

    assert bucket.Object("letter").get()["Body"].read() == content
    assert [found.key for found in bucket.objects.all()] == ["letter"]
    bucket.Object("letter").delete()
    assert list(bucket.objects.all()) == []
