"""What the end-to-end tests know of the running testbed, and how they look at it from outside the service."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import boto3
import httpx
from botocore.config import Config

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT_FILE = REPOSITORY / ".testbed" / "env"


# Where there are two testbeds, so that tests run side by side: the one that has the nodes.
NODES_ENVIRONMENT_FILE = ENVIRONMENT_FILE.with_name("nodes.env")


def read_environment(file: Path = ENVIRONMENT_FILE) -> dict[str, str]:
    """The testbed's KEY=value lines."""
    lines = shlex.split(file.read_text(encoding="utf-8"), comments=True)
    return dict(line.split("=", 1) for line in lines)


def wait_until(look: Callable[[], T], seconds: float, what: str, pause: float = 0.1) -> T:
    """The first true answer of ``look``; fails the test, naming ``what``, when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = look()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(pause)


def wait_for_step_daemons(testbed: Testbed) -> None:
    """Until no job has one any more: a slurmd that starts beside one takes its job's number for running ever after."""
    sockets = f" {testbed.environment['TESTBED_ROOT']}/slurm/spool/"
    wait_until(lambda: sockets not in Path("/proc/net/unix").read_text(), 60, "the daemons of all jobs' steps have ended")


@dataclass
class Person:
    """A user of the service, with their HTTP client and their home on the cluster."""

    name: str
    home: Path
    http: httpx.Client

    @property
    def uid(self) -> int:
        return pwd.getpwnam(self.name).pw_uid


