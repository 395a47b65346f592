"""The Scheduler port without a scheduler: jobs are detached child processes of this machine, for the embedded mode.

A job is a directory ``STATE/<id>`` and everything about it is in its files, so a service that was killed and started
again, or a second one beside it, sees the same jobs:

    request    who asked for what; there from the first moment (the directory is renamed into place with it)
    script     the copy that runs, like Slurm's
    released   it may run; absent while it is held
    started    a runner has it (local_job.py)
    cancelled  it shall end
    exit       how it ended
    lock       held by every process of the job: free and no ``exit`` means that the job died without a word
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stagecoach.clusters import local_job
from stagecoach.clusters.local_states import local_report
from stagecoach.core.errors import InvalidRequest, JobNotFound, SubmissionRefused, SystemUnavailable
from stagecoach.ports.scheduler import JobKey, JobReport, JobRequest

KEEP_ENDED_SECONDS = 7 * 24 * 3600
# The job gets these of the service's own variables and no other: some hold secrets.
_ENVIRONMENT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ")
_START_SECONDS = 30


class LocalScheduler:
    """Jobs as processes. Several may share one ``state_directory``."""

    def __init__(self, state_directory: str | Path) -> None:
        # The scripts run in other directories.
        self._state = Path(state_directory).absolute()

    def require_answering(self, username: str) -> None:
        return

    async def submit(self, username: str, request: JobRequest) -> str:
        return await asyncio.to_thread(self._submit, username, request)

    async def find(self, username: str, name: str) -> list[JobReport]:
        return await asyncio.to_thread(self._find, username, name)

    async def list_open_jobs(self, asker: str, name_prefix: str, *, of_everyone: bool) -> list[JobReport]:
        return await asyncio.to_thread(self._list_open, None if of_everyone else asker, name_prefix)

    async def release(self, username: str, job_id: str) -> None:
        await asyncio.to_thread(self._release, username, job_id)

    async def cancel(self, username: str, job_id: str) -> None:
        await asyncio.to_thread(self._cancel, username, job_id)

    async def reports(self, jobs: Sequence[JobKey]) -> Mapping[str, JobReport]:
        return await asyncio.to_thread(self._reports, jobs)

    async def try_directives(self, username: str, account: str | None) -> None:
        """There are none to try."""

    async def ping(self, username: str) -> str:
        await asyncio.to_thread(self._make_state_directory)
        return "local processes"

    def _make_state_directory(self) -> None:
        try:
            self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SystemUnavailable(f"The state directory {self._state} cannot be made ({error.strerror}).") from error

    def _submit(self, username: str, request: JobRequest) -> str:
        try:
            script = Path(request.script_path).read_bytes()
        except OSError as error:
            raise SubmissionRefused(f"Unable to open the job script ({error.strerror}).") from error
        asked = {name: getattr(request, name) for name in ("name", "directory", "output_path", "error_path", "account")}
        return self.keep(username, asked, script, held=request.held)

    def keep(self, username: str, asked: Mapping[str, Any], script: bytes, *, held: bool) -> str:
        """A job from what local_job.py reads in its request, and its script. Raises SubmissionRefused, SystemUnavailable."""
        if not script.startswith(b"#!/"):
            raise SubmissionRefused("This does not look like a batch script: its first line must begin with #!/.")
        self._make_state_directory()
        try:
            job_id = self._place({**asked, "user": username, "time": time.time()}, script, held)
        except OSError as error:
            raise SystemUnavailable(f"The job cannot be kept in {self._state} ({error.strerror}).") from error
        if not held:
            self._start(self._state / job_id)
        self._forget_old()
        return job_id

    def _place(self, asked: Mapping[str, Any], script: bytes, held: bool) -> str:
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=self._state))
        try:
            (new / "script").write_bytes(script)
            (new / "lock").touch()
            if not held:
                (new / "released").touch()
            local_job.write_whole(str(new / "request"), dict(asked))
            number = max((int(path.name) for path in self.jobs()), default=0)
            while True:
                number += 1
                try:
                    # Renaming over a directory that is not empty fails: two submissions never get one number.
                    os.rename(new, self._state / str(number))
                    return str(number)
                except OSError:
                    if not (self._state / str(number)).exists():
                        raise
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def jobs(self) -> list[Path]:
        """The directories of all jobs that are remembered."""
        try:
            return [path for path in self._state.iterdir() if path.name.isascii() and path.name.isdigit()]
        except FileNotFoundError:
            return []

    def _find(self, username: str, name: str) -> list[JobReport]:
        found = [
            report
            for path in self.jobs()
            if (asked := read_json(path / "request")) is not None
            and (asked["name"], asked["user"]) == (name, username)
            and (report := self.look(path)) is not None
        ]
        return sorted(found, key=lambda report: int(report.job_id))

    def _list_open(self, username: str | None, name_prefix: str) -> list[JobReport]:
        reports = (self.look(path) for path in self.jobs())
        found = [report for report in reports if report is not None and not report.phase.is_final]
        found = [report for report in found if report.name.startswith(name_prefix) and username in {None, report.user}]
        return sorted(found, key=lambda report: int(report.job_id))

    def _reports(self, jobs: Sequence[JobKey]) -> dict[str, JobReport]:
        reports: dict[str, JobReport] = {}
        for key in jobs:
            if key.job_id.isascii() and key.job_id.isdigit():
                report = self.look(self._state / key.job_id)
                if report is not None and (report.name, report.user) == (key.name, key.user):
                    reports[key.job_id] = report
        return reports

    def look(self, job: Path) -> JobReport | None:
        """How the job in this directory stands; None where there is none."""
        if (job / "released").exists() and not (job / "started").exists() and not (job / "cancelled").exists():
            # Released by a service that ended before it could start it.
            self._start(job)
        asked = read_json(job / "request")
        if asked is None:
            return None
        # The order keeps others' steps in between from looking like an end: a job that was cancelled before it started
        # never starts; one that has started holds its lock until it has written ``exit``.
        cancelled_at = _mtime(job / "cancelled")
        started = read_json(job / "started")
        alive = _is_alive(job)
        ending = read_json(job / "exit")
        if alive and ending is None and started is not None and cancelled_at is not None:
            self._end_by_force(int(started["pid"]), cancelled_at)
        return local_report(
            job.name,
            asked,
            started,
            ending,
            alive=alive,
            released=(job / "released").exists(),
            cancelled_at=cancelled_at,
        )

    def _release(self, username: str, job_id: str) -> None:
        job = self.own(username, job_id)
        if job is None:
            raise JobNotFound(f"There is no job {job_id} of this user.")
        if not (job / "cancelled").exists():
            (job / "released").touch()
            self._start(job)

    def _cancel(self, username: str, job_id: str) -> None:
        job = self.own(username, job_id)
        if job is None or (job / "exit").exists():
            return
        # Under the lock of starting: it is either not started and never will be, or its runner sees the mark.
        with _Locked(job / "starting"):
            (job / "cancelled").touch()

    def own(self, username: str, job_id: str) -> Path | None:
        """The directory of a job of the user's; None where there is none. Raises InvalidRequest."""
        if not (job_id.isascii() and job_id.isdigit()):
            raise InvalidRequest(f"{job_id!r} is not a job id.")
        asked = read_json(self._state / job_id / "request")
        return self._state / job_id if asked is not None and asked["user"] == username else None

    def _start(self, job: Path) -> None:
        with _Locked(job / "starting"), open(job / "lock", "rb") as lock:
            if (job / "started").exists() or (job / "cancelled").exists():
                return
            # Held here first and inherited by the runner, so there is no moment in which the job looks dead. Somebody
            # who only looks holds it for an instant, hence waiting; nobody else can hold it, the job has not started.
            fcntl.flock(lock, fcntl.LOCK_EX)
            environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
            try:
                done = subprocess.run(
                    [sys.executable, "-I", local_job.__file__, str(job), str(lock.fileno())],
                    env=environment | {"STAGECOACH_JOB_ID": job.name},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(lock.fileno(),),
                    timeout=_START_SECONDS,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise SystemUnavailable(f"Job {job.name} cannot be started ({type(error).__name__}).") from error
        if done.returncode != 0:
            raise SystemUnavailable(f"Job {job.name} cannot be started: is the disk of {self._state} full?")

    def _end_by_force(self, pid: int, cancelled_at: float) -> None:
        # The runner does this itself, later than asked by GRACE_SECONDS; this is for a job whose runner was killed. While
        # the lock is held a process of the job lives, so its group's number has not been given to anybody else.
        if time.time() - cancelled_at > local_job.GRACE_SECONDS + 2:
            try:
                os.killpg(pid, signal.SIGKILL)
            except OSError:
                return

    def _forget_old(self) -> None:
        jobs = sorted(self.jobs(), key=lambda path: int(path.name))
        # The last one stays, or its number would be given again.
        for job in jobs[:-1]:
            ended = _mtime(job / "exit") or _mtime(job / "cancelled")
            if ended is not None and time.time() - ended > KEEP_ENDED_SECONDS and not _is_alive(job):
                shutil.rmtree(job, ignore_errors=True)


class _Locked:
    """An exclusive lock on a file, waited for; the kernel frees it if we die."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._file = open(self._path, "ab")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _is_alive(job: Path) -> bool:
    try:
        with open(job / "lock", "rb") as lock:
            # Shared, so that several who look do not take one another for the job.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return content if isinstance(content, dict) else None


def _mtime(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None
