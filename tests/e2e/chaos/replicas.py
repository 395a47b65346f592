"""Processes of the service that belong to a test: replicas of the API, workers, a database and buckets of their own.

They stand on the testbed's Slurm, sshd, store and PostgreSQL; its own Stagecoach goes on beside them and knows nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import yaml
from botocore.exceptions import ClientError
from sqlalchemy import make_url
from tests.e2e.testbed import Testbed, wait_until

PROGRAM = Path(sys.prefix) / "bin" / "stagecoach"


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Replica:
    """One process. Started again, it has the same name, port and log."""

    name: str
    verb: str
    folder: Path
    environment: dict[str, str]
    port: int | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [str(PROGRAM), self.verb, "--settings", str(self.folder / "settings.yaml")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} ended:\n{self.log.read_text()[-3000:]}"
        if self.port is None:
            return True
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200
        return False


@dataclass
class Replicas:
    """``settings`` is what their settings file says."""

    testbed: Testbed
    settings: dict[str, Any]
    apis: list[Replica] = field(default_factory=list)
    workers: list[Replica] = field(default_factory=list)

    def start(self) -> None:
        """What does not run, and wait until all of it answers."""
        replicas = [*self.apis, *self.workers]
        for replica in replicas:
            if replica.process is None or replica.process.poll() is not None:
                replica.start()
        for replica in replicas:
            wait_until(replica.answers, 60, f"{replica.name} answers")

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Straight from their database."""
        plain = self.settings["database"]["url"].replace("+psycopg", "")
        with psycopg.connect(plain, connect_timeout=5) as connection:
            return list(connection.execute(statement.encode()))

    def forget(self) -> None:
        """Nothing stays of transfers that a test left in the middle: no job, no object, no file."""
        ids, person = [row[0] for row in self.query("SELECT id FROM transfers")], self.testbed.alice
        jobs = [line.split(" ") for line in self.testbed.slurm("squeue", "-h", "-o", "%i %j").splitlines()]
        doomed = [job_id for job_id, name in jobs if any(each in name for each in ids)]
        if doomed:
            self.testbed.slurm("scancel", "--signal=KILL", "--full", *doomed)
            self.testbed.slurm("scancel", *doomed)
        system = self.settings["systems"][0]
        shutil.rmtree(system["work_directory"].replace("{home}", str(person.home)), ignore_errors=True)
        bucket, s3 = f"{self.settings['s3']['bucket_prefix']}{person.name}", self.testbed.s3
        if bucket not in {each["Name"] for each in s3.list_buckets()["Buckets"]}:
            return
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for item in page.get("Contents", []):
                s3.delete_object(Bucket=bucket, Key=item["Key"])
        for key, upload_id in multiparts(s3, bucket):
            s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)

    def verb(self, *words: str) -> subprocess.CompletedProcess[str]:
        """An operator's verb with these settings."""
        replica = (self.apis or self.workers)[0]
        command = [str(PROGRAM), *words, "--settings", str(replica.folder / "settings.yaml")]
        return subprocess.run(command, env=replica.environment, capture_output=True, text=True, timeout=120)


def multiparts(s3: Any, bucket: str) -> list[tuple[str, str]]:
    """Key and id of every upload that is open in the bucket."""
    try:
        listed = s3.list_multipart_uploads(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchUpload":  # rclone's word for none
            raise
        return []
    return [(upload["Key"], upload["UploadId"]) for upload in listed.get("Uploads", [])]


@contextlib.contextmanager
def own_replicas(testbed: Testbed, folder: Path, name: str, apis: int, workers: int, **changes: Any) -> Iterator[Replicas]:
    """Started. ``changes`` are sections of the settings: ``system`` changes the one system, named ``name``."""
    settings = yaml.safe_load(Path(testbed.environment["STAGECOACH_SETTINGS"]).read_text())
    system = {**settings["systems"][0], "name": name, "work_directory": f"{{home}}/.stagecoach-{name}"}
    for section, values in changes.pop("system", {}).items():
        system[section] = {**system.get(section, {}), **values} if isinstance(values, dict) else values
    settings["systems"] = [system]
    settings["s3"]["bucket_prefix"] = f"stagecoach-{name}-"
    for section, values in changes.items():
        settings[section] = {**settings.get(section, {}), **values}
    with own_database(testbed, name) as url:
        settings["database"] = {"url": url, **changes.get("database", {})}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
        (folder / "settings.yaml").chmod(0o600)
        plain = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TESTBED_PROCESS_OF": testbed.environment["TESTBED_ROOT"]}
        subprocess.run([PROGRAM, "migrate", "--settings", folder / "settings.yaml"], env=plain, check=True, capture_output=True)
        made = Replicas(testbed, settings)
        for number in range(apis):
            port = free_port()
            environment = {**plain, "STAGECOACH_SERVER__PORT": str(port)}
            made.apis.append(Replica(f"api-{number + 1}", "serve", folder, environment, port))
        made.workers = [Replica(f"worker-{number + 1}", "work", folder, plain) for number in range(workers)]
        try:
            made.forget()
            made.start()
            yield made
        finally:
            for replica in (*made.apis, *made.workers):
                replica.stop()
            made.forget()


@contextlib.contextmanager
def own_database(testbed: Testbed, name: str) -> Iterator[str]:
    """A new one on the testbed's PostgreSQL; its URL for the service."""
    server = make_url(testbed.environment["DATABASE_URL"])
    database = f"{name.replace('-', '_')}_{secrets.token_hex(4)}"
    plain = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as operator:
        operator.execute(f"CREATE DATABASE {database}".encode())
    try:
        yield server.set(database=database).render_as_string(hide_password=False)
    finally:
        with psycopg.connect(plain, autocommit=True) as operator:
            # Without FORCE, which would have to end an autovacuum that is not ours; a plain one is told to stop.
            operator.execute(f"DROP DATABASE {database}".encode())
