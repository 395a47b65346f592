"""Runs one job of the embedded mode, apart from the service: started by file name, standard library only.

    python -I local_job.py JOB_DIRECTORY LOCK_FD

It leaves the service's session, so that neither the service's end nor its restart touches the job. Everybody learns
from files how the job stands: ``started`` (who runs it), ``exit`` (how it ended), and the lock behind LOCK_FD, which the
kernel frees when the last process of the job is gone, whatever became of the files.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

POLL_SECONDS = 0.1
GRACE_SECONDS = 5.0


def write_whole(path: str, content: dict[str, Any]) -> None:
    """All of it or nothing, also when the machine stops in between."""
    beside = f"{path}.{os.getpid()}.new"
    with open(beside, "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, path)


def main(job_directory: str, lock_fd: int) -> int:
    """Fork, and come back as soon as it is written down that the job has started."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        return 0 if os.read(reading, 1) else 1
    os.close(reading)
    os.setsid()
    # A handler and not SIG_IGN, which the script would inherit: a signal to the group is for the script.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    write_whole(os.path.join(job_directory, "started"), {"pid": os.getpid(), "time": time.time()})
    os.write(writing, b"1")
    os.close(writing)
    ending = _run(job_directory, lock_fd)
    write_whole(os.path.join(job_directory, "exit"), {**ending, "time": time.time()})
    # Like Slurm: what the script left behind ends with it, and so do we.
    os.killpg(0, signal.SIGKILL)
    return 0


def stream_path(request: dict[str, Any], name: str, job_id: str) -> str | None:
    """Where a stream of the job is, absolute. What users ask for may hold Slurm's commonest patterns."""
    path = request.get(name)
    if not path:
        return None
    if request.get("is_users_own"):
        known = {"%j": job_id, "%J": job_id, "%A": job_id, "%x": request["name"], "%u": request["user"], "%%": "%"}
        path = re.sub("%.", lambda found: known.get(found[0], found[0]), path)
    return os.path.join(request["directory"], path)


def environment_of(request: dict[str, Any]) -> dict[str, str]:
    """Of all that the job runs."""
    return {**os.environ, **request.get("environment", {})}


class Attached:
    """Commands that the user has run inside the job: ``attach-N`` asks for one, ``attach-N.exit`` says how it ended."""

    def __init__(self, job_directory: str, request: dict[str, Any], lock_fd: int) -> None:
        self._job_directory = job_directory
        self._request = request
        self._lock_fd = lock_fd
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._seen: set[str] = set()

    def look(self) -> None:
        """Start what is new, and write down what has ended."""
        for name in os.listdir(self._job_directory):
            if name.startswith("attach-") and name.removeprefix("attach-").isdigit() and name not in self._seen:
                self._seen.add(name)
                self._start(name)
        for name, process in list(self._running.items()):
            code = process.poll()
            if code is not None:
                del self._running[name]
                self._write_exit(name, code)

    def _write_exit(self, name: str, code: int) -> None:
        write_whole(os.path.join(self._job_directory, name + ".exit"), {"code": code})

    def _start(self, name: str) -> None:
        path = os.path.join(self._job_directory, name)
        with open(path, encoding="utf-8") as file:
            command = json.load(file)["command"]
        with open(path + ".err", "wb") as errors:
            try:
                self._running[name] = subprocess.Popen(
                    ["/bin/sh", "-c", command],
                    cwd=self._request["directory"],
                    env=environment_of(self._request),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    pass_fds=(self._lock_fd,),
                )
            except OSError as error:
                errors.write(str(error.strerror).encode())
                errors.flush()
                self._write_exit(name, 127)


def _run(job_directory: str, lock_fd: int) -> dict[str, Any]:
    with open(os.path.join(job_directory, "request"), encoding="utf-8") as file:
        request = json.load(file)
    cancelled = os.path.join(job_directory, "cancelled")
    attached = Attached(job_directory, request, lock_fd)
    script = os.path.join(job_directory, "script")
    try:
        with open(script, "rb") as text:
            # The interpreter is called by name: a file that was just written can be "busy", or lie where nothing may run.
            interpreter = os.fsdecode(text.readline()[2:]).split(None, 1)
        with ExitStack() as streams:
            # A staging job's log goes on; a user's output begins anew, as with Slurm.
            mode = "wb" if request.get("is_users_own") else "ab"
            job_id = os.path.basename(job_directory)
            output_path, error_path, input_path = (
                stream_path(request, name, job_id) for name in ("output_path", "error_path", "input_path")
            )
            output = streams.enter_context(open(output_path or os.devnull, mode))
            errors = streams.enter_context(open(error_path, mode)) if error_path else output
            stdin = streams.enter_context(open(input_path or os.devnull, "rb"))
            process = subprocess.Popen(
                [word.strip() for word in interpreter] + [script],
                cwd=request["directory"],
                env=environment_of(request),
                stdin=stdin,
                stdout=output,
                stderr=errors,
                pass_fds=(lock_fd,),
            )
    except OSError as error:
        return {"code": None, "signal": None, "reason": f"JobLaunchFailure: {error.strerror}", "cancelled": False}
    asked_at: float | None = None
    while True:
        try:
            status = process.wait(POLL_SECONDS)
            break
        except subprocess.TimeoutExpired:
            attached.look()
        if asked_at is None and os.path.exists(cancelled):
            asked_at = time.monotonic()
            os.killpg(0, signal.SIGTERM)
        if asked_at is not None and time.monotonic() - asked_at > GRACE_SECONDS:
            process.kill()
    ended_by_signal = status < 0
    return {
        "code": None if ended_by_signal else status,
        "signal": -status if ended_by_signal else None,
        "reason": "",
        # A script that did its work although it was asked to stop has done its work.
        "cancelled": status != 0 and os.path.exists(cancelled),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