class Testbed:
    """The service and all that stands around it."""

    __test__ = False

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.url = environment["STAGECOACH_URL"]
        self.system = environment["STAGECOACH_SYSTEM"]
        self.s3: Any = boto3.client(
            "s3",
            endpoint_url=environment["S3_ENDPOINT"],
            aws_access_key_id=environment["S3_ACCESS_KEY"],
            aws_secret_access_key=environment["S3_SECRET_KEY"],
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )
        # One for all: making a client reads the certificates of the whole world.
        self.store = httpx.Client(timeout=60)
        self.alice = self._person("alice")
        self.bob = self._person("bob")

    def _person(self, name: str) -> Person:
        token = self.environment[f"{name.upper()}_TOKEN"]
        http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)
        return Person(name, Path(self.environment[f"{name.upper()}_HOME"]), http)

    def fresh(self, person: Person, name: str) -> Path:
        """A path in the person's home where nothing stands yet."""
        path = person.home / name
        path.unlink(missing_ok=True)
        return path

    # --- the service, as a client sees it

    def begin_upload(self, person: Person, path: str | Path, size: int, system: str | None = None, **more: Any) -> httpx.Response:
        body = {"path": str(path), "transferDirectives": {"transferMethod": "s3", "fileSize": size}, **more}
        return person.http.post(f"/filesystem/{system or self.system}/transfer/upload", json=body)

    def begin_download(self, person: Person, path: str | Path, system: str | None = None) -> httpx.Response:
        body = {"path": str(path), "transferDirectives": {"transferMethod": "s3"}}
        return person.http.post(f"/filesystem/{system or self.system}/transfer/download", json=body)

    def put_parts(self, begun: dict[str, Any], content: bytes) -> list[str]:
        directives = begun["transferDirectives"]
        size, etags = directives["maxPartSize"], []
        for number, url in enumerate(directives["partsUploadUrls"]):
            answer = self.store.put(url, content=content[number * size : (number + 1) * size])
            assert answer.status_code == 200, answer.text
            etags.append(answer.headers["ETag"])
        return etags

    def complete(self, begun: dict[str, Any], etags: list[str]) -> None:
        parts = "".join(f"<Part><ETag>{etag}</ETag><PartNumber>{n}</PartNumber></Part>" for n, etag in enumerate(etags, 1))
        body = f'<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{parts}</CompleteMultipartUpload>'
        answer = self.store.post(begun["transferDirectives"]["completeUploadUrl"], content=body)
        assert answer.status_code == 200, answer.text

    def upload(self, person: Person, path: str | Path, content: bytes, system: str | None = None) -> dict[str, Any]:
        begun = self.begin_upload(person, path, len(content), system)
        assert begun.status_code == 201, begun.text
        self.complete(begun.json(), self.put_parts(begun.json(), content))
        return self.wait(person, begun.json()["transferId"])

    def download(self, person: Person, path: str | Path) -> bytes:
        begun = self.begin_download(person, path)
        assert begun.status_code == 201, begun.text
        staged = self.wait(person, begun.json()["transferId"], "staged")
        assert staged["state"] == "staged", staged
        answer = self.store.get(begun.json()["transferDirectives"]["downloadUrl"])
        assert answer.status_code == 200, answer.text
        assert person.http.post(f"/transfers/{staged['id']}/finish").json()["state"] == "done"
        return answer.content

    def show(self, person: Person, transfer_id: str) -> dict[str, Any]:
        answer = person.http.get(f"/transfers/{transfer_id}")
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def wait(self, person: Person, transfer_id: str, *states: str, seconds: float = 90) -> dict[str, Any]:
        """Until one of ``states`` (or any end)."""
        ends = {"done", "failed", "cancelled", "expired", *states}

        def look() -> dict[str, Any] | None:
            shown = self.show(person, transfer_id)
            return shown if shown["state"] in ends else None

        return wait_until(look, seconds, f"transfer {transfer_id} reaches {ends}") or {}

    # --- the service's own processes

    def service_pid(self, name: str) -> int:
        """Of ``api`` or ``worker``."""
        return int(Path(self.environment["TESTBED_ROOT"], "run", f"stagecoach-{name}.pid").read_text())

    def start_service(self, *options: str, **settings: str) -> None:
        """Start what is down (``--restart``: everything), with settings from the environment laid over the file's."""
        of_this = {"VENV": sys.prefix, "S3": self.environment["S3_KIND"], "TESTBED_ROOT": self.environment["TESTBED_ROOT"]}
        environment = {**os.environ, **of_this, **settings}
        command = [REPOSITORY / "deploy" / "testbed" / "stagecoach-up", *options]
        subprocess.run(command, env=environment, check=True, capture_output=True)

    def audit(self, *options: str, grace_seconds: float = 0) -> dict[str, Any]:
        """What ``stagecoach audit --json`` prints: ``findings``, ``unseen``, ``foreign``, ``fixed``.

        Without a grace, so that what was left a moment ago is found as well; what is under way is not, all the same.
        """
        settings = self.environment["STAGECOACH_SETTINGS"]
        command = [Path(sys.prefix, "bin", "stagecoach"), "audit", "--json", "--grace-seconds", str(grace_seconds)]
        done = subprocess.run(
            [*command, "--settings", settings, *options], check=False, capture_output=True, text=True, timeout=300
        )
        assert done.returncode in {0, 3, 4}, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (3 if report["findings"] else 4 if report["unseen"] else 0), done.stdout
        return report

    # --- the outside, without the service

    def slurm(self, *command: str) -> str:
        environment = {**os.environ, "SLURM_CONF": self.environment["SLURM_CONF"]}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def job_line(self, job_id: str) -> str:
        """State and reason of a job in the queue, or ''."""
        lines = self.slurm("squeue", "-h", "-t", "all", "-o", "%i %T %r").splitlines()
        return next((line.split(" ", 1)[1] for line in lines if line.split(" ", 1)[0] == job_id), "")

    def requeue(self, job_id: str) -> None:
        """Put a running job back into the queue; it waits three seconds there, and not Slurm's two minutes.

        Not less: a node refuses the job's new credential if it is of the second in which the old one was revoked.
        """
        self.slurm("scontrol", "requeue", job_id)
        wait_until(lambda: "BeginTime" in self.job_line(job_id), 60, "Slurm puts the job back into the queue")
        self.slurm("scontrol", "update", f"jobid={job_id}", "StartTime=now+3")

    def open_jobs(self, transfer_id: str) -> list[str]:
        lines = self.slurm("squeue", "-h", "-o", "%i %j %T").splitlines()
        return [line for line in lines if f"stagecoach-{transfer_id}" in line]

    def bucket(self, person: Person) -> str:
        return f"stagecoach-{person.name}"

    def leftovers(self, person: Person, transfer: dict[str, Any]) -> dict[str, Any]:
        """All that still exists of a transfer outside the database; empty values when nothing is left."""
        bucket, transfer_id = self.bucket(person), transfer["id"]
        objects = [item["Key"] for item in self.s3.list_objects_v2(Bucket=bucket, Prefix=transfer_id).get("Contents", [])]
        uploads = [
            item["Key"]
            for item in self.s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
            if item["Key"].startswith(transfer_id)
        ]
        hidden = Path(transfer["path"]).parent / f".stagecoach-{transfer_id}.part"
        directory = person.home / self.environment["WORK_DIRECTORY_NAME"] / transfer_id
        left = {
            "objects": objects,
            "multiparts": uploads,
            "jobs": self.open_jobs(transfer_id),
            "files": [str(path) for path in (hidden, directory) if path.exists()],
        }
        return {what: found for what, found in left.items() if found}

    def wait_until_nothing_is_left(self, person: Person, transfer: dict[str, Any], seconds: float = 30) -> None:
        left: dict[str, Any] = {}

        def look() -> bool:
            left.clear()
            left.update(self.leftovers(person, transfer))
            return not left

        deadline = time.monotonic() + seconds
        while not look():
            assert time.monotonic() < deadline, f"left of {transfer['id']} ({transfer['state']}): {left}"
            time.sleep(0.2)
