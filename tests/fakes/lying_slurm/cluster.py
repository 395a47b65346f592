"""The cluster behind the lying commands, as a test sees it: it installs them, tells them what to say, and runs the jobs.

A job "runs" in the test: its node reads the ticket's URL in the job's directory, moves the bytes between the store in
memory and the real disk, and leaves a receipt, as the mover does.
"""

from __future__ import annotations

import base64
import json
import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fakes.lying_slurm.slurm import OPEN_STATES, changing, last_row, make_job

from stagecoach.core import names

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel")
FIRST_ID = 101


class LyingSlurm:
    """``directory`` holds the commands, and what they know."""

    def __init__(self, directory: Path, follow: Callable[..., Any]) -> None:
        self.directory = directory
        self._follow = follow

    # --- what the commands say

    def lie(self, **lies: object) -> None:
        """From now on; spaces in a lie's name are underscores here. No lies at all: the truth."""
        with changing(self.directory) as state:
            state["lies"] = {name.replace("_", " "): value for name, value in lies.items()}

    def jobs(self) -> dict[str, dict[str, Any]]:
        """What the controller remembers, by id."""
        with changing(self.directory) as state:
            return dict(state["jobs"])

    def open_jobs(self, name: str | None = None) -> list[dict[str, Any]]:
        """The jobs that could still do something."""
        jobs = [job for job in self.jobs().values() if job["state"] in OPEN_STATES]
        return [job for job in jobs if name in {None, job["name"]}]

    def calls(self, command: str) -> list[list[str]]:
        """The words of each call."""
        with changing(self.directory) as state:
            return [call for call in state["calls"] if call[0] == command]

    # --- what happens on the cluster

    def somebodys_job(self, user: str, *, held: bool = False, name: str = "my-simulation") -> str:
        """A job that is no business of the service's."""
        with changing(self.directory) as state:
            return make_job(state, user, name, held, "/tmp")

    def set_job(self, job_id: str, *, exit_: str | None = None, **values: object) -> None:
        """The controller and accounting learn this of a job (``exit_``: as accounting prints it)."""
        with changing(self.directory) as state:
            state["jobs"][job_id].update(values)
            row = last_row(state, job_id)
            row.update({name: value for name, value in values.items() if name in {"state", "node"}})
            if exit_ is not None:
                row["exit"] = exit_

    def requeue(self, job_id: str, first_end: str = "NODE_FAIL") -> None:
        """Back into the queue: accounting gets a second row, the job a start time two minutes away."""
        with changing(self.directory) as state:
            job = state["jobs"][job_id]
            job.update(state="PENDING", reason="BeginTime", restarts=job["restarts"] + 1, node="")
            row = last_row(state, job_id)
            state["rows"].append({**row, "state": "PENDING"})
            row["state"] = first_end

    def forget(self, job_id: str) -> None:
        """The controller drops an ended job (MinJobAge); accounting has what it has."""
        with changing(self.directory) as state:
            del state["jobs"][job_id]

    def lose_memory(self) -> None:
        """The controller died before it had written anything: jobs are forgotten, and numbers begin again."""
        with changing(self.directory) as state:
            state["jobs"], state["next_id"] = {}, FIRST_ID

    def thaw(self) -> None:
        """The frozen controller does what it was asked for."""
        with changing(self.directory) as state:
            state["lies"] = {}
            for request in state["late"]:
                make_job(state, *request)
            state["late"] = []

    def start(self, job_id: str) -> None:
        """The job gets its node."""
        job = self.jobs()[job_id]
        assert (job["state"], "eld" in job["reason"]) == ("PENDING", False), job
        self.set_job(job_id, state="RUNNING", reason="", node="n1")

    def start_pending(self) -> None:
        """All jobs of the service that are not held get their node."""
        for job in self.open_jobs():
            if job["state"] == "PENDING" and "eld" not in job["reason"] and job["name"].startswith("stagecoach-"):
                self.start(job["id"])

    def finish(self, job_id: str) -> None:
        """The job does its work, and ends well."""
        job = self.jobs()[job_id]
        assert job["state"] == "RUNNING", job
        self.work(job["directory"])
        self.set_job(job_id, state="COMPLETED")

    def work(self, directory: str) -> None:
        """What the script in ``directory`` does, whatever Slurm says of its job."""
        ticket = self._ticket(directory)
        status, _, content = self._follow("GET", ticket["object"]["get_url"], b"")
        assert status == 200
        path = base64.b64decode(ticket["path_base64"]).decode()
        owner = os.stat(directory).st_uid
        Path(path).write_bytes(content)
        os.chown(path, owner, owner)
        size = len(content)
        receipt = {"version": 1, "transfer_id": ticket["transfer_id"], "ok": True, "message": "", "size_bytes": size}
        assert self._follow("PUT", ticket["receipt_url"], json.dumps(receipt).encode())[0] == 200

    def progress(self, directory: str, bytes_done: int) -> None:
        """The script tells how far it is."""
        ticket = self._ticket(directory)
        progress = {"version": 1, "transfer_id": ticket["transfer_id"], "bytes_done": bytes_done, "phase": "moving"}
        assert self._follow("PUT", ticket["progress_url"], json.dumps(progress).encode())[0] == 200

    def _ticket(self, directory: str) -> dict[str, Any]:
        url = Path(directory, "ticket-url").read_text(encoding="utf-8").strip()
        status, _, body = self._follow("GET", url, b"")
        assert status == 200, "the ticket's URL does not work"
        ticket: dict[str, Any] = json.loads(body)
        return ticket


@contextmanager
def open_lying_slurm(user: str, follow: Callable[..., Any]) -> Iterator[LyingSlurm]:
    """The commands in a directory that ``user`` may use; all is removed in the end."""
    directory = Path(tempfile.mkdtemp(prefix="lying-slurm-"))
    try:
        program = directory / "slurm.py"
        shutil.copyfile(Path(__file__).with_name("slurm.py"), program)
        program.chmod(0o755)
        for command in COMMANDS:
            (directory / command).symlink_to(program)
        state = {"next_id": FIRST_ID, "jobs": {}, "rows": [], "late": [], "lies": {}, "calls": []}
        (directory / "state.json").write_text(json.dumps(state), encoding="utf-8")
        account = pwd.getpwnam(user)
        for path in (directory, directory / "state.json"):
            os.chown(path, account.pw_uid, account.pw_gid)
        yield LyingSlurm(directory, follow)
    finally:
        shutil.rmtree(directory)


def is_ours(job: dict[str, Any], transfer_id: str) -> bool:
    """Whether a job was submitted for this transfer, whatever the attempt."""
    return str(job["name"]).startswith(names.job_name(transfer_id, 1))
